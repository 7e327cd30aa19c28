"""What `../shared/cases/live.py` publishes, one field wrong, through the node with the bundled
model: right is what a bag of the same images gives."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import pytest

from flow3r_ros.evaluation.trajectory import evaluate_trajectory
from flow3r_ros.geometry.frames import odom_from_optical
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.ros.messages import make
from flow3r_ros.types import Camera
from flow3r_ros.wire.camera_info import info_from_camera
from flow3r_ros.wire.transforms import header_of, matrix_of_pose
from test.cases.checks import ATE_M, ROUGH_ATE_M
from test.conftest import shared_path
from test.ros.harness import Client
from test.ros.node_process import ROOT, NodeProcess, fresh_domain

FRAMES = 8
TOPIC = "/camera/image_raw"
FOCAL = 260.0
NODE = ("-m", "flow3r_ros.cli.main", "node")


@dataclass(frozen=True)
class Case:
    """The field that is wrong, and what is right: where the camera comes from, the focal length of
    the depth image at the size of the picture (within `share`), its frame id, the error of the
    way."""

    frame_id: str = "camera_optical_frame"
    answered: str = "camera_optical_frame"
    stamped: bool = True
    calibrated: bool = True
    distortion: tuple[float, ...] = (0.0,) * 5
    compressed: bool = False
    camera: str = "info_k"
    share: float = 0.01
    ate: float = ATE_M


CASES = {
    "as it should be": Case(),
    "no_header": Case(frame_id="", stamped=False),
    "k_zero": Case(calibrated=False, camera="unknown", share=0.25, ate=ROUGH_ATE_M),
    "plumb_bob_8": Case(distortion=(0.01, -0.02, 0.0, 0.0, 0.001, 0.0, 0.0, 0.0), share=0.05),
    "slash": Case(frame_id="/uav/camera", answered="uav/camera"),
    "compressed": Case(compressed=True),
}


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module that draws the room."""
    monkeypatch.syspath_prepend(str(shared_path("cases")))
    yield importlib.import_module("scene")
    sys.modules.pop("scene", None)


class Driver:
    """A camera driver with one fault."""

    def __init__(self, client: Client, case: Case, pictures: list[np.ndarray]) -> None:
        self.client, self.case, self.pictures = client, case, pictures
        packed = ("/compressed", "CompressedImage") if case.compressed else ("", "Image")
        self.images = client.publisher(f"sensor_msgs/msg/{packed[1]}", TOPIC + packed[0])
        self.infos = client.publisher("sensor_msgs/msg/CameraInfo", "/camera/camera_info")
        height, width = pictures[0].shape[:2]
        centre = (width - 1) / 2, (height - 1) / 2
        self.camera = Camera(width, height, FOCAL, FOCAL, *centre, "plumb_bob", case.distortion)

    def info(self, header: Any) -> Any:
        plain = replace(self.camera, distortion_model="none", distortion=())
        message = info_from_camera(make, header, plain)
        message.distortion_model = "plumb_bob"
        message.d = list(self.case.distortion)
        if not self.case.calibrated:
            message.k, message.p = np.zeros(9), np.zeros(12)
        return message

    def send(self, index: int) -> None:
        """The picture of that place, its CameraInfo first."""
        ns = self.client.next_stamp() if self.case.stamped else 0
        header, rgb = header_of(make, ns, self.case.frame_id), self.pictures[index]
        self.infos.publish(self.info(header))
        height, width = rgb.shape[:2]
        data = np.ascontiguousarray(rgb).reshape(-1)
        if self.case.compressed:
            packed = cv2.imencode(".png", rgb[..., ::-1])[1].reshape(-1)
            message = make(
                "sensor_msgs/msg/CompressedImage", header=header, format="png", data=packed
            )
        else:
            message = make(
                "sensor_msgs/msg/Image",
                header=header,
                height=height,
                width=width,
                encoding="rgb8",
                is_bigendian=0,
                step=3 * width,
                data=data,
            )
        self.images.publish(message)

    def heard(self) -> bool:
        return bool(self.images.get_subscription_count() and self.infos.get_subscription_count())


@pytest.mark.parametrize("name", CASES)
def test_live_case(name: str, scene: Any) -> None:
    if not (ROOT / "models" / "flow3r_nano" / "model.safetensors").exists():
        pytest.skip("the bundled model is not there yet")
    case = CASES[name]
    pictures, truth, _ = scene.clip(FRAMES)
    options = [f"image:={TOPIC}", "camera_info:=/camera/camera_info"]
    if case.compressed:
        options.append("node.image_transport:=compressed")
    arguments = [word for option in options for word in (_flag(option), option)]
    domain = fresh_domain()
    with NodeProcess(domain, *arguments, program=NODE) as process, Client(domain) as client:
        client.listen("~/odometry", "~/depth/camera_info", "/tf", "/diagnostics")
        driver = Driver(client, case, pictures)
        client.wait(driver.heard, 30.0, "the node's subscriptions")
        for _ in range(200):  # the first picture until it is answered: infos are waited for
            driver.send(0)
            if client.within(0.5, lambda: client.count("~/odometry")):
                break
        settled(client)
        for index in range(1, FRAMES):
            before = client.count("~/odometry")
            for _ in range(3):  # a best-effort picture may be lost on the way
                driver.send(index)
                if client.within(15.0, lambda before=before: client.count("~/odometry") > before):
                    break
            assert client.count("~/odometry") > before, f"never: pose {index}"
        client.wait_for("/diagnostics", client.count("/diagnostics") + 2)
        odometry = client.received["~/odometry"][-FRAMES:]
        said = diagnosed(client)
        depth_info = client.received["~/depth/camera_info"][-1]
        edges = {
            (message.transforms[0].header.frame_id, message.transforms[0].child_frame_id)
            for message in client.received["/tf"]
        }
        assert "Traceback" not in process.output()
    assert case.camera in said["camera"], said["camera"]
    assert said["segment"] == "0"
    assert edges == {("odom", case.answered)}
    focal = depth_info.k[0] * driver.camera.width / depth_info.width
    assert focal == pytest.approx(FOCAL, rel=case.share)
    seconds = [message.header.stamp.sec for message in odometry]
    assert min(seconds) > 1_600_000_000, "never a pose of 1970"
    poses = np.stack([matrix_of_pose(message.pose.pose) for message in odometry])
    stamps = np.arange(FRAMES, dtype=np.int64) * 100_000_000
    way = Trajectory(stamps, poses, name)
    true = np.stack([odom_from_optical(pose) for pose in truth])
    found = evaluate_trajectory(way, Trajectory(stamps, true, "truth"))
    assert found["ate_rmse"] < case.ate, found


def diagnosed(client: Client, back: int = 1) -> dict[str, str]:
    """Keys and values of one of the last diagnostics."""
    entries = client.received["/diagnostics"][-back].status[0].values
    return {entry.key: entry.value for entry in entries}


def settled(client: Client) -> None:
    """Until every picture that was sent is accounted for, and none came meanwhile."""
    seen = client.count("/diagnostics")

    def quiet() -> bool:
        if client.count("/diagnostics") < seen + 3:
            return False
        now, before = diagnosed(client), diagnosed(client, 2)
        done = int(now["frames estimated"]) + int(now["frames dropped"])
        return now["frames received"] == before["frames received"] == str(done)

    client.wait(quiet, 20.0, "all pictures accounted for")


def _flag(option: str) -> str:
    """A remapping of a topic, or a parameter."""
    return "-p" if option.startswith("node.") else "-r"
