"""`summary.json` in words: what the console prints at the end of a run, and the report at its top.

One source for both: a length is called metres here or nowhere, and what went wrong is said with
what to try.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

UNITS = "units"
"""name of a length that nobody has measured in metres"""
MANY_REFUSED = 0.25
"""share of refused seams from which the network did not fit the motion"""
LISTED = 5
"""lost spans and segments that are named one by one"""

REMEDIES = {
    "too few corners": "move more slowly, or film at a higher rate and without blur",
    "a jump": "keep every frame (no --every), and do not shake the camera",
    "the corners do not": "check camera.json: a wrong focal length looks like this",
    "the picture does not": "much of the picture moves by itself, or the light changes: lock the "
    "exposure, or mask what moves",
    "the picture shows nothing": "the lens was covered, or the wall bare, or it was dark",
    "time jumped back": "split the recording where its clock starts over",
    "image size": "split the recording where its image size changes",
    "intrinsics": "split the recording where its calibration changes",
    "back end": "this is a fault of flow3r, or too little memory: run it alone with --debug",
}
"""beginning of a reason -> what to try"""
DROPS = {
    "corrupt_image": "copy or record the input again: some pictures cannot be decoded",
    "corrupt_message": "the bag is damaged; record it again",
    "too_large": "send smaller pictures",
    "no_stamp": "let the driver stamp its images, or start it after the clock",
    "repeated_stamp": "pictures with one stamp: check the camera's clock",
    "non_monotonic_stamp": "pictures out of order: check stamps or timestamps.txt",
    "resolution_change": "split the recording where its image size changes",
}
"""reason of a dropped frame -> what to try"""


@dataclass(frozen=True)
class Problem:
    """One thing that went wrong: what and when, why, and what to try, where that is known; `grave`
    ones cost poses."""

    what: str
    why: str = ""
    remedy: str = ""
    grave: bool = False

    def in_words(self) -> str:
        """What happened and why."""
        return f"{self.what}: {self.why}" if self.why else self.what


def unit_of(summary: Mapping[str, Any]) -> str:
    """`m` where the scale was measured in metres, else `units`."""
    return "m" if summary.get("scale_state") == "metric" else UNITS


def camera_in_words(camera: Mapping[str, Any]) -> str:
    """`camera` of a summary in one line: where the intrinsics come from, what they are, why."""
    names = {"assumed": "ASSUMED, not known", "estimated": "estimated from the motion"}
    source = str(camera.get("source", ""))
    said = names.get(source, f"from {source}")
    if "fx" in camera:
        lens = "no distortion" if camera.get("model") == "none" else camera.get("model")
        said += f": {lens}, fx {camera['fx']:.1f}, fy {camera['fy']:.1f}"
    return f"{said} ({camera['why']})" if camera.get("why") else said


def problems_of(summary: Mapping[str, Any]) -> list[Problem]:
    """What a user should know before trusting the run, gravest first."""
    found = [*_interrupted(summary), *_lost(summary), *_segments(summary), *_dropped(summary)]
    camera = summary.get("camera") or {}
    if camera.get("source") == "assumed":
        found.append(
            Problem(
                "the focal length is assumed, not known",
                str(camera.get("why", "")),
                "calibrate the camera and give --camera camera.json; depth and way are distorted",
            )
        )
    if camera.get("misfit"):
        what = f"what corners do fits a lens {camera['focal']:.3f} times as long, which was used"
        found.append(Problem(str(camera["misfit"]), what, "calibrate the camera again"))
    seams, refused = int(summary.get("seams", 0)), int(summary.get("seams_refused", 0))
    if refused >= 3 and refused > MANY_REFUSED * (seams + refused):
        found.append(
            Problem(
                f"{refused} of {seams + refused} answers of the network were refused",
                "they did not fit what was measured between keyframes",
                "depth is sparser there; try another --model, or check camera.json",
            )
        )
    found += [Problem(str(note)) for note in summary.get("notes", ())]
    return sorted(found, key=lambda problem: not problem.grave)


def summary_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of what the console prints, sensible digits."""
    states: Mapping[str, int] = summary.get("tracking_states") or {}
    frames = max(sum(states.values()), 1)
    drops = summary.get("frames_dropped") or {}
    estimated, given = summary.get("frames_estimated", 0), summary.get("frames_in", 0)
    latency = summary.get("latency_ms") or {}
    seams, refused = summary.get("seams", 0), summary.get("seams_refused", 0)
    lost = sum(span["last"] - span["first"] + 1 for span in summary.get("lost_spans") or ())
    segments = summary.get("segments") or ()
    scale = str(summary.get("scale_state", "unknown"))
    return [
        ("frames", f"{estimated} of {given} estimated; dropped: {_counts(drops) or 'none'}"),
        ("camera", camera_in_words(summary.get("camera") or {})),
        ("tracking", ", ".join(f"{name} {100 * n / frames:.1f} %" for name, n in states.items())),
        ("lost", f"{lost} frames" if lost else "never"),
        ("segments", str(len(segments))),
        (
            "scale",
            scale if scale == "metric" else f"{scale}: lengths are in {UNITS}, not in metres",
        ),
        ("seams", f"{refused} of {seams + refused} refused"),
        ("poses from", _counts(summary.get("pose_sources") or {})),
        (
            "speed",
            f"{summary.get('fps', 0.0):.3g} frames/s; latency {latency.get('p50', 0.0):.3g} ms, "
            f"p95 {latency.get('p95', 0.0):.3g} ms",
        ),
        ("memory", f"{summary.get('peak_rss_mb') or 0.0:.0f} MB at most"),
        ("model", f"{summary.get('model')} on {summary.get('device')}"),
        ("licence", str(summary.get("weights_license") or "not stated; check it at the source")),
    ]


