"""Every input of `../shared/cases` with its right value, as the README there has it."""

from __future__ import annotations

from dataclasses import dataclass

from test.cases.checks import (
    ATE_M,
    GRAY_ATE_M,
    ROUGH_ATE_M,
    Check,
    depth_error,
    edge,
    either,
    focal,
    frames,
    refused,
    same_trajectory,
)
from test.cases.workshop import BASE_NS, STEP_NS

EUROC_NS, TUM_NS = 1403636579_763555584, 1305031102_000000000
KITTI_NS = 1317042145_064389445


@dataclass(frozen=True)
class Case:
    """One input: which maker makes it (empty: it lies in `small/`), its file, the right value in
    words, and the check. `here`: named relatively from its own folder."""

    maker: str
    name: str
    right: str
    check: Check
    here: bool = False


def _moves(count: int = 12, **about: object) -> Check:
    return frames(count, ate=(BASE_NS, STEP_NS, ATE_M), **about)  # type: ignore[arg-type]


def _gray() -> Check:
    return frames(12, ate=(BASE_NS, STEP_NS, GRAY_ATE_M))


def _folder(count: int, start_ns: int, step_ns: int = STEP_NS) -> Check:
    near = (start_ns, step_ns, ROUGH_ATE_M)
    return frames(count, first_ns=start_ns, steps_ms=round(step_ns / 1e6), ate=near)


def _video(steps_ms: list[int] | int = 100) -> Check:
    return frames(12, steps_ms=steps_ms, wide=True)


def _folder_of_grey() -> Check:
    return frames(12, ate=(0, 33_333_333, ROUGH_ATE_M))


def _small(count: int, first_ns: int, step_ms: int) -> Check:
    return frames(count, first_ns=first_ns, steps_ms=step_ms)


KNOWN = (r"known:? ",)
ROS1 = ("rosbags-convert",)
REINDEX = ("rosbag reindex",)

