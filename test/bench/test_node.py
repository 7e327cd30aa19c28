"""The node suite on a second of camera: both nodes are timed, every image is accounted for, memory
is watched."""

from __future__ import annotations

from flow3r_ros.bench import node as bench


def test_both_nodes_are_timed_in_turn(monkeypatch) -> None:
    monkeypatch.setattr(bench, "OVERHEAD_FRAMES", 40)
    for timing in bench._overheads():
        assert 0 < timing.p10 <= timing.median <= timing.p90


def test_a_stream_accounts_for_every_image() -> None:
    (lost, sent, received, estimated, dropped), curve = bench._stream(2.0, with_profile=True)
    assert sent == 60
    assert lost == sent - received
    assert received == estimated + dropped
    assert received > sent / 2
    assert min(curve) > 10.0
