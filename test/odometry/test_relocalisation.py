"""Known places are recognised from other views, unknown ones are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flow3r_ros.geometry.lie import invert, rotation_angle
from flow3r_ros.odometry.relocalisation import Relocaliser, describe
from flow3r_ros.odometry.verification import recognised
from flow3r_ros.types import UInt8
from test.odometry.plane import BLACK, picture, reference_at, relative, seen_at, view


def remembering(*moments: int, capacity: int = 10) -> Relocaliser:
    relocaliser = Relocaliser(capacity)
    for moment in moments:
        relocaliser.remember(reference_at(moment), describe(seen_at(moment)))
    return relocaliser


def elsewhere() -> UInt8:
    """A picture of the same kind of texture that was never seen."""
    small = np.random.default_rng(5).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    return np.ascontiguousarray(np.kron(small, np.ones((4, 4, 1), np.uint8)))


def test_a_known_place_is_found_from_another_view() -> None:
    found = remembering(0, 20, 40).find(seen_at(10))
    assert found is not None
    assert recognised(found.judged, found.fit.inliers)
    moment = found.reference.view.id
    error = invert(relative(moment, 10)) @ found.fit.T
    assert np.linalg.norm(error[:3, 3]) < 0.05
    assert np.degrees(rotation_angle(error[:3, :3])) < 1.0
    assert found.speaking == int(np.count_nonzero(found.judged < 3.0))


def test_a_place_is_remembered_by_pixels_whatever_lens_they_were_seen_through() -> None:
    """The lens was taken for 4 % too short when the place was remembered."""
    relocaliser = Relocaliser(10)
    reference = reference_at(0)
    short = reference.points.rays * np.array([1 / 0.96, 1 / 0.96, 1.0])
    taken = replace(
        reference,
        view=reference.view.with_lens(0.96, 0.0),
        points=replace(reference.points, rays=short),
    )
    relocaliser.remember(taken, describe(seen_at(0)))
    found = relocaliser.find(seen_at(10))
    assert found is not None
    assert found.reference.view.lens.fx == pytest.approx(seen_at(10).lens.fx)
    np.testing.assert_allclose(found.reference.points.rays, reference.points.rays, rtol=1e-12)
    error = invert(relative(0, 10)) @ found.fit.T
    assert np.degrees(rotation_angle(error[:3, :3])) < 1.0


def test_upside_down_it_is_the_same_place_turned() -> None:
    turned = np.ascontiguousarray(picture(0)[::-1, ::-1])
    found = remembering(0, 20).find(view(turned, 99))
    assert found is not None
    assert recognised(found.judged, found.fit.inliers)
    assert np.degrees(rotation_angle(found.fit.T[:3, :3])) > 175.0


def test_an_unknown_place_and_an_empty_picture_are_not() -> None:
    relocaliser = remembering(0, 20)
    for rgb in (elsewhere(), BLACK):
        found = relocaliser.find(view(rgb, 99))
        assert found is None or not recognised(found.judged, found.fit.inliers)
    assert relocaliser.find(view(BLACK, 99)) is None


def test_nothing_remembered_nothing_found() -> None:
    assert Relocaliser(5).find(seen_at(0)) is None
    relocaliser = remembering(0)
    relocaliser.clear()
    assert relocaliser.find(seen_at(0)) is None


def test_the_oldest_places_go_first() -> None:
    relocaliser = remembering(0, 20, 40, capacity=2)
    found = relocaliser.find(seen_at(1))
    assert found is None or found.reference.view.id != 0


def test_features_lie_in_the_tracking_image() -> None:
    features = describe(seen_at(0))
    assert len(features.pixels) == len(features.descriptors) > 50
    assert (features.pixels >= 0).all()
    assert (features.pixels < [320, 240]).all()
    assert len(describe(view(BLACK)).pixels) == 0


def test_the_last_tracked_frame_is_a_place_until_the_next_one() -> None:
    relocaliser = remembering(0)
    for moment in (20, 40):
        relocaliser.remember_latest(reference_at(moment))
    found = relocaliser.find(seen_at(42))
    assert found is not None
    assert found.reference.view.id == 40
    assert found.reference.view.frame.rgb.size == 0
    found = relocaliser.find(seen_at(21))
    assert found is None or found.reference.view.id != 20
    relocaliser.clear()
    assert relocaliser.find(seen_at(42)) is None
