"""A run that ends early loses nothing: after an interrupt, a broken batch or too little memory
there is a checkpoint of the last step."""

from __future__ import annotations

import os
import signal
import threading

import pytest
import torch

from flow3r_ros.errors import TrainingError
from flow3r_ros.training.checkpointing import checkpoint_steps
from flow3r_ros.training.loop import run
from flow3r_ros.training.memory import available_bytes, check_memory, enough_memory
from flow3r_ros.training.sample import collate
from flow3r_ros.training.stopping import Interrupt
from test.training.test_loop import Repeated, losses_of


class Signalling(Repeated):
    """Sends this process a signal while it makes the samples of step 5."""

    def __init__(self, samples, number: int) -> None:
        super().__init__(samples)
        self.number = number

    def batch(self, step: int, part: slice = slice(None)):
        if step == 5:
            os.kill(os.getpid(), self.number)
        return super().batch(step, part)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_saves_the_step_and_the_resumed_run_has_the_same_losses(
    tmp_path, samples, tiny_settings, number
):
    settings = tiny_settings(steps=8, checkpoint_every=100)
    handler = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        run(settings, Signalling(samples, number), tmp_path / "parts")
    assert signal.getsignal(number) == handler
    (done,) = checkpoint_steps(tmp_path / "parts" / "checkpoints")
    assert 0 < done < 8
    run(settings, Repeated(samples), tmp_path / "parts", resume=True)
    run(settings, Repeated(samples), tmp_path / "whole")
    assert losses_of(tmp_path / "parts") == losses_of(tmp_path / "whole")


def test_the_second_interrupt_strikes_at_once():
    with Interrupt(enabled=True) as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_in_another_thread_signals_stay_as_they_are():
    handler, seen = signal.getsignal(signal.SIGINT), []

    def enter() -> None:
        with Interrupt(enabled=True):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [handler]


def test_a_batch_that_does_not_fit_is_refused_before_the_first_step(
    tmp_path, samples, tiny_settings
):
    with pytest.raises(
        TrainingError, match=r"a step of 9000000 clips needs .* GB of memory .*lower clips_per_step"
    ):
        run(tiny_settings(clips_per_step=9_000_000), Repeated(samples), tmp_path / "run")


def test_what_a_step_needs_grows_with_its_clips(samples, tiny_settings):
    from flow3r_ros.training.export import initial_network

    network, one = initial_network(tiny_settings()), collate(samples[:1])
    check_memory(network, one, 1, available=50_000_000)
    with pytest.raises(TrainingError, match="100 clips"):
        check_memory(network, one, 100, available=50_000_000)
    assert available_bytes(torch.device("cpu")) > 0


def test_an_allocation_that_fails_is_a_typed_error():
    with pytest.raises(TrainingError, match="too little memory"), enough_memory():
        torch.empty(1 << 60, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="shape"), enough_memory():
        torch.ones(2, 3) @ torch.ones(2, 3)


def test_memory_that_ends_in_a_step_leaves_a_checkpoint_of_the_steps_before(
    tmp_path, samples, tiny_settings
):
    class Hungry(Repeated):
        def batch(self, step: int, part: slice = slice(None)):
            if step == 3:
                torch.empty(1 << 60, dtype=torch.uint8)
            return super().batch(step, part)

    with pytest.raises(TrainingError, match="too little memory"):
        run(tiny_settings(steps=8, checkpoint_every=100), Hungry(samples), tmp_path / "run")
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == [3]