CASES = (
    Case("images", "rgb8", "12 frames, ATE < 5 mm", _moves()),
    Case("images", "mono8", "12 frames, ATE < 30 mm", _gray()),
    Case("images", "mono16_full", "as mono8", _gray()),
    Case("images", "mono16_10bit", "as mono8, or says nearly black", either(_gray(), "black")),
    Case("images", "infra_16uc1", "as mono8, or the known encodings", either(_gray(), *KNOWN)),
    Case("images", "nv12", "as rgb8, or the known encodings", either(_moves(), *KNOWN)),
    Case("images", "rgb16", "as rgb8, or the known encodings", either(_moves(), *KNOWN)),
    Case("images", "rgb_padded", "12 frames, ATE .0031", _moves()),
    Case("images", "step_zero", "refused, saying the step", refused("step")),
    Case("images", "step_in_pixels", "refused, saying the step", refused("step")),
    Case("images", "no_header", "12 frames by receive time", _moves(first_ns=BASE_NS)),
    Case("images", "empty_between", "9 frames, 3 dropped", frames(9, 3)),
    Case("images", "slash", "odom -> uav/camera", edge("odom", "uav/camera")),
    Case(
        "images",
        "one_stamp",
        "12 frames by receive time, or exit 1",
        either(_moves(first_ns=BASE_NS), "stamp"),
    ),
    Case(
        "images",
        "before_clock",
        "9 frames, the first at 1700000000.3",
        frames(9, 3, first_ns=BASE_NS + 3 * STEP_NS, ate=(BASE_NS, STEP_NS, ATE_M)),
    ),
    *(
        Case("jpegs", f"jpeg_{name}", "12 of 12 frames", _moves())
        for name in ("no_end", "padded", "no_tables", "rgb")
    ),
    Case("camera_infos", "fisheye_4", "fx 118.6", focal(118.6, 0.01)),
    Case("camera_infos", "fisheye_5", "fx 118.6", focal(118.6, 0.01)),
    Case("camera_infos", "plumb_bob_5", "fx 245.5", focal(245.5, 0.01)),
    Case("camera_infos", "plumb_bob_8", "fx 245.5", focal(245.5, 0.01)),
    Case("camera_infos", "rectified", "fx 260 of P", focal(260.0, 0.01)),
    Case("camera_infos", "only_depth_info", "fx near 260, not 190", focal(260.0, 0.12)),
    *(
        Case("camera_infos", name, "fx near 260", focal(260.0, 0.12))
        for name in ("k_zero_p_given", "size_zero", "binning_twice", "roi_already_cut")
    ),
    Case("bags", "ros1_in_mcap", "10 frames, or how to convert", either(_moves(10), *ROS1)),
    Case("bags", "drive.bag.active", "10 frames, or reindex", either(_moves(10), *REINDEX)),
    Case("bags", "cut.bag.active", "6 frames, or reindex", either(_moves(6), *REINDEX)),
    Case("bags", "cut.bag", "6 frames, or reindex", either(_moves(6), *REINDEX)),
    Case("bags", "packed_and_unpacked", "10 frames once, readable trajectory", _moves(10)),
    *(
        Case("bags", name, "10 frames", _moves(10))
        for name in ("whole.bag", "idl", "no_index", "lz4_chunks", "packed")
    ),
    Case("depth", "depth_plain", "abs_rel .077", depth_error(0.077, 0.01)),
    *(
        Case(
            "depth",
            f"depth_{name}",
            "abs_rel .077, or refused in words",
            either(depth_error(0.077, 0.01), "depth"),
        )
        for name in ("padded", "mono16", "packed")
    ),
    *(
        Case(
            "tf",
            name,
            "odom -> base_link, or a refusal naming /tf",
            either(edge("odom", "base_link", "config"), "/tf"),
        )
        for name in ("on_tf", "static_late", "on_static")
    ),
    Case("folders", "orb_slam", "first 1403636579.763555584", _folder(12, EUROC_NS)),
    Case("folders", "str_seconds", "in order, 75 ms apart", _folder(12, TUM_NS, 75_000_000)),
    Case("folders", "kitti_raw", "12 frames by its dates", _folder(12, KITTI_NS)),
    Case("folders", "euroc", "12 frames by its stamps", _folder(12, EUROC_NS)),
    Case("folders", "tum", "12 frames by its stamps", _folder(12, TUM_NS)),
    Case("pictures", "phone", "12 frames, upright", frames(12, wide=True)),
    Case("pictures", "alpha", "12 frames", frames(12)),
    Case("pictures", "torn_thumbnail", "6 frames, 6 corrupt", frames(6, 6)),
    Case("pictures", "png16_10bit", "12 frames that move", _folder_of_grey()),
    Case("videos", "trimmed.mp4", "12 frames, none damaged", _video()),
    Case("videos", "stamped/2024-05-01T10:22:33.mp4", "12 frames", _video(), here=True),
    Case(
        "videos", "vfr.mp4", "12 frames, 0.6 s after the 6th", _video([100] * 5 + [600] + [100] * 5)
    ),
    *(
        Case("videos", name, "12 frames, upright", _video())
        for name in ("turned_90.mov", "turned_180.mov", "turned_270.mov", "tenbit.MOV", "cam.avi")
    ),
    *(
        Case("videos", name, "12 frames", _video())
        for name in ("grey.mkv", "offset.ts", "moving.gif")
    ),
    Case("videos", "stream.h264", "12 frames", frames(12, wide=True)),
    *(
        Case("trajectories", name, "ATE 0, matched 40", same_trajectory("truth.tum"))
        for name in (
            "nanoseconds.txt",
            "nanoseconds_float.txt",
            "vins.csv",
            "euroc_data.csv",
            "with_header.txt",
        )
    ),
    Case("", "nanoseconds.txt", "ATE 0, matched 40", same_trajectory("arc.tum")),
    Case("", "vins.csv", "ATE 0, matched 40", same_trajectory("arc.tum")),
    Case("", "ros1.mcap", "5 frames, or how to convert", either(frames(5), *ROS1)),
    Case("", "drive.bag.active", "5 frames, or reindex", either(frames(5), *REINDEX)),
    Case("", "orb_slam", "5 frames from 1403636579.763555584", _small(5, EUROC_NS, 100)),
    Case("", "str_seconds", "in order, 75 ms apart", _small(12, TUM_NS, 75)),
    Case("", "trimmed.mp4", "12 frames, none damaged", frames(12, steps_ms=100)),
    Case("", "2024-05-01T10:22:33.mp4", "12 frames", frames(12, steps_ms=100), here=True),
)
ELSEWHERE = {
    "blind": "what a blind camera does belongs to the tracking tests",
    "live": "needs a running node (test/ros)",
}
"""makers that are not tried here, and why"""
