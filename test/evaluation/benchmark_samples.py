"""Tiny samples of every benchmark, written in exactly its on-disk format: a slanted plane, so that
exact answers exist."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from flow3r_ros.bench.plane_scene import PlaneScene
from flow3r_ros.datasets.rgbd import CAMERAS
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.types import Camera, Float64, Frame
from flow3r_ros.wire.tum import write_tum

BONN, TUM_FREIBURG3 = CAMERAS["bonn"], CAMERAS["freiburg3"]
SMALL = Camera(160, 120, 130.0, 130.0, 79.5, 59.5)
KINECT = Camera(160, 120, 525.0 / 4, 525.0 / 4, 80.0, 60.0)
INFRARED = Camera(160, 120, 585.0 / 4, 585.0 / 4, 80.0, 60.0)
WORLD = np.array(
    [[0.0, 0.0, 1.0, 3.0], [-1.0, 0.0, 0.0, -2.0], [0.0, -1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]]
)
"""every sample's world is not that of its first camera"""
GL = np.diag([1.0, -1.0, -1.0, 1.0])


def image(path: Path, scene: PlaneScene, index: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 97] if path.suffix == ".jpg" else []
    cv2.imwrite(str(path), scene.picture(scene.pose(index))[..., ::-1], quality)


def metres(scene: PlaneScene, index: int) -> np.ndarray:
    return scene.points(scene.pose(index))[..., 2]


def depth_png(path: Path, scene: PlaneScene, index: int, units: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.rint(metres(scene, index) * units).astype(np.uint16))


def quaternion(pose: Float64) -> Float64:
    return np.asarray(Rotation.from_matrix(pose[:3, :3]).as_quat())


def write_rgbd(root: Path, name: str, camera: Camera, count: int = 6) -> Callable[[Frame], float]:
    scene, folder = PlaneScene(camera), root / name
    start = 1311868164.25
    lists: dict[str, list[str]] = {"rgb": [], "depth": [], "truth": []}
    for i in range(count):
        stamp = f"{start + i / 30:.6f}"
        image(folder / "rgb" / f"{stamp}.png", scene, i)
        depth_png(folder / "depth" / f"{stamp}.png", scene, i, 5000.0)
        pose = WORLD @ scene.pose(i)
        lists["rgb"].append(f"{stamp} rgb/{stamp}.png")
        lists["depth"].append(f"{stamp} depth/{stamp}.png")
        lists["truth"].append(
            f"{start + i / 30 + 0.004:.4f} "
            + " ".join(f"{v:.6f}" for v in (*pose[:3, 3], *quaternion(pose)))
        )
    for file, key in (("rgb.txt", "rgb"), ("depth.txt", "depth"), ("groundtruth.txt", "truth")):
        (folder / file).write_text("# comment\n" + "\n".join(lists[key]) + "\n")
    return lambda frame: round((frame.stamp_ns / 1e9 - start) * 30)


def tum_dynamics(root: Path) -> Callable[[Frame], float]:
    return write_rgbd(root, "rgbd_dataset_freiburg3_walking_xyz", TUM_FREIBURG3, count=10)


def bonn(root: Path) -> Callable[[Frame], float]:
    return write_rgbd(
        root / "rgbd_bonn_dataset",
        "rgbd_bonn_balloon2",
        Camera(640, 480, BONN.fx, BONN.fy, BONN.cx, BONN.cy),
    )


def sintel(root: Path) -> Callable[[Frame], float]:
    scene = PlaneScene(SMALL)
    for i in range(5):
        name, tag = f"frame_{i + 1:04d}", np.float32(202021.25).tobytes()
        image(root / "training" / "final" / "alley_2" / f"{name}.png", scene, i)
        pose = np.linalg.inv(WORLD @ scene.pose(i))
        cam = root / "training" / "camdata_left" / "alley_2" / f"{name}.cam"
        cam.parent.mkdir(parents=True, exist_ok=True)
        cam.write_bytes(
            tag + SMALL.matrix.astype("<f8").tobytes() + pose[:3].astype("<f8").tobytes()
        )
        dpt = root / "training" / "depth" / "alley_2" / f"{name}.dpt"
        dpt.parent.mkdir(parents=True, exist_ok=True)
        dpt.write_bytes(
            tag + np.array([160, 120], "<i4").tobytes() + metres(scene, i).astype("<f4").tobytes()
        )
    return lambda frame: round(frame.stamp_ns * 24 / 1e9)


