"""`flow3r`: the command line; thin, imports lazily."""

from flow3r_ros.cli.main import main

__all__ = ["main"]
