"""Device and arithmetic follow the machine, and a device that is not there is named."""

from __future__ import annotations

import pytest
import torch

from flow3r_ros.errors import ModelError
from flow3r_ros.network.device import choose_device, choose_dtype, usable_cores


def test_devices_and_arithmetic() -> None:
    assert choose_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="cuda:3"):
            choose_device("cuda:3")
    assert choose_dtype("float32", torch.device("cpu")) is torch.float32
    assert choose_dtype("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)
    assert usable_cores() >= 1
