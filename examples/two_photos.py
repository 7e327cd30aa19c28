"""Two photos: their two-view geometry, and the factored flow that the network predicts, as
pictures.

    .venv/bin/python examples/two_photos.py [PHOTO_A PHOTO_B] [OUTPUT]

Without photos two frames of the bundled clip are taken.
"""

# %%
import sys
from pathlib import Path

import cv2
import numpy as np

import flow3r_ros
from flow3r_ros.geometry.camera import default_camera, scaled
from flow3r_ros.geometry.correspondence import Matcher
from flow3r_ros.geometry.evidence import evidence_from_images
from flow3r_ros.geometry.flow import geometric_flow, warp
from flow3r_ros.geometry.motion import rotation_angle
from flow3r_ros.geometry.two_view import hybrid_pose
from flow3r_ros.types import Float32, UInt8

photos = sys.argv[1:3] if len(sys.argv) > 2 else []
output = Path(sys.argv[-1] if len(sys.argv) in (2, 4) else "two_photos")
output.mkdir(parents=True, exist_ok=True)


def read(path: str) -> UInt8:
    """RGB `[H, W, 3]`."""
    bgr = cv2.imread(path)
    if bgr is None:
        sys.exit(f"{path}: is no picture that OpenCV reads")
    return np.ascontiguousarray(bgr[..., ::-1]).astype(np.uint8)


def flow_picture(flow: Float32, longest: float) -> UInt8:
    """Flow `[h, w, 2]` as BGR: hue is the direction, saturation the length up to `longest`."""
    length, angle = cv2.cartToPolar(flow[..., 0], flow[..., 1])
    share = np.clip(length / longest, 0, 1)
    hsv = np.dstack([angle * 90 / np.pi, 255 * share, np.full_like(share, 255)])
    return np.asarray(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2BGR), np.uint8)


# %% [markdown]
# Two pictures of one size and the pinhole of their camera. For photos nobody calibrated, 0.9 of the
# longer side is a usual focal length.

# %%
if photos:
    pictures = [read(path) for path in photos]
    camera = default_camera(pictures[0].shape[1], pictures[0].shape[0])
else:
    with flow3r_ros.open_source("demo/clip", max_frames=13) as clip:
        frames = list(clip)
    pictures = [frames[0].rgb, frames[12].rgb]
    camera = frames[0].camera or default_camera(*pictures[0].shape[1::-1])

# %% [markdown]
# **Two-view geometry**: dense flow both ways, then the relative pose that explains it. Without any
# depth the translation has length 1: two pictures do not know how large the world is.

# %%
matcher = Matcher(336)
grays = [matcher.prepare(picture) for picture in pictures]
correspondence = matcher.flow(grays[0], grays[1])
grid = grays[0].shape[::-1]
pose = hybrid_pose(correspondence, scaled(camera, *grid))
turn = float(np.degrees(rotation_angle(pose.T[None, :3, :3]))[0])
print(f"{pose.points} matches, {correspondence.share:.0%} of the first picture is in the second")
print(f"turned by {turn:.2f} degrees, moved along {np.round(pose.T[:3, 3], 2)}")
print(f"{pose.inliers:.0%} of the matches agree within 1.5 px, parallax {pose.parallax_px:.1f} px")

# %% [markdown]
# **Factored flow**: the network predicts where every pixel of the first picture goes from the
# geometry of the one and the camera of the other. The bundled model wants to be told what classical
# geometry knows (`evidence`).

# %%
model = flow3r_ros.load_model("flow3r_nano", device="cpu")
size = model.input_size(*pictures[0].shape[1::-1])
window = flow3r_ros.Window(
    frames=tuple(flow3r_ros.Frame(i, i, rgb, camera) for i, rgb in enumerate(pictures)),
    wanted=(0, 1),
    evidence=evidence_from_images(grays, camera, matcher, size) if model.uses_evidence else None,
    pairs=((0, 1),),
)
prediction = model.predict(window)
factored = prediction.flow[0, 1]

# %% [markdown]
# The same motion from depth and poses, for a rigid world: the two agree where nothing moves.

# %%
pinhole = scaled(camera, *size)
T_a_b = np.linalg.inv(prediction.poses[0]) @ prediction.poses[1]
depths = prediction.local_points[..., 2]
rigid, seen = geometric_flow(depths[0], T_a_b, pinhole, pinhole, depths[1])
apart = np.linalg.norm(factored - rigid, axis=-1)[seen]
print(
    f"factored and rigid flow differ by {np.median(apart):.2f} px (median, {seen.mean():.0%} seen)"
)

# %% [markdown]
# Pictures: the second photo warped onto the first, and both flows.

# %%
small = [cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in pictures]
longest = float(np.percentile(np.linalg.norm(factored, axis=-1), 98))
written = {
    "first.png": small[0][..., ::-1],
    "second.png": small[1][..., ::-1],
    "second_warped_onto_first.png": warp(small[1], factored)[..., ::-1],
    "factored_flow.png": flow_picture(factored, longest),
    "rigid_flow.png": flow_picture(np.where(seen[..., None], rigid, 0), longest),
}
for name, image in written.items():
    large = cv2.resize(np.ascontiguousarray(image), None, fx=3, fy=3)
    cv2.imwrite(str(output / name), large)
    print(output / name)
