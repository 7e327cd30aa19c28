"""The tests; what they and the processes that they start find in their environment."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""numpy and torch read it when they are imported; tests run beside each other, and with a thread
a core each they wait for one another, spinning"""
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
"""the tests start some two hundred processes, which would all compile this package anew"""
