"""`flow3r models fetch`: the only code that touches the network, through huggingface_hub (endpoint:
`HF_ENDPOINT`).

Nothing is downloaded before whoever asked has agreed to what is offered: licence, size, folder. An
interrupted download resumes where it stopped; the file is checked against the size and sha256 the
hub announces, against the manifest where that knows one, and against the architecture, before it
appears under its final name in the user's models folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flow3r_ros.errors import ModelError, install_extra
from flow3r_ros.network.catalog import (
    ModelFolder,
    file_sha256,
    find_model,
    licence_note,
    model_name,
    read_folder,
    user_models,
    why_kept,
)
from flow3r_ros.network.checkpoint import build, read_weights, write_manifest
from flow3r_ros.paths import OutputFolder

REPOSITORY = "Clara211111/flow3r"
FILE = "flow3r.bin"
PUBLIC_HUB = "https://huggingface.co"
MAX_DOWNLOAD_BYTES = 16 << 30
"""largest file that is fetched; the official weights have 4 GB"""


@dataclass(frozen=True)
class Offer:
    """What would be downloaded: `size` bytes of which `done` are here already, into `target`, on a
    disk with `free` bytes, under `licence` (one line)."""

    name: str
    source: str
    licence: str
    size: int
    done: int
    target: Path
    free: int

    def in_words(self) -> list[str]:
        """Lines to show before anything is downloaded."""
        here = f", {_megabytes(self.done)} of it here already" if self.done else ""
        return [
            f"{self.name} from {self.source}",
            self.licence,
            f"size: {_megabytes(self.size)}{here}",
            f"folder: {self.target} ({_megabytes(self.free)} free)",
        ]


def fetch(
    name: str = "flow3r_large",
    directory: Path | None = None,
    agree: Callable[[Offer], bool] = lambda _: True,
) -> ModelFolder:
    """Download the official weights of `name` into `directory` (default: the user's models folder)
    and return the complete folder.

    `agree` is shown the offer before anything is downloaded, and decides. A folder of ours without
    weights is replaced. Raises ModelError naming the file and the cure (also where it was not
    agreed, or the disk is too small), OutputError where the folder cannot be written; a partial
    download stays for the next call to resume.
    """
    known = find_model(name)
    target = (directory or user_models()) / model_name(name)
    if target.is_dir() and (target / FILE).is_file():
        return read_folder(target)
    downloads = target.parent / ".downloads" / name
    with OutputFolder(target, why_kept) as unfinished:
        downloads.mkdir(parents=True, exist_ok=True)
        source = _look_up(downloads)
        offer = Offer(
            name=name,
            source=f"{source.endpoint}/{REPOSITORY}",
            licence=licence_note(known.manifest),
            size=source.size,
            done=source.done(),
            target=target,
            free=shutil.disk_usage(downloads).free,
        )
        _agreed(offer, agree)
        digest = _checked(_download(source), source.sha256, known)
        shutil.copyfile(known.path / "config.json", unfinished.path / "config.json")
        write_manifest(unfinished.path, known.manifest.model_copy(update={"sha256": digest}))
        os.replace(source.partial, unfinished.path / FILE)
    shutil.rmtree(downloads, ignore_errors=True)
    return read_folder(target)


def _agreed(offer: Offer, agree: Callable[[Offer], bool]) -> None:
    if not agree(offer):
        raise ModelError(f"{offer.name}: not fetched, as you said", "run it again to say yes")
    if offer.size - offer.done > offer.free:
        raise ModelError(
            f"{offer.target.parent}: {_megabytes(offer.free)} free, {offer.name} needs "
            f"{_megabytes(offer.size - offer.done)} more",
            "free some space, or set XDG_DATA_HOME to a larger disk",
        )


def _checked(file: Path, announced: str, known: ModelFolder) -> str:
    """sha256 of a downloaded file that is what the hub and the manifest say and fits the
    architecture; one that is not is removed."""
    digest = file_sha256(file)
    for expected, origin in ((announced, "the hub"), (known.manifest.sha256, "the manifest")):
        if expected and expected != digest:
            file.unlink()
            raise ModelError(
                f"{file}: sha256 {digest[:12]}... is not what {origin} says ({expected[:12]}...)",
                "run the command again",
            )
    try:
        build(known.architecture(), read_weights(file), file)
    except ModelError:
        file.unlink()
        raise
    return digest


@dataclass(frozen=True)
class _Source:
    """The file at the hub, `size` bytes; `sha256` is empty where the hub announces none. Its name
    here, `partial`, carries the announced ETag, so parts of two versions never meet."""

    endpoint: str
    url: str
    size: int
    sha256: str
    partial: Path

    def done(self) -> int:
        """Bytes that an earlier download left."""
        return self.partial.stat().st_size if self.partial.exists() else 0


def _look_up(folder: Path) -> _Source:
    """What the hub announces; the file will lie in `folder`."""
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
    except ImportError as error:
        raise ModelError("huggingface_hub is not installed", install_extra("hub")) from error
    endpoint = os.environ.get("HF_ENDPOINT", PUBLIC_HUB)
    try:
        url = hf_hub_url(REPOSITORY, FILE, endpoint=endpoint)
        metadata = get_hf_file_metadata(url)
        size = metadata.size or 0
        if not 0 < size <= MAX_DOWNLOAD_BYTES:
            raise ValueError(f"announced with a size of {metadata.size} bytes")
    except Exception as error:
        raise _not_fetched(endpoint, error) from error
    etag = "".join(letter for letter in (metadata.etag or "unknown").lower() if letter.isalnum())
    return _Source(endpoint, url, size, etag if len(etag) == 64 else "", folder / f"{etag}.part")


def _download(source: _Source) -> Path:
    """The complete file. `hf_hub_download` throws a partial file away when it gives up, so its own
    transfer function is used on a file we keep."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    options: dict[str, Any] = {
        "headers": build_hf_headers(),
        "expected_size": source.size,
        "displayed_filename": FILE,
    }
    try:
        with source.partial.open("r+b" if source.partial.exists() else "w+b") as stream:
            done = stream.seek(0, os.SEEK_END)
            http_get(source.url, stream, resume_size=done, **options)
    except Exception as error:
        raise _not_fetched(source.endpoint, error) from error
    return source.partial


def _not_fetched(endpoint: str, error: Exception) -> ModelError:
    reason = (str(error).splitlines() or [""])[0][:120]
    return ModelError(
        f"{REPOSITORY}/{FILE}: cannot be fetched from {endpoint} "
        f"({type(error).__name__}: {reason})",
        "check the connection and run the command again (it resumes), or: flow3r models import "
        "FILE",
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
