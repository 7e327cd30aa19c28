"""From a video to a trajectory and a coloured cloud.

    .venv/bin/python examples/video_to_cloud.py [INPUT] [OUTPUT]

INPUT is a video, a folder of pictures, or a rosbag; without it the bundled clip is taken.
"""

# %%
import sys
from pathlib import Path

import numpy as np

import flow3r_ros

source = sys.argv[1] if len(sys.argv) > 1 else "demo/clip"
output = Path(sys.argv[2] if len(sys.argv) > 2 else "video_to_cloud")

# %% [markdown]
# `run` does what `flow3r run` does and returns `summary.json`. The folder appears when everything
# is complete; open its `report.html` first.

# %%
summary = flow3r_ros.run(source, output, max_frames=30)
print(f"{summary['frames_estimated']} of {summary['frames_in']} frames estimated")
print(f"lengths are in {summary['unit']}: the scale is {summary['scale_state']}")

# %% [markdown]
# The trajectory: one line for each frame with a pose, camera-to-world of the optical frame (x
# right, y down, z forward).

# %%
trajectory = np.loadtxt(output / "trajectory.tum", ndmin=2)
centres = trajectory[:, 1:4]
way = np.linalg.norm(np.diff(centres, axis=0), axis=1).sum()
print(f"{len(centres)} poses, way of {way:.3g} {summary['unit']}")

# %% [markdown]
# The cloud: binary PLY; its rows as a numpy array.

# %%
vertex = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3), ("confidence", "<f4")])
header, _, body = (output / "cloud.ply").read_bytes().partition(b"end_header\n")
cloud = np.frombuffer(body, vertex)
sure = cloud[cloud["confidence"] > np.median(cloud["confidence"])]
print(f"{len(cloud)} points, {len(sure)} in the more confident half")
print(f"report: {output / 'report.html'}")
