"""`flow3r models fetch` against a local HTTP server that speaks as much of the hub's protocol as a
download needs."""

from __future__ import annotations

import hashlib
import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from flow3r_ros.errors import ModelError
from flow3r_ros.network import hub
from flow3r_ros.network.catalog import find_model, list_models, verify
from flow3r_ros.network.checkpoint import load_model
from test.cases.workshop import flow3r
from test.network.factories import images, tiny_folder, tiny_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.ThreadingHTTPServer):
    """Serves one file; can break off after `budget` bytes, lie about the hash, or not know the
    file."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.etag = hashlib.sha256(content).hexdigest()
        self.budget: int | None = None
        self.known = True
        self.ranges: list[str | None] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        if self.path.startswith("/api/"):
            body = json.dumps(
                {"id": hub.REPOSITORY, "sha": COMMIT, "siblings": [{"rfilename": hub.FILE}]}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        if not self.server.known or not self.path.endswith(hub.FILE):
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        asked = self.headers.get("Range") if body else None
        if body:
            self.server.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        rest = self.server.content[start:]
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{self.server.etag}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header(
                "Content-Range",
                f"bytes {start}-{len(self.server.content) - 1}/{len(self.server.content)}",
            )
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if body and self.server.budget is not None:
            self.wfile.write(rest[: self.server.budget])
            self.wfile.flush()
            self.server.budget = max(0, self.server.budget - len(rest))
            self.close_connection = True
            self.connection.close()
        elif body:
            self.wfile.write(rest)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with a tiny `flow3r.bin`, and a model folder `tiny` whose weights are still to be
    fetched."""
    torch.save(tiny_model().state_dict(), tmp_path / "source.bin")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "install"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    known = tiny_folder(tmp_path / "install" / "share" / "flow3r_ros" / "models" / "tiny")
    (known.path / "model.safetensors").unlink()
    manifest = (known.path / "manifest.yaml").read_text()
    (known.path / "manifest.yaml").write_text(
        "\n".join(line if "sha256" not in line else "sha256: ''" for line in manifest.splitlines())
    )
    hub_server = Hub((tmp_path / "source.bin").read_bytes())
    thread = threading.Thread(target=hub_server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub_server.server_port}")
    yield hub_server
    hub_server.shutdown()
    hub_server.server_close()
    thread.join()


def test_fetched_model_is_complete_verified_and_found(server: Hub, tmp_path: Path) -> None:
    folder = hub.fetch("tiny")
    assert folder.path == tmp_path / "data" / "flow3r" / "models" / "tiny"
    assert folder.manifest.sha256 == server.etag == verify(folder)
    with torch.no_grad():
        assert torch.equal(
            load_model("tiny")(images(2))["points"], tiny_model()(images(2))["points"]
        )
    asked = len(server.ranges)
    assert hub.fetch("tiny").path == folder.path
    assert len(server.ranges) == asked, "what is there is not downloaded again"


def test_nothing_is_downloaded_before_the_licence_is_agreed_to(server: Hub, tmp_path: Path) -> None:
    shown: list[hub.Offer] = []

    def refuse(offer: hub.Offer) -> bool:
        shown.append(offer)
        return False

    with pytest.raises(ModelError, match="not fetched"):
        hub.fetch("tiny", agree=refuse)
    (offer,) = shown
    assert (offer.size, offer.done) == (len(server.content), 0)
    assert offer.target == tmp_path / "data" / "flow3r" / "models" / "tiny"
    words = "\n".join(offer.in_words())
    assert "Apache-2.0" in words
    assert str(offer.target) in words
    assert not server.ranges
    assert find_model("tiny").weights is None


def test_the_command_asks_and_takes_yes(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = ("models", "fetch", "tiny", "--json")
    asked = flow3r(*fetch)
    assert asked.code == 2
    assert "--yes" in asked.err
    assert "licence of the weights: Apache-2.0" in asked.err
    assert not server.ranges
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    command = [sys.executable, "-m", "flow3r_ros.cli", *fetch, "--yes"]
    agreed = subprocess.run(command, capture_output=True, text=True)
    assert agreed.returncode == 0, agreed.stderr
    assert json.loads(agreed.stdout)["sha256"] == server.etag


def test_a_full_disk_is_said_before_the_download(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda _: used._replace(free=1000))
    with pytest.raises(ModelError, match="free some space"):
        hub.fetch("tiny")
    assert not server.ranges


def test_a_broken_download_resumes(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 14)
    server.budget = len(server.content) // 2
    with pytest.raises(ModelError, match="resumes"):
        hub.fetch("tiny")
    assert find_model("tiny").weights is None
    server.budget = None
    folder = hub.fetch("tiny")
    assert folder.weights is not None
    last = server.ranges[-1]
    assert last is not None, "the second download starts where the first stopped"
    assert int(last.removeprefix("bytes=").split("-")[0]) > 0


def test_a_file_that_is_not_what_the_hub_announced(server: Hub) -> None:
    server.etag = "0" * 64
    with pytest.raises(ModelError, match="sha256"):
        hub.fetch("tiny")
    assert find_model("tiny").weights is None


def test_a_file_of_another_network(server: Hub, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.bin")
    server.content = (tmp_path / "other.bin").read_bytes()
    server.etag = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(ModelError, match="does not fit the architecture"):
        hub.fetch("tiny")
    assert find_model("tiny").weights is None


def test_no_such_file_and_no_server(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.known = False
    with pytest.raises(ModelError, match="cannot be fetched"):
        hub.fetch("tiny")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"cannot be fetched from http://127.0.0.1:9.*import FILE"):
        hub.fetch("tiny")
    assert all(folder.path.name != ".downloads" for folder in list_models())
