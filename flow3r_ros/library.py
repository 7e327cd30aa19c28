"""What a Python program asks of the house beside its types: a loaded model, and a whole run.

Both bring rooms together that do not know each other: the network, and the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from flow3r_ros.config import Config, ModelSettings, load_config
from flow3r_ros.offline.resume import OnInterrupt
from flow3r_ros.offline.run import run_to_folder
from flow3r_ros.types import Predictor


def load_model(
    name: str | Path = "flow3r_nano",
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
) -> Predictor:
    """A network behind the Predictor protocol, as `Engine` takes it; imports torch.

    Args:
        name: model folder: a name under models/ or a path.
        device: auto, cpu, cuda or cuda:N.
        dtype: arithmetic of the transformer.

    Raises ModelError naming the file or device and the cure.
    """
    from flow3r_ros.network.runner import open_predictor

    return open_predictor(ModelSettings(name=str(name), device=device, dtype=dtype))


def run(
    source: str | Path,
    output: str | Path,
    config: Config | str | Path | Mapping[str, Any] | None = None,
    camera: str | Path | None = None,
    topic: str | None = None,
    every: int = 1,
    max_frames: int | None = None,
    quiet: bool = True,
    save_confidence: bool = False,
    on_interrupt: OnInterrupt = "discard",
    resume: bool | None = None,
    episode: int | None = None,
) -> dict[str, Any]:
    """What `flow3r run` does: a video, image folder, bag or LeRobot episode into a folder with
    trajectory, depth, cloud, summary and report; imports torch.

    Args:
        source: video file, image folder, clip folder, rosbag or LeRobot dataset.
        output: folder to write; it appears complete or not at all.
        config: settings, a YAML file of them, or single ones: `{"engine.window": 6}`.
        camera: camera.json; None takes the one beside the source, else estimates the intrinsics.
        topic: image topic of a bag, or camera of a LeRobot dataset, that has several.
        every: use every k-th frame.
        max_frames: stop after this many frames.
        quiet: show no progress.
        save_confidence: also write confidence/.
        on_interrupt: keep what Ctrl-C leaves, or discard it.
        resume: go on with an interrupted run (True), replace it (False), or refuse (None).
        episode: which one of a LeRobot dataset that has several.

    Returns the content of `summary.json`. Raises Flow3rError subclasses only.
    """
    from flow3r_ros.network.runner import open_predictor

    if isinstance(config, Mapping):
        config = load_config(overrides=dict(config))
    elif not isinstance(config, Config):
        config = load_config(None if config is None else Path(config))
    return run_to_folder(
        Path(source),
        Path(output),
        config,
        open_predictor,
        camera_file=None if camera is None else Path(camera),
        topic=topic,
        every=every,
        max_frames=max_frames,
        quiet=quiet,
        save_confidence=save_confidence,
        on_interrupt=on_interrupt,
        resume=resume,
        episode=episode,
    )
