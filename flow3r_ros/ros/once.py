"""Remarks that are worth saying once: a log line per key until the key is forgotten."""

from __future__ import annotations

import logging
import threading
from typing import Any


class Once:
    """Logs the first remark of each key as a warning; later ones of the same key are swallowed."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._lock = threading.Lock()
        self._said: set[str] = set()

    def __call__(self, key: str, text: str) -> None:
        """Warn with `text` unless `key` was said before."""
        if self._is_new(key):
            self._logger.warning(text)

    def inform(self, key: str, text: str) -> None:
        """The same for what is as it should be."""
        if self._is_new(key):
            self._logger.info(text)

    def _is_new(self, key: str) -> bool:
        with self._lock:
            if key in self._said:
                return False
            self._said.add(key)
            return True

    def forget(self, key: str | None = None) -> None:
        """Let a key (or every key) be said again."""
        with self._lock:
            if key is None:
                self._said.clear()
            else:
                self._said.discard(key)


NEW_SEGMENT = "a new segment begins: %s"
"""what the library logs, and the node says for every segment"""


class ToRosLog(logging.Handler):
    """Python log records of the library as ROS log lines, each kind of line once; segments are left
    to the node, which tells every one."""

    def __init__(self, say: Once) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Say the record unless one of the same wording was said before."""
        if record.msg == NEW_SEGMENT:
            return
        self._say(f"{record.name}:{record.msg}", record.getMessage())