def scannet(root: Path) -> Callable[[Frame], float]:
    scene, folder = PlaneScene(SMALL), root / "scene0707_00"
    (folder / "intrinsic").mkdir(parents=True)
    (folder / "pose").mkdir()
    full = np.eye(4)
    full[:3, :3] = SMALL.matrix
    for name in ("intrinsic_color", "intrinsic_depth"):
        np.savetxt(folder / "intrinsic" / f"{name}.txt", full)
    for i in range(14):
        image(folder / "color" / f"{i}.jpg", scene, i)
        depth_png(folder / "depth" / f"{i}.png", scene, i, 1000.0)
        np.savetxt(
            folder / "pose" / f"{i}.txt",
            np.full((4, 4), -np.inf) if i == 5 else WORLD @ scene.pose(i),
        )
    return lambda frame: round(frame.stamp_ns * 30 / 1e9)


def seven_scenes(root: Path) -> Callable[[Frame], float]:
    scene, infrared, folder = PlaneScene(KINECT), PlaneScene(INFRARED), root / "chess" / "seq-03"
    for i in range(4):
        image(folder / f"frame-{i:06d}.color.png", scene, i)
        depth_png(folder / f"frame-{i:06d}.depth.png", infrared, i, 1000.0)
        np.savetxt(folder / f"frame-{i:06d}.pose.txt", WORLD @ scene.pose(i), fmt="%.9e")
    (root / "chess" / "TestSplit.txt").write_text("sequence3\n")
    return lambda frame: round(frame.stamp_ns * 30 / 1e9)


def neural_rgbd(root: Path) -> Callable[[Frame], float]:
    scene, folder = PlaneScene(SMALL), root / "kitchen"
    poses = []
    for i in range(5):
        image(folder / "images" / f"img{i}.png", scene, i)
        depth_png(folder / "depth" / f"depth{i}.png", scene, i, 1000.0)
        poses.append(np.full((4, 4), np.nan) if i == 4 else WORLD @ scene.pose(i) @ GL)
    np.savetxt(folder / "poses.txt", np.concatenate(poses))
    (folder / "focal.txt").write_text(f"{SMALL.fx}\n")
    return lambda frame: round(frame.stamp_ns * 30 / 1e9)


def co3d(root: Path) -> Callable[[Frame], float]:
    scene = PlaneScene(SMALL)
    flip = np.diag([-1.0, -1.0, 1.0])
    entries = []
    for i in range(5):
        name, sequence = f"frame{i + 1:06d}", "110_13051_23361"
        image(root / "apple" / sequence / "images" / f"{name}.jpg", scene, i)
        depth = root / "apple" / sequence / "depths" / f"{name}.jpg.geometric.png"
        depth.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(depth), (metres(scene, i) / 0.5).astype(np.float16).view(np.uint16))
        seen = np.linalg.inv(WORLD @ scene.pose(i))
        entries.append(
            {
                "sequence_name": sequence,
                "frame_number": i,
                "image": {"path": f"apple/{sequence}/images/{name}.jpg", "size": [120, 160]},
                "depth": {
                    "path": f"apple/{sequence}/depths/{depth.name}",
                    "scale_adjustment": 0.5,
                    "mask_path": None,
                },
                "viewpoint": {
                    "R": (flip @ seen[:3, :3]).T.tolist(),
                    "T": (flip @ seen[:3, 3]).tolist(),
                    "focal_length": [SMALL.fx / 60, SMALL.fy / 60],
                    "principal_point": [(80 - 0.5 - SMALL.cx) / 60, (60 - 0.5 - SMALL.cy) / 60],
                    "intrinsics_format": "ndc_isotropic",
                },
            }
        )
    with gzip.open(root / "apple" / "frame_annotations.jgz", "wt") as file:
        json.dump(entries, file)
    return lambda frame: round(frame.stamp_ns * 30 / 1e9)


def kitti(root: Path) -> Callable[[Frame], float]:
    scene, folder = PlaneScene(SMALL), root / "dataset" / "sequences" / "00"
    offset = np.eye(4)
    offset[0, 3] = 0.06
    rows = []
    for i in range(5):
        image(folder / "image_2" / f"{i:06d}.png", scene, i)
        rows.append((WORLD @ scene.pose(i) @ np.linalg.inv(offset))[:3].ravel())
    (root / "dataset" / "poses").mkdir()
    np.savetxt(root / "dataset" / "poses" / "00.txt", rows)
    np.savetxt(folder / "times.txt", np.arange(5) * 0.1, fmt="%e")
    left, right = (
        np.hstack([SMALL.matrix, np.zeros((3, 1))]),
        SMALL.matrix @ np.linalg.inv(offset)[:3],
    )
    lines = [
        f"P{n}: " + " ".join(f"{value:.12e}" for value in matrix.ravel())
        for n, matrix in ((0, left), (2, right))
    ]
    (folder / "calib.txt").write_text("\n".join(lines) + "\n")
    return lambda frame: round(frame.stamp_ns / 1e8)


