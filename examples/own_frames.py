"""Frames of your own: numpy pictures from any camera loop, estimates as they come.

    .venv/bin/python examples/own_frames.py [INPUT]

`my_camera` stands for whatever brings your pictures; here it plays a recording.
"""

# %%
import sys
from collections.abc import Iterator

import numpy as np

import flow3r_ros
from flow3r_ros.types import UInt8

source = sys.argv[1] if len(sys.argv) > 1 else "demo/clip"


def my_camera() -> Iterator[tuple[int, UInt8]]:
    """Stamp in nanoseconds and RGB picture `[H, W, 3]`, uint8. OpenCV gives BGR: turn it first
    (`rgb = bgr[..., ::-1]`)."""
    with flow3r_ros.open_source(source, max_frames=24) as frames:
        for frame in frames:
            yield frame.stamp_ns, frame.rgb


# %% [markdown]
# The intrinsics of your camera, in pixels. Leave `camera` out (None) where you do not know them:
# they are then estimated from the first frames, which come out a little later.

# %%
camera = flow3r_ros.Camera(width=640, height=480, fx=440.4, fy=437.2, cx=321.0, cy=237.7)

# %% [markdown]
# An engine takes frames in order and gives estimates: usually one for each frame. `with` ends its
# thread.

# %%
model = flow3r_ros.load_model("flow3r_nano", device="cpu")
places = []
with flow3r_ros.Engine(model) as engine:
    for index, (stamp_ns, rgb) in enumerate(my_camera()):
        for estimate in engine.step(flow3r_ros.Frame(index, stamp_ns, rgb, camera)):
            state = estimate.tracking_state
            if not state.has_pose:
                print(f"frame {estimate.frame_id}: {state.value}, {estimate.reason}")
                continue
            places.append(estimate.T_odom_cam[:3, 3])
            if estimate.frame_id % 10 == 0:
                x, y, z = places[-1]
                depth = np.nanmedian(estimate.depth)
                print(
                    f"frame {estimate.frame_id}: {state.value}, at {x:.3f} {y:.3f} {z:.3f}, "
                    f"median depth {depth:.2f}"
                )
    last = engine.finish()
    points, colours, confidence = engine.map.points() if engine.map else ((), (), ())

# %%
print(f"{len(places)} poses, {len(points)} points in the map, {len(last)} estimates at the end")
print(f"dropped: {dict(engine.drops) or 'none'}; scale: {engine.scale.state.value}")
