"""What loading a model does not import."""

from __future__ import annotations

import subprocess
import sys


def test_a_model_loads_without_the_compiler_of_torch() -> None:
    """Its import takes two seconds of CPU and 70 MB, for every node."""
    code = (
        "import sys\n"
        "from flow3r_ros.config import Config\n"
        "from flow3r_ros.network.runner import open_predictor\n"
        "open_predictor(Config().model)\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
