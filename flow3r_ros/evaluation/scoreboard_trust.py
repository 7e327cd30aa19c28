"""The sections of docs/results.md about trust: faults, confident lies, rotation over pairs of
frames, consistency and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flow3r_ros.evaluation.claims import PAIR_FRAMES
from flow3r_ros.evaluation.clip_runs import Clip, Contender
from flow3r_ros.evaluation.consistency import GAPS
from flow3r_ros.evaluation.markdown import number, table

Results = Mapping[tuple[str, str, int], Mapping[str, Any]]
"""by clip, contender and start frame, as `clip_runs.run_clip` gave them"""


def trust_sections(
    clips: Sequence[Clip],
    contender: Contender,
    results: Results,
    faults: Mapping[str, Any],
    rooms: Mapping[str, Any],
) -> str:
    """All sections about one contender. `faults` and `rooms` are what `flow3r bench --suite NAME
    --json` said (empty: not asked)."""
    with_truth = [clip for clip in clips if clip.truth]
    judged = {clip.name: results.get((clip.name, contender.key, 0), {}) for clip in with_truth}
    return "\n".join(
        [
            "## Faults\n",
            "`flow3r bench --suite faults [--clip CLIP ...]`: real clips with a fault spliced in. "
            "*noticed n*: not TRACKING (or another segment) from the n-th frame of the fault on; "
            "*right*: tracked, and right against the truth (else against the uninterrupted run) "
            "within 10 degrees and 30 % of the median depth; *back n*: right again in the n-th "
            "frame after the return to a known place; *lies*: frames that said TRACKING and were "
            "wrong. Goal: noticed within 2, back within 15, no lies.\n",
            faults_table(faults),
            "## Confident lies and rotation\n",
            "Of the runs above. *Lies*: frames TRACKING while over the last 10 frames the rotation "
            "is off by more than 10 degrees or the position by more than 30 % of the median depth. "
            f"RRA@5 and median error: relative rotation over all pairs of {PAIR_FRAMES} frames, "
            "evenly spaced over the clip; a pair without an answer (lost, or two segments) counts "
            "as wrong. ATE: each segment aligned by its own Sim(3).\n",
            lies_table(judged),
            "## Consistency of the covariances\n",
            "NEES/6 of relative poses, median (p10 to p90); 1 is right, above is too sure, inf is "
            "no covariance at all. *jitter*: the median with the noise of the truth itself "
            "allowed for (from its third differences, an upper bound). Goal: .3 to 3.\n",
            consistency_table(judged),
            "## Calibration of depth confidence\n",
            "Probability that a depth is within 10 %, scale aligned per frame. Expected "
            "calibration error in 20 bins; goal: at most .08.\n",
            calibration_table(judged, rooms),
        ]
    )


def faults_table(answer: Mapping[str, Any]) -> str:
    """One row a fault, one column a clip."""
    suite = answer.get("suites", {}).get("faults", {})
    rows = [row for row in suite.get("rows", []) if "verdict" in row]
    why = answer.get("error") or suite.get("error")
    failed = [f"{row['clip']}: {row['error']}\n" for row in suite.get("rows", []) if "error" in row]
    if not rows:
        return f"Not measured{f': {why}' if why else ''}.\n" + "\n".join(failed)
    names = list(dict.fromkeys(row["clip"] for row in rows))
    cells = {(row["clip"], row["verdict"]["fault"]): row["verdict"] for row in rows}
    known = list(dict.fromkeys(fault for _, fault in cells))
    body = [[fault, *[_verdict(cells.get((name, fault))) for name in names]] for fault in known]
    summed = [f"**{suite['passed']} of {suite['faults']} faults are handled.**\n"]
    against = [f"{name}: {source}" for name, source in suite["held against"].items()]
    summed.append(f"Poses held against: {'; '.join(against)}.\n")
    return "\n".join([table(["fault", *names], body), *summed, *failed])


def _verdict(verdict: Mapping[str, Any] | None) -> str:
    if verdict is None:
        return ""
    if verdict["error"]:
        return f"✗ {verdict['error']}"
    mark = "✓" if verdict["passed"] else "✗"
    if verdict["expect"].startswith("nothing"):
        return f"{mark} {verdict['alarms']:.1%} false alarms"
    parts = [] if verdict["noticed"] is None else [f"noticed {verdict['noticed']}"]
    parts += ["right"] if verdict["right"] and verdict["noticed"] is None else []
    parts += [f"{verdict['lies']} lies"] if verdict["lies"] else []
    if verdict["returns"]:
        parts.append(f"back {verdict['recovered']}" if verdict["recovered"] else "never back")
    return f"{mark} {', '.join(parts) or 'not noticed'}"


def lies_table(judged: Mapping[str, Mapping[str, Any]]) -> str:
    """One row a clip with truth."""
    rows = []
    for name, result in judged.items():
        found = result.get("judged")
        if not found or "error" in found:
            rows.append([name, _why(result)])
            continue
        lies, rotation, position = found["lies"], found["rotation"], found["position"]
        rows.append(
            [
                name,
                f"{lies['share']:.1%} ({lies['lies']} of {lies['frames']})",
                f"{lies['tracking']:.0%}",
                number(rotation["rra_5"]),
                number(rotation["rotation_median_deg"]),
                f"{rotation['answered']:.0%}",
                number(position["ate_rmse"]),
                f"{position['segments']}, {position['covered']:.0%} of the frames",
            ]
        )
    head = ["clip", "lies", "TRACKING", "RRA@5", "median rotation error (deg)", "pairs answered"]
    head += ["ATE", "segments"]
    return table(head, rows) if rows else "No clip with truth was present.\n"


def consistency_table(judged: Mapping[str, Mapping[str, Any]]) -> str:
    """One row a clip with truth."""
    rows = []
    for name, result in judged.items():
        nees = (result.get("judged") or {}).get("nees")
        rows.append([name, *[_nees(nees, gap) for gap in GAPS]] if nees else [name, _why(result)])
    head = ["clip", *[f"{gap} frame{'s' if gap > 1 else ''}" for gap in GAPS]]
    return table(head, rows) if rows else "No clip with truth was present.\n"


def _nees(nees: Mapping[str, Any], gap: int) -> str:
    found = nees.get(f"gap_{gap}")
    if not found:
        return ""
    spread = f"{number(found['p10'])} to {number(found['p90'])}"
    return (
        f"{number(found['median'])} ({spread}), jitter {number(found['median_with_truth_jitter'])}"
    )


def calibration_table(judged: Mapping[str, Mapping[str, Any]], rooms: Mapping[str, Any]) -> str:
    """Clips with true depth, then the synthetic rooms."""
    rows = []
    for name, result in judged.items():
        found = result.get("confidence") or {}
        if found.get("pixels"):
            cells = [number(found[key]) for key in ("error", "claimed", "right")]
            rows.append([name, *cells, str(found["pixels"])])
    suite = rooms.get("suites", {}).get("rooms", {})
    for row in suite.get("rows", []):
        if "calibration" in row:
            found = row["calibration"]
            cells = [number(found[key]) for key in ("error", "claimed", "right")]
            rows.append([row["name"].partition(":")[0], *cells, str(found["pixels"])])
    why = rooms.get("error") or suite.get("error")
    text = (
        table(["clip", "error", "mean confidence", "share right", "pixels"], rows) if rows else ""
    )
    return (
        text + (f"synthetic rooms: {why}\n" if why else "") or "No clip with depth was present.\n"
    )


def _why(result: Mapping[str, Any]) -> str:
    found = result.get("judged") or {}
    return str(found.get("error") or result.get("error") or "not measured")
