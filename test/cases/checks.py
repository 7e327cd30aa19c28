"""What is right, in the words of the cases' README, and how to see it in what a command wrote."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2

from flow3r_ros.bags.storage import Storage
from test.cases.workshop import Outcome, Workshop, flow3r

Answer = tuple[str, bool]
"""what was got, in words, and whether it is right"""
Check = Callable[[Workshop, Path], Answer]

ATE_M, TURN_DEG = 0.005, 0.1
"""a right run of a recording whose camera is known, per README"""
GRAY_ATE_M = 0.03
"""pictures without colour, which the bundled model was not trained on: measured 0.022 on mono8"""
ROUGH_ATE_M = 0.05
"""a run whose focal length is estimated from twelve frames: shows that the order is right"""
USELESS = ("check topic, start, duration", "not a video that", "check the input")
"""cures that send the user elsewhere"""


def stamps_of(output: Path) -> list[int]:
    """Stamps of trajectory.tum in ns."""
    lines = (output / "trajectory.tum").read_text().splitlines()
    return [int(line.split()[0].replace(".", "")) for line in lines if line[0] != "#"]


def frames(
    count: int,
    dropped: int = 0,
    first_ns: int | None = None,
    steps_ms: list[int] | int | None = None,
    ate: tuple[int, int, float] | None = None,
    wide: bool = False,
    options: tuple[str, ...] = (),
) -> Check:
    """`flow3r run` estimates so many frames and drops so many, with these stamps, near the truth.

    ate: start and step of the true stamps (ns), and the largest error (m). wide: the picture lies.
    """

    def check(shop: Workshop, source: Path) -> Answer:
        done = shop.run(source, *options)
        if done.code:
            return done.refusal or f"exit {done.code}: {done.err[-200:]}", False
        summary, stamps = done.json, stamps_of(done.output)
        lost = sum(summary["frames_dropped"].values())
        got = [f"{len(stamps)} frames"] + ([f"{lost} dropped"] if lost else [])
        right = len(stamps) == count and lost == dropped and summary["frames_in"] == count + lost
        if first_ns is not None:
            got.append(f"first {stamps[0] / 1e9:.3f}")
            right &= stamps[0] == first_ns
        if steps_ms is not None:
            steps = [round((b - a) / 1e6) for a, b in pairwise(stamps)]
            got.append(f"steps {sorted(set(steps))} ms")
            right &= steps == ([steps_ms] * len(steps) if isinstance(steps_ms, int) else steps_ms)
        if ate is not None:
            words, near = _near(done, shop.truth(*ate[:2]), ate[2])
            got.append(words)
            right &= near
        if wide:
            height, width = _depth_size(done.output)
            got.append(f"depth {width}x{height}")
            right &= width > height
        return ", ".join(got), right

    return check


def _near(done: Outcome, truth: Path, largest: float) -> Answer:
    measured = flow3r("evaluate", "trajectory", done.output / "trajectory.tum", truth, "--json")
    if measured.code:
        return measured.refusal, False
    error, turn = measured.json["ate_rmse"], measured.json["rpe_rot_deg_rmse"]
    right = error < largest and (largest > ATE_M or turn < TURN_DEG)
    return f"ATE {1e3 * error:.1f} mm, {turn:.3f} deg", right


def _depth_size(output: Path) -> tuple[int, int]:
    picture = cv2.imread(str(next(iter(sorted((output / "depth").glob("*.png"))))), -1)
    assert picture is not None
    return picture.shape[0], picture.shape[1]


def refused(*words: str, command: str = "run") -> Check:
    """Exit 1 and one line that names one of the words (patterns), and no useless cure."""

    def check(shop: Workshop, source: Path) -> Answer:
        done = shop.run(source) if command == "run" else shop.replay(source)
        return done.refusal or f"exit {done.code}", _is_refusal(done.refusal, words)

    return check


def _is_refusal(line: str, words: tuple[str, ...]) -> bool:
    named = any(re.search(word, line, re.IGNORECASE) for word in words)
    return named and not any(useless in line for useless in USELESS)


def either(first: Check, *words: str) -> Check:
    """The first is right, or it was refused in these words."""

    def check(shop: Workshop, source: Path) -> Answer:
        got, right = first(shop, source)
        return got, right or (got.startswith("flow3r:") and _is_refusal(got, words))

    return check


def focal(expected: float, tolerance: float) -> Check:
    """Focal length in pixels of the 320 wide picture after rectification, within a share of it."""

    def check(shop: Workshop, source: Path) -> Answer:
        done = shop.replay(source)
        if done.code:
            return done.refusal or f"exit {done.code}", False
        info = next(messages(done.output, "/flow3r/depth/camera_info"))
        found = float(info.k[0]) * 320 / info.width
        return f"fx {found:.1f}", abs(found - expected) <= tolerance * expected

    return check


def edge(parent: str, child: str, *options: str) -> Check:
    """The replayed odometry and tf are of this edge."""

    def check(shop: Workshop, source: Path) -> Answer:
        config = shop.folder / "base_link.yaml"
        config.write_text("node: {base_frame: base_link}\n")
        done = shop.replay(source, *(("--config", config) if options else ()))
        if done.code:
            return done.refusal or f"exit {done.code}", False
        edges = {
            (message.header.frame_id, message.child_frame_id)
            for message in messages(done.output, "/flow3r/odometry")
        }
        return ", ".join(f"{a} -> {b}" for a, b in sorted(edges)), edges == {(parent, child)}

    return check


def messages(bag: Path, topic: str) -> Iterator[Any]:
    """Messages of a topic of a bag that we wrote."""
    with Storage(bag) as storage:
        for name, _, data in storage.messages({topic}):
            yield storage.deserialize(name, data)


def depth_error(expected: float, tolerance: float) -> Check:
    """abs_rel of `flow3r evaluate recording --depth-topic`."""

    def check(shop: Workshop, source: Path) -> Answer:
        topic = "/camera/depth/image_rect_raw"
        topic += "/compressedDepth" if source.name == "depth_packed" else ""
        options = ("--topic", "/camera/color/image_raw", "--depth-topic", topic, "--json")
        done = flow3r("evaluate", "recording", source, *options)
        if done.code:
            return done.refusal or f"exit {done.code}", False
        depth = done.json["depth"]
        if "error" in depth:
            return f"flow3r: {depth['error']}", False
        return f"abs_rel {depth['abs_rel']:.3f}", abs(depth["abs_rel"] - expected) <= tolerance

    return check


def same_trajectory(truth: str, count: int = 40) -> Check:
    """`flow3r evaluate trajectory` against a file beside it: ATE 0, all matched, turns too."""

    def check(shop: Workshop, source: Path) -> Answer:
        done = flow3r("evaluate", "trajectory", source, source.parent / truth, "--json")
        if done.code:
            return done.refusal or f"exit {done.code}", False
        got = done.json
        words = f"ATE {got['ate_rmse']:.1e}, matched {got['matched']}"
        words += f", {got['rpe_rot_deg_rmse']:.1e} deg"
        exact = got["ate_rmse"] < 1e-6 and got["rpe_rot_deg_rmse"] < 1e-3
        return words, exact and got["matched"] == count

    return check
