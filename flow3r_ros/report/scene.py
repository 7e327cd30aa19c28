"""The way and the cloud as something that turns: the data that `interactive.js` draws.

Everything stands in the page: points as 16-bit integers in a cube around the middle, colours as
bytes, ways as text; half a megabyte at most.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

import numpy as np

from flow3r_ros.errors import EvaluationError
from flow3r_ros.geometry.trajectory_alignment import align_poses, associate
from flow3r_ros.report.mapped import LOOP_COLOR, MAP_COLOR, lay_map
from flow3r_ros.report.record import RunRecord
from flow3r_ros.report.row import STATES
from flow3r_ros.report.style import card, legend
from flow3r_ros.report.svg import color
from flow3r_ros.report.words import unit_of
from flow3r_ros.types import Float64

SEGMENT_COLORS = (0, 1, 3, 7, 2)
"""colours of segments, in turn"""
TRUTH_COLOR = 6
MAX_PLACES = 1500
"""places of all ways together that are drawn"""
SURE = 98
"""percentile of the points' distance from the middle that the cube is sized by: stray points lie
far out"""
ROOM = 1.3
"""size of the cube over that distance; points outside are left out"""
HINT = (
    "Drag to turn; pinch, or Ctrl and the wheel, to zoom; double click to go back. Pointing at a "
    "curve below shows the place of that moment."
)


@dataclass(frozen=True)
class Way:
    """One segment of a run: its name, colour, seconds `[N]` since the first frame, and the camera
    centres `[N, 3]`, NaN where there is no pose."""

    name: str
    color: int
    seconds: Float64
    centres: Float64


@dataclass(frozen=True)
class _Still:
    """A line that no moment points at: its name, colour and points `[N, 3]`, NaN where it breaks;
    `whole`: every point is drawn."""

    name: str
    color: int
    centres: Float64
    dashed: bool = False
    whole: bool = False


def ways_of(record: RunRecord, centres: Float64) -> list[Way]:
    """The segments of a run, with its camera centres `[N, 3]` as they are to be shown."""
    segments = record.column("segment").astype(int)
    seconds = record.column("stamp_s").astype(np.float64)
    lost = [STATES.index(state) for state in STATES if not state.has_pose]
    shown = np.where(np.isin(record.column("state"), lost)[:, None], np.nan, centres)
    numbers = sorted(set(segments))
    return [
        Way(
            "estimate" if len(numbers) == 1 else f"segment {number}",
            SEGMENT_COLORS[index % len(SEGMENT_COLORS)],
            seconds[segments == number],
            shown[segments == number],
        )
        for index, number in enumerate(numbers)
    ]


def scene(record: RunRecord) -> str:
    """The card with the canvas; empty without a pose."""
    ways = ways_of(record, record.poses[:, :3, 3])
    still = _still(record)
    places = np.concatenate([way.centres for way in ways] + [each.centres for each in still])
    known = places[np.isfinite(places).all(axis=1)]
    if not len(known):
        return ""
    points, colors = record.cloud
    middle = np.median(np.concatenate([known, points]), axis=0)
    far = np.linalg.norm(known - middle, axis=1).max()
    if len(points):
        far = max(far, np.percentile(np.linalg.norm(points - middle, axis=1), SURE))
    half = ROOM * max(float(far), 1e-9)
    cube = (points - middle) / half
    inside = (np.abs(cube) <= 1).all(axis=1)
    every = -(-len(places) // MAX_PLACES)
    drawn = [
        {
            "color": f"--c{way.color}",
            "times": np.round(way.seconds[::every], 3).tolist(),
            "places": _places(way.centres[::every], middle, half),
        }
        for way in ways
    ]
    drawn += [
        {
            "color": f"--c{each.color}",
            "dashed": each.dashed,
            "places": _places(each.centres[:: 1 if each.whole else every], middle, half),
        }
        for each in still
    ]
    keys = [(way.color, way.name) for way in ways] + [(each.color, each.name) for each in still]
    data = {
        "points": _base64((32767 * cube[inside]).astype("<i2")),
        "colors": _base64(colors[inside].astype(np.uint8)),
        "ways": drawn,
    }
    text = json.dumps(data, separators=(",", ":"))
    note = f"{int(inside.sum())} points of the map. " if len(points) else ""
    length = f"The cube is {2 * half:.3g} {unit_of(record.summary)} wide."
    return card(
        "Way and cloud",
        f"{legend([(color(shade), name) for shade, name in keys])}"
        '<canvas class="scene" tabindex="0" role="img" aria-label="way and cloud, to turn">'
        "</canvas>"
        f'<script type="application/json" id="scene-data">{text}</script>',
        f"{note}{length} {HINT}",
    )


def _still(record: RunRecord) -> list[_Still]:
    """The ground truth, the way in the map and the loops, where they are known."""
    truth, laid = truth_of(record), lay_map(record)
    found = []
    if truth is not None:
        found.append(_Still("ground truth (dashed)", TRUTH_COLOR, truth, dashed=True))
    if laid is not None:
        found.append(_Still("map", MAP_COLOR, laid.centres))
        if laid.closed:
            found.append(_Still(f"loops ({laid.closed})", LOOP_COLOR, laid.loops, whole=True))
    return found


def truth_of(record: RunRecord) -> Float64 | None:
    """Centres of the reference `[M, 3]` in the axes and unit of the estimate; None where they
    cannot be compared."""
    if record.reference is None:
        return None
    try:
        estimate = record.trajectory()
        est_ids, ref_ids = associate(estimate, record.reference)
        poses = record.reference.poses[ref_ids]
        return align_poses(poses, estimate.poses[est_ids], "sim3").apply(poses)[:, :3, 3]
    except EvaluationError:
        return None


def _places(centres: Float64, middle: Float64, half: float) -> list[list[float] | None]:
    return [
        np.round((centre - middle) / half, 5).tolist() if np.isfinite(centre).all() else None
        for centre in centres
    ]


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
