"""Pictures that unpack to gigabytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from test.hostile.workshop import started

PICTURES = """
import resource, struct, sys, zlib
from pathlib import Path
import cv2, numpy as np
from flow3r_ros.bags.types import make
from flow3r_ros.bags.writer import BagWriter
from flow3r_ros.config import NodeSettings
from flow3r_ros.datasets.sources import open_source
from flow3r_ros.errors import FrameError
from flow3r_ros.ros.framing import Framing
from flow3r_ros.wire.transforms import header_of

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

side = 32000
packer = zlib.compressobj(9)
rows = b"".join(packer.compress(bytes(side // 8 + 1)) for _ in range(side)) + packer.flush()
shape = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
bomb = b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", shape) + chunk(b"IDAT", rows)
bomb += chunk(b"IEND", b"")
assert len(bomb) < 1_000_000
good = cv2.imencode(".png", np.full((48, 64, 3), 80, np.uint8))[1].tobytes()
folder, way = Path(sys.argv[1]), sys.argv[2]
(folder / "pictures").mkdir()

def compressed(index, ns):
    data = np.frombuffer(bomb if index == 2 else good, np.uint8)
    header = header_of(make, ns, "cam")
    return make("sensor_msgs/msg/CompressedImage", header=header, format="png", data=data)

start = 1_700_000_000_000_000_000
if way == "folder":
    for index in range(5):
        (folder / "pictures" / f"{index}.png").write_bytes(bomb if index == 2 else good)
if way == "bag":
    with BagWriter(folder / "bag") as writer:
        writer.add("/image/compressed", "sensor_msgs/msg/CompressedImage")
        for index in range(5):
            ns = start + index * 10**8
            writer.write("/image/compressed", ns, compressed(index, ns))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
reasons, frames = [], 0
if way == "live":
    said = lambda key, text: None
    framing = Framing(NodeSettings(), "/image", lambda: False, said, said)
    for index in range(5):
        try:
            framing.frame(compressed(index, start + index * 10**8), index, index / 10, start)
        except FrameError as error:
            reasons += [error.reason] * (error.reason != "waiting_for_camera_info")
    frames = 5 - len(reasons)
else:
    with open_source(folder / ("pictures" if way == "folder" else "bag")) as source:
        frames = len(list(source))
        reasons = list(source.drops.elements())
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
print(frames, *reasons, grown)
"""


@pytest.mark.parametrize("way", ["folder", "bag", "live"])
def test_a_picture_of_32000_by_32000_is_one_drop_and_costs_nothing(
    tmp_path: Path, way: str
) -> None:
    process, line = started(tmp_path, PICTURES, tmp_path, Path(way))
    process.communicate()
    frames, reason, grown = line.split()
    assert (int(frames), reason) == (4, "too_large")
    assert int(grown) < 400, "megabytes"
