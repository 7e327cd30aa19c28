"""`flow3r replay` on several bags: each to its own folder, past a bad one, which is named at the
end."""

from __future__ import annotations

from pathlib import Path

import pytest

from flow3r_ros.errors import BagError, ModelError, OutputError
from flow3r_ros.network.catalog import find_model
from flow3r_ros.network.runner import open_predictor
from flow3r_ros.offline.replay import replay_bags
from test.bags.factory import standard_topics, write_bag
from test.offline.factory import small_config


@pytest.fixture(autouse=True)
def bundled_weights() -> None:
    try:
        folder = find_model("flow3r_nano")
    except ModelError as error:
        pytest.skip(str(error))
    if folder.weights is None:
        pytest.skip("models/flow3r_nano has no weights")


def test_several_bags_go_on_past_a_bad_one(tmp_path: Path) -> None:
    good = [
        write_bag(tmp_path / name / "bag", standard_topics(2, size=(168, 126)))
        for name in ("a", "b")
    ]
    bad = tmp_path / "broken"
    bad.mkdir()
    (bad / "broken_0.mcap").write_bytes(b"\x89MCAP0\r\n")
    output = tmp_path / "out"
    summaries, failures = replay_bags(
        [good[0], bad, good[1]], output, small_config(), open_predictor, quiet=True
    )
    assert list(summaries) == [str(output / "bag"), str(output / "bag_2")]
    assert [summary["frames_estimated"] for summary in summaries.values()] == [2, 2]
    assert list(failures) == [str(output / "broken")]
    assert "holds no images" in failures[str(output / "broken")]
    assert sorted(path.name for path in output.iterdir()) == ["bag", "bag_2"]
    with pytest.raises(OutputError, match="exists already"):
        replay_bags([good[0], bad], output, small_config(), open_predictor, quiet=True)
    with pytest.raises(BagError):
        replay_bags([bad], tmp_path / "single", small_config(), open_predictor, quiet=True)


def test_the_bundled_model_replays_to_the_same_bytes(tmp_path: Path) -> None:
    from test.offline.test_replay import payloads

    bag = write_bag(tmp_path / "bag", standard_topics(4, size=(168, 126)))
    for name in ("one", "two"):
        replay_bags([bag], tmp_path / name, small_config(), open_predictor, quiet=True)
    one, two = payloads(tmp_path / "one"), payloads(tmp_path / "two")
    assert one == two
    assert len(one["/flow3r/odometry"]) == 4
