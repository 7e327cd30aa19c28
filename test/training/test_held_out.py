"""What is held out of a recording: its last frames, enough for a sample, never a frame that is also
trained on."""

from __future__ import annotations

import pytest

from flow3r_ros.training.held_out import Stretch, hold_out, stretches_of


def frames_of(stretches: list[Stretch]) -> list[tuple[str, int]]:
    return [
        (stretch.clip, frame)
        for stretch in stretches
        for frame in range(stretch.start, stretch.stop)
    ]


@pytest.mark.parametrize(
    ("clips", "held"),
    [
        ({"a": 12, "b": 12, "c": 12, "d": 12, "e": 12}, [("e", 0, 12)]),
        ({"a": 12}, [("a", 8, 12)]),  # one clip only: its end
        ({"a": 12, "b": 6}, [("b", 2, 6)]),
        (
            {"a": 12, "b": 2, "c": 3},
            [("a", 8, 12), ("b", 0, 2), ("c", 0, 3)],
        ),  # the last clips make no sample by themselves
    ],
)
def test_the_last_share_is_held_out_and_long_enough_for_a_sample(
    clips: dict[str, int], held: list[tuple[str, int, int]]
) -> None:
    train, kept = hold_out(clips, 0.2, 4)
    assert [(stretch.clip, stretch.start, stretch.stop) for stretch in kept] == held
    assert frames_of(train) + frames_of(kept) == frames_of(stretches_of(clips))
    assert all(stretch.clip_frames == clips[stretch.clip] for stretch in train + kept)


@pytest.mark.parametrize(
    ("clips", "share"),
    [({"a": 12, "b": 12}, 0.0), ({"a": 7}, 0.2), ({"a": 3, "b": 3, "c": 3}, 0.2), ({}, 0.2)],
)
def test_nothing_is_held_out_where_training_would_lose_its_only_sample(
    clips: dict[str, int], share: float
) -> None:
    assert hold_out(clips, share, 4) == (stretches_of(clips), [])
