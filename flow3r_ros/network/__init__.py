"""The Flow3r transformer (torch): configuration, model, weights on disk, and the runner that the
rest of the house sees."""

from flow3r_ros.network.checkpoint import load_model
from flow3r_ros.network.config import Flow3rConfig
from flow3r_ros.network.model import Flow3r

__all__ = ["Flow3r", "Flow3rConfig", "load_model"]
