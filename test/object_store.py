"""A real S3 server (moto's) in a process of its own, which tests can end and start again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import Request, urlopen

import pytest

SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=int(sys.argv[1]))
server.start()
sys.stdin.read()
"""


class ObjectStore:
    """A server on a port of its own; what it holds is lost when it ends."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it listens. Never two at a time."""
        assert self._process is None, "it runs already"
        command = [sys.executable, "-c", SERVER, str(self.port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self._process.poll() is None, "the server ended"
                time.sleep(0.05)
        raise AssertionError("the server does not listen")

    def kill(self) -> None:
        """End it the hard way: connections break."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def post(self, action: str, value: str) -> None:
        """Set the server up (moto's own door)."""
        as_text = {"Content-Type": "text/plain"}
        request = Request(f"{self.url}/moto-api/{action}", value.encode(), as_text)
        urlopen(request, timeout=60).close()

    def make_bucket(self, name: str) -> None:
        """A new bucket."""
        import boto3

        boto3.client("s3", endpoint_url=self.url, region_name="us-east-1").create_bucket(
            Bucket=name
        )


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """A running server that the usual environment variables point to."""
    from flow3r_ros import storage

    server = ObjectStore()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("NO_PROXY", ",".join(("127.0.0.1", os.environ.get("NO_PROXY", ""))))
        patch.setattr(storage, "WAITS_S", (0.05, 0.1))
        storage.forget_connections()
        try:
            server.start()
            yield server
        finally:
            server.kill()
            storage.forget_connections()
