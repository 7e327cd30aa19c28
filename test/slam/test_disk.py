"""Maps on disk: what is saved is what is loaded, and whatever is wrong is named."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flow3r_ros.config import SlamSettings
from flow3r_ros.errors import InputError, OutputError
from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.geometry.lie import (
    invert,
    rigid,
    rigid_part,
    rotation_angle,
    se3_exp,
    sim3_parts,
    so3_exp,
)
from flow3r_ros.odometry.finished import Finished
from flow3r_ros.odometry.input import view_of
from flow3r_ros.odometry.relocalisation import describe
from flow3r_ros.slam.disk import describe_map, load_map, save_map
from flow3r_ros.slam.export import cloud, write_colmap
from flow3r_ros.slam.mapper import Mapper
from flow3r_ros.slam.merge import merged, refined
from flow3r_ros.slam.saved import SavedMap
from flow3r_ros.types import Frame
from test.geometry.views import CAMERA
from test.slam.factory import ROUND, SECOND_NS, finished, way

pytest.importorskip("gtsam")


def recorded(first: int, last: int, unit: float = 1.0) -> SavedMap:
    """A map of a stretch of the way."""
    with Mapper(SlamSettings(enabled=True)) as mapper:
        for index in range(first, last):
            mapper.take(finished(index, way(index), unit=unit))
        return mapper.snapshot(1.0, False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_map(tmp_path_factory.mktemp("maps") / "one", recorded(0, ROUND // 2 + 2))


def test_what_is_saved_is_what_is_loaded(folder: Path, tmp_path: Path) -> None:
    saved = load_map(folder)
    again = load_map(save_map(tmp_path / "again", saved))
    assert [each.key for each in again.keyframes] == list(range(ROUND // 2 + 2))
    for here, there in zip(saved.keyframes, again.keyframes, strict=True):
        assert here.picture == there.picture
        assert np.array_equal(here.descriptors, there.descriptors)
        assert np.array_equal(here.inverse, there.inverse, equal_nan=True)
        assert np.allclose(saved.poses[here.key], way(here.key))
        assert here.camera == there.camera
    told = describe_map(folder)
    assert told["keyframes"] == ROUND // 2 + 2
    assert told["unit"] == "odometry units"
    with pytest.raises(OutputError, match="exists already"):
        save_map(folder, saved)


def _index(**changes: object) -> Callable[[Path], None]:
    def change(map_: Path) -> None:
        path = map_ / "map.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def _cut(name: str) -> Callable[[Path], None]:
    def change(map_: Path) -> None:
        data = (map_ / name).read_bytes()
        (map_ / name).write_bytes(data[: len(data) // 2])

    return change


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_index(version=99), "version 99"),
        (_index(format="something"), "not of a flow3r map"),
        (_index(keyframes=-1), "keyframes"),
        (_index(keyframes=7), "is damaged"),
        (_cut("keyframes.safetensors"), "differs from what map.json says"),
        (_cut("pictures/000003.jpg"), "pictures differ"),
        (lambda map_: (map_ / "pictures" / "000002.jpg").unlink(), "cannot be read"),
        (lambda map_: (map_ / "map.json").unlink(), "is no map"),
    ],
)
def test_what_is_wrong_is_named(
    folder: Path, tmp_path: Path, harm: Callable[[Path], None], words: str
) -> None:
    map_ = save_map(tmp_path / "map", load_map(folder))
    harm(map_)
    with pytest.raises(InputError, match=words):
        load_map(map_)


def test_a_run_is_found_in_a_saved_map_from_its_first_keyframe(folder: Path) -> None:
    settings = SlamSettings(enabled=True, map=str(folder), mode="localisation")
    start, elsewhere = ROUND - 3, rigid(so3_exp([0.0, 1.2, 0.0]), [20.0, 0.0, -5.0])
    with Mapper(settings) as mapper:
        before = mapper.snapshot(1.0, False)
        for index in range(start, start + 3):
            # the run's own world lies elsewhere, is turned, and has a unit of 1.25 m
            told = elsewhere @ invert(way(start)) @ way(index)
            told[:3, 3] = (told[:3, 3] - elsewhere[:3, 3]) / 1.25 + elsewhere[:3, 3]
            mapper.take(finished(index, told, unit=1.25))
        state = mapper.finish()
        assert state.closed >= 1
        for index, located in state.located.items():
            assert located.in_saved
            assert np.linalg.norm(located.S_map_cam[:3, 3] - way(index)[:3, 3]) < 0.15
        on = elsewhere @ invert(way(start)) @ way(start + 3)  # since the newest keyframe
        on[:3, 3] = (on[:3, 3] - elsewhere[:3, 3]) / 1.25 + elsewhere[:3, 3]
        correction = state.map_to_odom(1.0, np.zeros(3), on[:3, 3])
        assert correction is not None
        assert np.linalg.norm((correction @ on)[:3, 3] - way(start + 3)[:3, 3]) < 0.03
        after = mapper.snapshot(1.0, False)
        assert [each.key for each in after.keyframes] == [each.key for each in before.keyframes]


def with_wrong_depth(told: Finished) -> Finished:
    """The same keyframe where what is near is far, and what is far near."""
    depth = told.reference.depth
    wrong = (np.median(depth.inverse) / depth.inverse) ** 2
    bent = DepthMap(depth.inverse * wrong, depth.sigma * wrong)
    return replace(told, reference=replace(told.reference, depth=bent))


def test_a_run_that_the_map_contradicts_is_not_in_it_until_it_is_found_again(folder: Path) -> None:
    settings = SlamSettings(enabled=True, map=str(folder), mode="localisation")
    nowhere = np.zeros(3)
    drift = rigid(so3_exp([0.0, 0.1, 0.0]), nowhere)
    with Mapper(settings) as mapper:
        assert mapper.finish().map_to_odom(1.0, nowhere, nowhere) is None
        mapper.take(finished(21, way(21), 100))
        found = mapper.finish()
        assert found.located[100].in_saved
        assert found.map_to_odom(1.0, nowhere, way(21)[:3, 3]) is not None
        mapper.take(finished(22, way(22), 101))
        mapper.take(with_wrong_depth(finished(20, way(20) @ drift, 102)))
        doubted = mapper.finish()
        assert doubted.refused["directions disagree"] >= 1
        assert doubted.located[101].in_saved
        assert not doubted.located[102].in_saved
        assert doubted.map_to_odom(1.0, nowhere, way(22)[:3, 3]) is None
        assert doubted.changed_ns == 102 * SECOND_NS
        told = way(20) @ drift @ invert(way(20)) @ way(21)
        mapper.take(finished(21, told, 103))
        again = mapper.finish()
    assert again.located[103].in_saved
    T = again.map_to_odom(1.0, nowhere, told[:3, 3])
    assert T is not None
    off = invert(way(21)) @ T @ told
    assert rotation_angle(off[:3, :3]) < 0.03
    assert np.linalg.norm(off[:3, 3]) < 0.1


def test_a_run_that_drifts_off_what_the_map_shows_is_found_anew(folder: Path) -> None:
    """Its depth is right, and the way it came by is not."""
    settings = SlamSettings(enabled=True, map=str(folder), mode="localisation")
    with Mapper(settings) as mapper:
        mapper.take(finished(21, way(21), 100))
        mapper.take(finished(22, way(22), 101))
        drifted = way(20) @ rigid(so3_exp([0.0, 0.25, 0.0]), [0.3, 0.0, 0.0])
        mapper.take(finished(20, drifted, 102))
        state = mapper.finish()
    assert state.refused["contradicts the map"] >= 1
    assert all(each.in_saved for each in state.located.values())
    off = invert(way(20)) @ rigid_part(state.located[102].S_map_cam)
    assert rotation_angle(off[:3, :3]) < 0.03
    assert np.linalg.norm(off[:3, 3]) < 0.1


def test_a_young_run_whose_unit_is_not_settled_lies_where_each_keyframe_shows(folder: Path) -> None:
    settings = SlamSettings(enabled=True, map=str(folder), mode="localisation")
    told, unit = np.eye(4), 1.0
    with Mapper(settings) as mapper:
        for index in range(19, 23):
            mapper.take(finished(index, told, unit=unit))
            unit *= 1.4
            step = invert(way(index)) @ way(index + 1)
            told = told @ rigid(step[:3, :3], step[:3, 3] / unit)
        state = mapper.finish()
    assert not state.refused
    for index, located in state.located.items():
        assert located.in_saved
        assert np.linalg.norm(located.S_map_cam[:3, 3] - way(index)[:3, 3]) < 0.12


def test_a_metric_map_stays_metric_in_a_run_that_knows_no_metres(folder: Path) -> None:
    metric = save_map(folder.parent / "metric", replace(load_map(folder), metric=True))
    start = ROUND - 3
    with Mapper(SlamSettings(enabled=True, map=str(metric))) as mapper:
        for index in range(start, start + 3):
            told = invert(way(start)) @ way(index)
            told[:3, 3] /= 1.25
            mapper.take(finished(index, told, unit=1.25))
        state, saved = mapper.finish(), mapper.snapshot(7.0, False)
    assert saved.metric
    for index, located in state.located.items():
        assert located.in_saved
        assert np.linalg.norm(7.0 * located.in_run_units(7.0)[:3, 3] - way(index)[:3, 3]) < 0.15
    kept = {each.frame_id: saved.poses[each.key] for each in saved.keyframes}
    assert np.linalg.norm(kept[start + 2][:3, 3] - way(start + 2)[:3, 3]) < 0.15


def cropped(told: Finished) -> Finished:
    """The same keyframe taken by a camera of another size and centre."""
    left, top = 48, 24
    view, depth = told.reference.view, told.reference.depth
    rgb = np.ascontiguousarray(view.frame.rgb[top:, left:])
    height, width = rgb.shape[:2]
    camera = replace(CAMERA, width=width, height=height, cx=CAMERA.cx - left, cy=CAMERA.cy - top)
    assert depth.inverse.shape == (CAMERA.height, CAMERA.width)
    seen = view_of(Frame(view.id, view.frame.stamp_ns, rgb, camera), width)
    kept = DepthMap(depth.inverse[top:, left:], depth.sigma[top:, left:])
    moving = told.reference.moving[top:, left:]
    reference = replace(told.reference, view=seen, depth=kept, moving=moving)
    return replace(told, reference=reference, features=describe(seen))


def test_a_run_of_another_camera_is_found_where_it_is(folder: Path) -> None:
    settings = SlamSettings(enabled=True, map=str(folder), mode="localisation")
    start = ROUND - 3
    with Mapper(settings) as mapper:
        for index in range(start, start + 3):
            mapper.take(cropped(finished(index, invert(way(start)) @ way(index))))
        state = mapper.finish()
    assert state.closed >= 1
    for index, located in state.located.items():
        assert located.in_saved
        assert np.linalg.norm(located.S_map_cam[:3, 3] - way(index)[:3, 3]) < 0.15


def test_a_full_disk_leaves_no_map(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = load_map(folder)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(OutputError, match="No space left"):
        save_map(tmp_path / "map", saved)
    assert not list(tmp_path.glob("map*"))


KILLED = """
import os, signal, sys
from pathlib import Path
import safetensors.numpy
from flow3r_ros.slam.disk import load_map, save_map

