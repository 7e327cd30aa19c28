"""The heartbeat for Nav2's lifecycle manager; runs where the messages of `bond` are installed."""

from __future__ import annotations

import signal
from importlib.util import find_spec

import pytest

from flow3r_ros.ros.messages import class_of
from test.ros.harness import Client
from test.ros.node_process import NodeProcess, fresh_domain

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


@pytest.mark.skipif(not find_spec("bondpy"), reason="bondpy comes with bond_core from apt")
def test_the_other_side_notices_a_node_that_is_killed() -> None:
    """What Nav2's lifecycle manager does, by the Python of the same package."""
    from bondpy.bondpy import Bond

    domain, told = fresh_domain(), []
    with NodeProcess(domain) as process, Client(domain) as client:
        manager = Bond(
            client.node, "/bond", "flow3r",
            on_formed=lambda: told.append("formed"), on_broken=lambda: told.append("broken"),
        )  # fmt: skip
        manager.set_connect_timeout(60.0)
        manager.start()
        ours = manager.instance_id
        client.listen("/bond", types={"/bond": "bond/msg/Status"})
        client.wait(
            lambda: (
                len([beat for beat in client.received["/bond"] if beat.instance_id != ours]) > 2
            ),
            20.0,
            "beats: bondpy counts the time from the second one on",
        )
        assert told == ["formed"]
        process.process.send_signal(signal.SIGKILL)
        client.wait(lambda: told == ["formed", "broken"], 20.0, "the notice of its death")
        manager.shutdown()
