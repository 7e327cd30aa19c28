"""The results of `flow3r evaluate recording` in words: what was checked, what came out, and how to
read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Row = tuple[str, str, str]
"""what was checked, what came out, how to read it"""


def check_rows(result: Mapping[str, Any]) -> list[Row]:
    """One row a check, those against the truth first."""
    rows = [*_against_poses(result.get("trajectory")), *_against_depth(result.get("depth"))]
    for gap, pairs in result["agreement"].items():
        rows += _agreement(int(gap.removeprefix("gap_")), pairs)
    if not result["agreement"]:
        rows.append(
            ("agreement with the pictures", "not checked", "no pair of frames saw enough in common")
        )
    return [*rows, _seams(result["seams"]), _loop(result["loop"])]


def render_rows(rows: list[Row]) -> str:
    """Aligned lines for a terminal."""
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(
        f"{what:<{widths[0]}}  {value:<{widths[1]}}  {meaning}" for what, value, meaning in rows
    )


def _against_poses(errors: Mapping[str, Any] | None) -> list[Row]:
    if errors is None:
        return [
            (
                "true poses",
                "none given",
                "--reference FILE.tum or --truth-topic TOPIC compares with them",
            )
        ]
    if "error" in errors:
        return [("true poses", "not compared", errors["error"])]
    way = errors["path_length"]
    share = f" ({errors['ate_rmse'] / way:.1%} of the way)" if way > 0 else ""
    rows = [
        (
            "position error against the truth (ATE)",
            f"{errors['ate_rmse']:.3g} m{share}",
            f"RMSE over {errors['matched']} of {errors['est_frames']} frames and "
            f"{way:.3g} m, after rotation, shift and scale were fitted",
        ),
        (
            "drift from frame to frame (RPE)",
            f"{errors['rpe_trans_rmse']:.3g} m, {errors['rpe_rot_deg_rmse']:.3g} deg",
            f"RMSE over {errors['rpe_pairs']} pairs"
            + (f"; {errors['gaps']} gaps in the truth are bridged" if errors["gaps"] else ""),
        ),
        (
            "scale",
            f"{errors['scale']:.4g}",
            "true metres in one unit of the estimate; 1 where the scale is metric",
        ),
    ]
    if errors["suggested_offset_s"] is not None:
        shift = f"{errors['suggested_offset_s']:+.3f} s"
        rows.append(
            (
                "clock of the truth",
                f"differs by about {shift}?",
                "the motions agree clearly better with that offset: check the stamps",
            )
        )
    return rows


def _against_depth(errors: Mapping[str, Any] | None) -> list[Row]:
    if errors is None:
        return [("true depth", "none given", "--depth-topic TOPIC compares with it")]
    counted = (
        f"{errors['unmatched']} of {errors['images']} images match no frame in time, "
        f"{errors['unusable']} are unusable"
    )
    if "error" in errors:
        return [("true depth", "not compared", f"{errors['error']}; {counted}")]
    value = (
        f"{errors['abs_rel']:.1%} on average (AbsRel), {errors['delta_1.25']:.0%} of the "
        "pixels within 25 %"
    )
    return [
        (
            "depth error against the truth",
            value,
            f"{errors['frames']} images, one scale each; {counted}",
        )
    ]


def _agreement(gap: int, pairs: Mapping[str, Any]) -> list[Row]:
    when = "next frame" if gap == 1 else f"{gap} frames later"
    return [
        (
            f"motion of the pixels, {when}",
            f"{pairs['flow_below_1px']:.0%} within 1 px, {pairs['flow_below_5px']:.0%} within 5 px",
            f"depth and pose against optical flow; medians over {pairs['pairs']} pairs, "
            f"error {pairs['flow_epe_px']:.2g} px",
        ),
        (
            f"brightness, {when}",
            f"{pairs['brightness']:.3g} instead of {pairs['brightness_unmoved']:.3g}",
            "mean difference of grey values (0 to 255) once one frame is warped into "
            "the other; without warping",
        ),
        (
            f"depth, {when}",
            f"{pairs['depth_difference']:.1%} apart",
            "the depth of the same point in both frames; small when the geometry is "
            "rigid over time",
        ),
    ]


def _seams(seams: Mapping[str, Any]) -> Row:
    residual = seams["residual_median"]
    value = f"{seams['refused']} of {seams['of']} refused"
    value += (
        "" if residual is None else f", residual {residual:.1%} (p95 {seams['residual_p95']:.1%})"
    )
    return (
        "seams between windows",
        value,
        "how far two windows disagree about common frames, relative to depth; refused "
        "ones are bridged",
    )


def _loop(loop: Mapping[str, Any]) -> Row:
    if not loop["same_place"]:
        return (
            "way back to the start",
            "not checked",
            "the last picture does not show the place of the first",
        )
    share = "" if loop["share_of_way"] is None else f" ({loop['share_of_way']:.1%} of the way)"
    value = f"{loop['position_gap']:.3g} units{share}, {loop['rotation_gap_deg']:.2g} deg"
    return (
        "way back to the start",
        value,
        "the last picture shows the place of the first, so this gap is drift",
    )
