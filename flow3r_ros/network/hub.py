"""`flow3r models fetch`: the only code that touches the network, through huggingface_hub (endpoint:
`HF_ENDPOINT`).

An interrupted download resumes where it stopped; the file is checked against the size and sha256
the hub announces, against the manifest where that knows one, and against the architecture, before
it appears under its final name in the user's models folder.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

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

logger = logging.getLogger(__name__)

REPOSITORY = "Clara211111/flow3r"
FILE = "flow3r.bin"
PUBLIC_HUB = "https://huggingface.co"
MAX_DOWNLOAD_BYTES = 16 << 30
"""largest file that is fetched; the official weights have 4 GB"""


def fetch(name: str = "flow3r_large", directory: Path | None = None) -> ModelFolder:
    """Download the official weights of `name` into `directory` (default: the user's models folder)
    and return the complete folder.

    The licence note is logged before anything is downloaded. A folder of ours without weights is
    replaced. Raises ModelError naming the file and the cure, OutputError where the folder cannot be
    written; a partial download stays for the next call to resume.
    """
    known = find_model(name)
    logger.info("fetching %s from %s; %s", name, REPOSITORY, licence_note(known.manifest))
    target = (directory or user_models()) / model_name(name)
    if target.is_dir() and (target / FILE).is_file():
        return read_folder(target)
    downloads = target.parent / ".downloads" / name
    with OutputFolder(target, why_kept) as unfinished:
        downloads.mkdir(parents=True, exist_ok=True)
        file, announced = _download(downloads)
        digest = file_sha256(file)
        for expected, origin in ((announced, "the hub"), (known.manifest.sha256, "the manifest")):
            if expected and expected != digest:
                file.unlink()
                raise ModelError(
                    f"{file}: sha256 {digest[:12]}... is not what {origin} says "
                    f"({expected[:12]}...)",
                    "run the command again",
                )
        try:
            build(known.architecture(), read_weights(file), file)
        except ModelError:
            file.unlink()
            raise
        shutil.copyfile(known.path / "config.json", unfinished.path / "config.json")
        write_manifest(unfinished.path, known.manifest.model_copy(update={"sha256": digest}))
        os.replace(file, unfinished.path / FILE)
    shutil.rmtree(downloads, ignore_errors=True)
    return read_folder(target)


def _download(folder: Path) -> tuple[Path, str]:
    """The downloaded file and the sha256 the hub announces for it (empty where it announces none).

    `hf_hub_download` throws a partial file away when it gives up, so its own transfer function is
    used on a file we keep; its name carries the announced ETag, so parts of two versions never
    meet.
    """
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers
    except ImportError as error:
        raise ModelError("huggingface_hub is not installed", install_extra("hub")) from error
    endpoint = os.environ.get("HF_ENDPOINT", PUBLIC_HUB)
    try:
        url = hf_hub_url(REPOSITORY, FILE, endpoint=endpoint)
        metadata = get_hf_file_metadata(url)
        if not 0 < (metadata.size or 0) <= MAX_DOWNLOAD_BYTES:
            raise ValueError(f"announced with a size of {metadata.size} bytes")
        etag = "".join(
            letter for letter in (metadata.etag or "unknown").lower() if letter.isalnum()
        )
        partial = folder / f"{etag}.part"
        with partial.open("r+b" if partial.exists() else "w+b") as stream:
            done = stream.seek(0, os.SEEK_END)
            http_get(
                url,
                stream,
                resume_size=done,
                headers=build_hf_headers(),
                expected_size=metadata.size,
                displayed_filename=FILE,
            )
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        cure = (
            "check the connection and run the command again (it resumes), or: flow3r "
            "models import FILE"
        )
        raise ModelError(
            f"{REPOSITORY}/{FILE}: cannot be fetched from {endpoint} "
            f"({type(error).__name__}: {reason})",
            cure,
        ) from error
    return partial, etag if len(etag) == 64 else ""
