"""`python -m flow3r_ros.cli`."""

import sys

from flow3r_ros.cli.programs import flow3r

if __name__ == "__main__":
    sys.exit(flow3r())