saved = load_map(Path(sys.argv[1]))

def killed(arrays, path):
    path.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

safetensors.numpy.save_file = killed
save_map(Path(sys.argv[2]), saved)
"""


def test_kill_9_while_a_map_is_saved_leaves_none_and_the_next_one_is_whole(
    folder: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", KILLED, str(folder), str(tmp_path / "map")]
    assert subprocess.run(command, check=False, timeout=280).returncode == -signal.SIGKILL
    (left,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert left.name.startswith(".map.")
    with pytest.raises(InputError, match=r"map\.json is missing"):
        load_map(left)
    again = save_map(tmp_path / "map", load_map(folder))
    assert len(load_map(again).keyframes) == ROUND // 2 + 2
    assert [path.name for path in tmp_path.iterdir()] == ["map"]


def test_elsewhere_a_run_is_not_found(folder: Path) -> None:
    with Mapper(SlamSettings(enabled=True, map=str(folder))) as mapper:
        mapper.take(finished(3, np.eye(4), mirrored=True))
        state = mapper.finish()
    assert state.closed == 0
    assert not any(each.in_saved for each in state.located.values())


def test_a_map_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="is no map"):
        Mapper(SlamSettings(enabled=True, map="/nonexistent"))


def test_two_maps_with_common_places_become_one(folder: Path) -> None:
    one, other = load_map(folder), recorded(ROUND - 6, ROUND, unit=1.25)
    both = merged(one, other)
    assert len(both.keyframes) == len(one.keyframes) + 6
    assert len(set(both.islands.values())) == 1
    for row, index in enumerate(range(ROUND - 6, ROUND)):
        placed = both.poses[both.keyframes[len(one.keyframes) + row].key]
        assert np.linalg.norm(placed[:3, 3] - way(index)[:3, 3]) < 0.3
    with pytest.raises(InputError, match="places in common"):
        merged(recorded(0, 3), recorded(ROUND // 2, ROUND // 2 + 2))


def test_a_map_leaves_for_other_programs(folder: Path, tmp_path: Path) -> None:
    saved = load_map(folder)
    points, rgb, confidence = cloud(saved)
    assert len(points) == len(rgb) == len(confidence) > 1000
    back = points[:, 2] + 0.1 * points[:, 0] - 6.0
    floor = points[:, 1] + 0.1 * points[:, 2] - 1.6
    assert np.mean((np.abs(back) < 0.1) | (np.abs(floor) < 0.1)) > 0.5
    write_colmap(tmp_path, saved)
    lines = (tmp_path / "images.txt").read_text().splitlines()[::2]
    assert len(lines) == len(saved.keyframes) == len(list((tmp_path / "images").iterdir()))
    pycolmap = pytest.importorskip("pycolmap")
    model = pycolmap.Reconstruction(str(tmp_path))
    centre = model.image(3).projection_center()
    assert np.allclose(centre, way(2)[:3, 3], atol=1e-6)


def test_a_map_is_refined() -> None:
    pytest.importorskip("pycolmap")
    saved = recorded(0, 5)
    rng = np.random.default_rng(0)
    wrong = {
        key: T @ se3_exp(rng.normal(0, [0.02] * 3 + [0.01] * 3)) for key, T in saved.poses.items()
    }
    better, result = refined(saved.moved(wrong, {2: 1.3}), lambda _: None)
    assert result.after_px < result.before_px
    step = invert(better.poses[0]) @ better.poses[4]
    truth = invert(way(0)) @ way(4)
    direction = step[:3, 3] / np.linalg.norm(step[:3, 3])
    assert direction @ truth[:3, 3] / np.linalg.norm(truth[:3, 3]) > 0.995
    units = [sim3_parts(each)[0] for each in better.poses.values()]
    assert np.allclose(units, np.linalg.norm(step[:3, 3]) / np.linalg.norm(truth[:3, 3]), rtol=0.05)
