"""The heartbeat for Nav2's lifecycle manager; runs where the messages of `bond` are installed."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from flow3r_ros.ros.messages import class_of
from test.ros.harness import Client, NodeProcess, fresh_domain

pytestmark = pytest.mark.skipif(
    not find_spec("bond"), reason="bond comes with Nav2 from apt, it is not on PyPI"
)
DEACTIVATE = 4


def test_the_node_beats_while_it_is_active_and_says_when_it_is_not() -> None:
    domain = fresh_domain()
    with NodeProcess(domain), Client(domain) as client:
        client.listen("/bond", types={"/bond": "bond/msg/Status"})
        beats = client.wait_for("/bond", 3)
        assert {(beat.id, beat.active) for beat in beats} == {("flow3r", True)}
        assert len({beat.instance_id for beat in beats}) == 1
        request = class_of("lifecycle_msgs/srv/ChangeState").Request()
        request.transition.id = DEACTIVATE
        assert client.call("lifecycle_msgs/srv/ChangeState", "~/change_state", request).success
        client.wait(lambda: not client.received["/bond"][-1].active, 5.0, "the end of the bond")
