"""The Predictor of a real (tiny) network: cache, wanted frames, flow, determinism, memory."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from flow3r_ros.config import ModelSettings
from flow3r_ros.errors import ModelError
from flow3r_ros.geometry.flow import flow_from_ndc
from flow3r_ros.network.preprocess import resize
from flow3r_ros.network.runner import Runner, open_predictor
from test.network.factories import COLUMNS, ROWS, frame, tiny_folder, tiny_model, window


@pytest.fixture
def make_runner(tmp_path: Path):
    def make(dtype: str = "float32", **options: object) -> Runner:
        folder = tiny_folder(tmp_path / "tiny", **options)
        return open_predictor(ModelSettings(name=str(folder.path), device="cpu", dtype=dtype))

    return make


def plain_forward(runner: Runner, ids: list[int], **options: object) -> dict[str, np.ndarray]:
    stack = np.stack([resize(frame(id_).rgb, (COLUMNS, ROWS), "area") for id_ in ids])
    tensor = torch.from_numpy(stack).permute(0, 3, 1, 2)[None].float() / 255
    with torch.inference_mode():
        out = tiny_model(**options)(tensor, torch.tensor([[[0, 2]]]))
    return {key: value[0].numpy() for key, value in out.items()}


def test_cached_tokens_and_wanted_frames_give_what_the_plain_forward_gives(make_runner) -> None:
    runner = make_runner()
    runner.predict(window([0, 1, 2], [2]))
    out = runner.predict(window([1, 2, 3], [3, 1], pairs=((1, 3),)))
    full = plain_forward(runner, [1, 2, 3])
    assert out.frame_ids == (3, 1)
    np.testing.assert_allclose(out.local_points, full["local_points"][[2, 0]], atol=1e-5)
    np.testing.assert_allclose(out.poses, full["camera_poses"][[2, 0]], atol=1e-5)
    np.testing.assert_allclose(
        out.confidence, 1 / (1 + np.exp(-full["conf"][[2, 0], ..., 0])), atol=1e-5
    )
    np.testing.assert_allclose(out.flow[(1, 3)], flow_from_ndc(full["flow"][0]), atol=1e-3)


def test_only_new_frames_are_encoded(make_runner) -> None:
    runner = make_runner()
    encoded = []
    runner.model.encoder.register_forward_hook(lambda *_: encoded.append(1))
    runner.predict(window([0, 1, 2, 3], [3]))
    runner.predict(window([1, 2, 3, 4], [4]))
    assert len(encoded) == 5
    runner.reset()
    runner.predict(window([1, 2, 3, 4], [4]))
    assert len(encoded) == 9


def test_the_cache_is_bounded(make_runner) -> None:
    runner = make_runner()
    runner._cached_frames = 3
    for id_ in range(10):
        runner.prepare(frame(id_))
    assert len(runner._tokens) == 3


def test_preparing_from_other_threads_changes_no_byte(make_runner) -> None:
    runner = make_runner()
    plain = runner.predict(window([0, 1, 2, 3], [3]))
    runner.reset()
    threads = [
        threading.Thread(target=runner.prepare, args=(frame(id_),)) for id_ in (3, 0, 1, 2, 3, 1)
    ]
    for thread in threads:
        thread.start()
    concurrent = runner.predict(window([0, 1, 2, 3], [3]))
    for thread in threads:
        thread.join()
    assert concurrent.local_points.tobytes() == plain.local_points.tobytes()
    assert concurrent.poses.tobytes() == plain.poses.tobytes()


def test_same_input_same_bytes(make_runner) -> None:
    runs = []
    for _ in range(2):
        runner = make_runner(dtype="bfloat16", evidence=True)
        out = runner.predict(window([0, 1, 2], [1, 2], pairs=((1, 2),), with_evidence=2.0))
        runs.append(
            out.local_points.tobytes()
            + out.confidence.tobytes()
            + out.poses.tobytes()
            + out.flow[(1, 2)].tobytes()
        )
    assert runs[0] == runs[1]


def test_output_is_in_units_of_the_evidence(make_runner) -> None:
    runner = make_runner(evidence=True)
    assert runner.uses_evidence
    one = runner.predict(window([0, 1], [0, 1], with_evidence=1.0))
    three = runner.predict(window([0, 1], [0, 1], with_evidence=3.0))
    np.testing.assert_allclose(three.local_points, 3 * one.local_points, rtol=1e-6)
    np.testing.assert_allclose(three.poses[:, :3, 3], 3 * one.poses[:, :3, 3], rtol=1e-6)
    np.testing.assert_allclose(three.poses[:, :3, :3], one.poses[:, :3, :3])
    without = runner.predict(window([0, 1], [0, 1]))
    assert not np.allclose(without.local_points, one.local_points, atol=1e-3)


def test_memory_back_off_first_drops_frames_then_shrinks_images(
    make_runner, caplog: pytest.LogCaptureFixture
) -> None:
    runner = make_runner(evidence=True)
    limit = 2 * 6

    def too_much(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if inputs[0].shape[0] * inputs[0].shape[1] > 0 and inputs[0].shape[1] > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    runner.model.decoder[1].register_forward_pre_hook(too_much)
    limit = 2 * (12 + 5)
    with caplog.at_level(logging.WARNING):
        out = runner.predict(window([0, 1, 2, 3], [2, 3], with_evidence=1.0))
    assert runner._smaller.frames == 2
    assert runner._smaller.resolution == 1.0
    assert out.local_points.shape == (2, ROWS, COLUMNS, 3)
    said = len(caplog.records)
    assert any("out of memory" in record.message for record in caplog.records)
    runner.predict(window([1, 2, 3, 4], [3, 4], with_evidence=1.0))
    assert len(caplog.records) == said, "the back-off is remembered and said once"


def test_memory_back_off_keeps_the_promised_grid(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny")
    runner = open_predictor(ModelSettings(name=str(folder.path), device="cpu", dtype="float32"))
    runner._input.resolution = (224, 168)
    promised = runner.input_size(640, 480)

    def too_much(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if inputs[0].shape[-1] > 150:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"
            )

    runner.model.encoder.register_forward_pre_hook(too_much)
    out = runner.predict(window([0, 1], [0, 1], pairs=((0, 1),)))
    assert runner._smaller.resolution < 1
    assert out.local_points.shape == (2, promised[1], promised[0], 3)
    assert out.flow[(0, 1)].shape == (promised[1], promised[0], 2)


def test_nothing_smaller_left_is_an_error_not_an_end(make_runner) -> None:
    runner = make_runner()

    def never(*_: object) -> None:
        raise MemoryError

    runner.model.decoder[0].register_forward_pre_hook(never)
    with pytest.raises(ModelError, match="out of memory even at"):
        runner.predict(window([0, 1], [0, 1]))


def test_other_runtime_errors_are_not_taken_for_memory(make_runner) -> None:
    runner = make_runner()

    def broken(*_: object) -> None:
        raise RuntimeError("shapes do not match")

    runner.model.decoder[0].register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="shapes"):
        runner.predict(window([0, 1], [0, 1]))


def test_a_real_memory_limit_is_survived(tmp_path: Path) -> None:
    """The process may map only a little more than the loaded network: it must shrink, say so,
    answer or refuse, and go on afterwards."""
    folder = tiny_folder(tmp_path / "tiny")
    script = textwrap.dedent(f"""
        import resource, sys, logging
        logging.basicConfig(stream=sys.stderr)
        import torch
        torch.set_num_threads(1)
        from flow3r_ros.config import ModelSettings
        from flow3r_ros.errors import ModelError
        from flow3r_ros.network.runner import open_predictor
        from test.network.factories import window
        settings = ModelSettings(name={str(folder.path)!r}, device="cpu", dtype="float32")
        runner = open_predictor(settings)
        runner.predict(window([90, 91], [91]))
        runner._input.resolution = (840, 630)
        mapped = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + 50_000_000, resource.RLIM_INFINITY))
        try:
            runner.predict(window([0, 1, 2, 3], [3]))
        except ModelError as error:
            assert "out of memory" in str(error)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert runner._smaller.frames is not None or runner._smaller.resolution < 1
        out = runner.predict(window([0, 1, 2, 3], [3]))
        expected = (1, *runner.input_size(160, 120)[::-1], 3)
        assert out.local_points.shape == expected, out.local_points.shape
        print("survived")
    """)
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "survived" in done.stdout
    assert "out of memory on cpu" in done.stderr


def test_not_finite_answers_are_refused(make_runner) -> None:
    runner = make_runner()
    with torch.no_grad():
        runner.model.camera_head.fc_t.bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        runner.predict(window([0, 1], [1]))
    with torch.no_grad():
        runner.model.camera_head.fc_rot.bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        runner.predict(window([0, 1], [1]))


def test_frames_of_two_sizes_are_refused(make_runner) -> None:
    mixed = window([0, 1], [1])
    mixed = type(mixed)((frame(0), frame(1, width=200)), mixed.wanted)
    with pytest.raises(ModelError, match="differ in size"):
        make_runner().predict(mixed)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny", evidence=True)
    answers = []
    for device in ("cpu", "cuda"):
        runner = open_predictor(
            ModelSettings(name=str(folder.path), device=device, dtype="float32")
        )
        threading.Thread(target=runner.prepare, args=(frame(1),)).start()
        answers.append(
            runner.predict(window([0, 1, 2], [1, 2], pairs=((1, 2),), with_evidence=1.0))
        )
    np.testing.assert_allclose(
        answers[0].local_points, answers[1].local_points, rtol=1e-2, atol=1e-2
    )
    np.testing.assert_allclose(answers[0].poses, answers[1].poses, atol=1e-2)
