"""Settings of the data side of a training run: the `data:` part of the YAML files in
`config/train/`."""

from __future__ import annotations

from pydantic import Field

from flow3r_ros.config import Settings
from flow3r_ros.datasets.labelled_bag import BagTopics
from flow3r_ros.training.labels.cache import LabelSettings


class DataSettings(Settings):
    """What samples are made of. Scene shards bring their own frames, grids and pairs."""

    frames: tuple[int, int] = Field(
        (4, 4), description="least and most frames per sample, 2..24; one number per step"
    )
    grids: tuple[tuple[int, int], ...] = Field(
        ((168, 126), (182, 98), (196, 98)),
        description="(w, h) the network sees, multiples of its patch of 14; one per step",
    )
    weights: tuple[float, ...] = Field(
        (), description="how often samples come from each --data path; empty = equally often"
    )
    augment: bool = Field(True, description="mirror, reverse and crop recordings at random")
    evidence: bool = Field(
        True, description="make evidence for the network; off for the official architecture"
    )
    held_out_share: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="share of each recording's clips that is kept for validation only",
    )
    held_out_recordings: tuple[str, ...] = Field(
        (), description="recordings kept for validation whole, by name"
    )
    labels: LabelSettings = Field(
        default_factory=LabelSettings, description="how recordings without labels are labelled"
    )
    bag_topics: BagTopics | None = Field(
        None, description="set for bags that carry depth and poses: they are then labelled data"
    )