def euroc(root: Path) -> Callable[[Frame], float]:
    scene, mav = PlaneScene(SMALL), root / "V1_01_easy" / "mav0"
    body_from_camera = np.array(
        [
            [0.0, -1.0, 0.0, -0.02],
            [1.0, 0.0, 0.0, -0.06],
            [0.0, 0.0, 1.0, 0.01],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
    start, images, states = (
        1403715273262142976,
        ["#timestamp [ns],filename"],
        ["#timestamp, p_x, p_y, p_z, q_w, q_x, q_y, q_z"],
    )
    for i in range(6):
        stamp = start + i * 50_000_000
        image(mav / "cam0" / "data" / f"{stamp}.png", scene, i)
        images.append(f"{stamp},{stamp}.png")
    for k in range(0, 50):
        body = WORLD @ scene.pose(k / 10) @ np.linalg.inv(body_from_camera)
        x, y, z, w = quaternion(body)
        states.append(
            ",".join(
                [
                    str(start + k * 5_000_000),
                    *(f"{v:.9f}" for v in (*body[:3, 3], w, x, y, z)),
                    "0",
                    "0",
                    "0",
                ]
            )
        )
    (mav / "cam0" / "data.csv").write_text("\r\n".join(images) + "\r\n")
    (mav / "state_groundtruth_estimate0").mkdir()
    (mav / "state_groundtruth_estimate0" / "data.csv").write_text("\n".join(states) + "\n")
    (mav / "cam0" / "sensor.yaml").write_text(
        "sensor_type: camera\nT_BS:\n  cols: 4\n  rows: 4\n  data: ["
        + ", ".join(str(value) for value in body_from_camera.ravel())
        + "]\nrate_hz: 20\nresolution: [160, 120]\ncamera_model: pinhole\nintrinsics: "
        f"[{SMALL.fx}, {SMALL.fy}, {SMALL.cx}, {SMALL.cy}]\n"
        "distortion_model: radial-tangential\ndistortion_coefficients: [0.0, 0.0, 0.0, 0.0]\n"
    )
    return lambda frame: round((frame.stamp_ns - start) / 5e7)


def epic(root: Path) -> Callable[[Frame], float]:
    scene, folder = PlaneScene(SMALL), root / "P01" / "rgb_frames" / "P01_01"
    images = {}
    for i in range(14):
        name = f"frame_{i + 1:010d}.jpg"
        image(folder / name, scene, i)
        seen = np.linalg.inv(WORLD @ scene.pose(i))
        x, y, z, w = quaternion(seen)
        if i != 2:
            images[name] = [w, x, y, z, *seen[:3, 3]]
    camera = {
        "id": 1,
        "model": "OPENCV",
        "width": 160,
        "height": 120,
        "params": [SMALL.fx, SMALL.fy, 80.0, 60.0, 0.0, 0.0, 0.0, 0.0],
    }
    (root / "P01_01.json").write_text(
        json.dumps({"camera": camera, "images": images, "points": []})
    )
    return lambda frame: round(frame.stamp_ns * 59.94 / 1e9)


def kinetics(root: Path) -> Callable[[Frame], float]:
    scene, folder = PlaneScene(SMALL), root / "juggling" / "abc123"
    for i in range(5):
        image(folder / f"{i:05d}.jpg", scene, i)
    poses = np.stack([WORLD @ scene.pose(i) for i in range(5)])
    write_tum(folder.with_name("abc123.tum"), Trajectory(np.arange(5) * 40_000_000, poses))
    return lambda frame: round(frame.stamp_ns / 4e7)


SAMPLES: dict[str, tuple[Callable[[Path], Callable[[Frame], float]], Camera]] = {
    "kinetics": (kinetics, SMALL),
    "epic": (epic, SMALL),
    "sintel": (sintel, SMALL),
    "bonn": (bonn, Camera(640, 480, BONN.fx, BONN.fy, BONN.cx, BONN.cy)),
    "tum_dynamics": (tum_dynamics, TUM_FREIBURG3),
    "kitti": (kitti, SMALL),
    "euroc": (euroc, SMALL),
    "scannet": (scannet, SMALL),
    "co3d": (co3d, SMALL),
    "7scenes": (seven_scenes, KINECT),
    "nrgbd": (neural_rgbd, SMALL),
}