def stage_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Stage, milliseconds a frame over the whole run, milliseconds when it ran (median); the
    costliest first."""
    over_run: Mapping[str, float] = summary.get("stage_ms_per_frame") or {}
    median: Mapping[str, float] = summary.get("stage_ms") or {}
    return [
        (stage, f"{each:.2f}", f"{median[stage]:.2f}" if stage in median else "")
        for stage, each in sorted(over_run.items(), key=lambda item: -item[1])
    ]


def _interrupted(summary: Mapping[str, Any]) -> list[Problem]:
    partial = summary.get("partial")
    if not partial:
        return []
    what = f"only a part: the run was interrupted after {partial['frames']} frames"
    return [Problem(what, str(partial["reason"]), "repeat the command with --resume", grave=True)]


def _lost(summary: Mapping[str, Any]) -> list[Problem]:
    spans = sorted(summary.get("lost_spans") or (), key=lambda span: span["first"] - span["last"])
    found = [
        Problem(
            f"lost from frame {span['first']} to {span['last']}",
            str(span["reason"] or "no reason was given"),
            _remedy(str(span["reason"]), REMEDIES, "see the pictures there in the report"),
            grave=True,
        )
        for span in spans[:LISTED]
    ]
    if len(spans) > LISTED:
        found.append(
            Problem(f"lost {len(spans) - LISTED} more times", "see lost_spans in summary.json")
        )
    return found


def _segments(summary: Mapping[str, Any]) -> list[Problem]:
    later = list(summary.get("segments") or ())[1:]
    return [
        Problem(
            f"a new segment begins at frame {segment['first']}",
            str(segment["reason"]),
            "its origin and unit have nothing to do with those before: split by states.csv",
            grave=True,
        )
        for segment in later[:LISTED]
    ]


def _dropped(summary: Mapping[str, Any]) -> list[Problem]:
    drops: Mapping[str, int] = summary.get("frames_dropped") or {}
    return [
        Problem(
            f"{count} frame{'s were' if count > 1 else ' was'} dropped",
            reason,
            DROPS.get(reason, ""),
        )
        for reason, count in drops.items()
        if count
    ]


def _remedy(reason: str, remedies: Mapping[str, str], otherwise: str) -> str:
    return next((cure for key, cure in remedies.items() if key in reason), otherwise)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
