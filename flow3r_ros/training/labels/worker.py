"""The labelling worker: one pure function on bytes, so that any process on any machine may run it,
also twice."""

from __future__ import annotations

import os
import threading
from functools import lru_cache
from multiprocessing import connection, parent_process

import cv2

from flow3r_ros.training.labels.cache import LabelSettings, LabelUnit, Pair, encode_labels
from flow3r_ros.training.labels.clip_store import decode_clip
from flow3r_ros.training.labels.teacher import FlowTeacher
from flow3r_ros.training.labels.teachers import open_teacher

Job = tuple[LabelUnit, bytes]
"""what to label, and the bytes of the clip's shard"""
IN_FLIGHT_PER_WORKER = 2
"""jobs handed out ahead per worker: keeps workers busy and memory bounded"""


def end_with_parent() -> None:
    """Make this worker process end at once when the one that started it does, however that died:
    without it, workers of a killed parent wait for jobs forever."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def label_unit(clip: bytes, pairs: tuple[Pair, ...], settings_json: str) -> bytes:
    """The worker: label some pairs of a clip (both as shard bytes). Pure, so that any process
    anywhere may run it again."""
    cv2.setNumThreads(1)
    settings = LabelSettings.model_validate_json(settings_json)
    teacher = _teacher(settings_json)
    frames = decode_clip(clip, "clip")
    return encode_labels(pairs, [teacher.flow(frames, i, j) for i, j in pairs], settings)


@lru_cache(maxsize=2)
def _teacher(settings_json: str) -> FlowTeacher:
    settings = LabelSettings.model_validate_json(settings_json)
    return open_teacher(settings.teacher, **settings.teacher_options)
