"""Files and folders in object storage (`s3://`, `gs://`, `az://`) beside those of this machine.

The one place that talks to storage, through fsspec: `RemotePath` has the few methods of
`pathlib.Path` that reading and writing training data takes, so a `Location` may be either. An
object appears whole or not at all, as a file of `paths.write_atomically` does. A call that meets a
lost connection is repeated after each of `WAITS_S`; then StorageError says so in one line.

Credentials and endpoint are those of the usual environment (`AWS_PROFILE`, `AWS_ENDPOINT_URL`,
`GOOGLE_APPLICATION_CREDENTIALS`).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath
from time import sleep
from typing import Any, TypeVar
from urllib.parse import unquote

from flow3r_ros.errors import InputError, StorageError, install_extra
from flow3r_ros.paths import write_atomically

SCHEMES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs"}
"""schemes of addresses -> the package that fsspec needs for them"""
ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+]*)://(?P<key>.*)", re.IGNORECASE | re.DOTALL)
"""how an address is told from a path"""
WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""seconds before each repetition of a call whose connection was lost"""
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5, 30
_PASSING = {"ConnectionError", "ClientConnectionError", "HTTPClientError", "TimeoutError"}
"""names of exception classes, of fsspec's back ends, that a repetition may cure"""

T = TypeVar("T")


@dataclass(frozen=True, order=True)
class RemotePath:
    """A file or folder in object storage; folders exist only as beginnings of names.

    Methods mean what those of `pathlib.Path` do. They raise FileNotFoundError for an object that is
    not there, StorageError when the bucket is missing, access is refused or the connection lost.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url.rstrip('/')}/{name}")

    @property
    def scheme(self) -> str:
        """`s3` of `s3://bucket/name`."""
        return self.url.partition("://")[0]

    @property
    def key(self) -> str:
        """`bucket/name`."""
        return self.url.partition("://")[2].rstrip("/")

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self.key).name

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return PurePosixPath(self.key).stem

    @property
    def suffix(self) -> str:
        """`.mp4`, or nothing."""
        return PurePosixPath(self.key).suffix

    @property
    def parent(self) -> RemotePath:
        """The folder; that of a bucket is the bucket."""
        return RemotePath(f"{self.scheme}://{self.key.rpartition('/')[0] or self.key}")

    def exists(self) -> bool:
        """Whether an object, or one below it, is there."""
        return bool(self._ask(lambda files: files.exists(self.key)))

    def is_dir(self) -> bool:
        """Whether objects lie below it."""
        return bool(self._ask(lambda files: files.isdir(self.key)))

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """What lies directly in this folder and fits, in order; nothing where it does not exist."""
        try:
            found = self._ask(lambda files: files.ls(self.key, detail=False))
        except FileNotFoundError:
            return
        for key in sorted(found):
            if fnmatchcase(PurePosixPath(key).name, pattern):
                yield RemotePath(f"{self.scheme}://{key}")

    def size(self) -> int:
        """Bytes of the object."""
        return int(self._ask(lambda files: files.info(self.key))["size"])

    def read_bytes(self) -> bytes:
        """The whole object."""
        return bytes(self._ask(lambda files: files.cat_file(self.key)))

    def read_range(self, start: int, end: int) -> bytes:
        """Its bytes from `start` up to `end`."""
        return bytes(self._ask(lambda files: files.cat_file(self.key, start=start, end=end)))

    def read_text(self, encoding: str = "utf-8") -> str:
        """The whole object as text."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, data: bytes) -> None:
        """Put an object in place, whole or not at all."""
        self._ask(lambda files: files.pipe_file(self.key, data))

    def upload(self, file: Path) -> None:
        """The same with the content of a local file, of any size."""
        self._ask(lambda files: files.put_file(str(file), self.key))

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        try:
            self._ask(lambda files: files.rm_file(self.key))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def listing(self) -> dict[str, tuple[int, str]]:
        """Everything in this folder and below, or the object alone (named `.`): size in bytes and
        what changes with the content (ETag, time). Raises InputError for names that no folder can
        have."""
        found = self._ask(lambda files: files.find(self.key, detail=True))
        listed = {}
        for key, facts in found.items():
            name = key[len(self.key) :].lstrip("/") or "."
            if ".." in PurePosixPath(name).parts:
                raise InputError(f"{self}: holds an object called {name}", "rename it")
            version = facts.get("ETag") or facts.get("etag") or facts.get("LastModified") or ""
            listed[name] = int(facts["size"]), str(version)
        return listed

    def download(self, target: Path) -> None:
        """Copy the object, or the folder with everything in it, to `target`. Raises
        FileNotFoundError where nothing is, StorageError for an object that did not come whole."""
        listed = self.listing()
        if not listed:
            raise FileNotFoundError(f"{self}: nothing is there")
        for name, (size, _) in listed.items():
            file, source = (target, self) if name == "." else (target / name, self / name)
            file.parent.mkdir(parents=True, exist_ok=True)
            source._fetch(file)
            if file.stat().st_size != size:
                raise StorageError(
                    f"{source}: {file.stat().st_size} of {size} bytes came", "run again"
                )

    def _fetch(self, file: Path) -> None:
        self._ask(lambda files: files.get_file(self.key, str(file)))

    def _ask(self, call: Callable[[Any], T]) -> T:
        """Call storage, again where the connection was lost."""
        for wait in (*WAITS_S, None):
            try:
                return call(_filesystem(self.scheme))
            except FileNotFoundError as error:
                if "bucket" in str(error).lower():
                    bucket = self.key.partition("/")[0]
                    raise StorageError(
                        f"{self}: there is no bucket {bucket}", "make it, or correct the address"
                    ) from error
                raise
            except StorageError:
                raise
            except Exception as error:
                if wait is None or not _may_pass(error):
                    raise _in_words(self, error) from error
            sleep(wait)
        raise AssertionError("the last try returns or raises")


Location = Path | RemotePath
"""a file or folder, here or in storage"""


def location(address: str | Path) -> Location:
    """What an address or path stands for; `file://` is a path. Raises InputError for a scheme that
    is none of `SCHEMES`."""
    found = ADDRESS.fullmatch(str(address)) if isinstance(address, str) else None
    if found is None:
        return Path(address)
    scheme, key = found["scheme"].lower(), found["key"]
    if scheme == "file":
        return Path(unquote(key.removeprefix("localhost")))
    if scheme not in SCHEMES:
        raise InputError(
            f"{address}: {scheme}:// is no storage that flow3r reads",
            f"use {', '.join(f'{known}://' for known in SCHEMES)} or mount it and give the path",
        )
    if not key.strip("/"):
        raise InputError(f"{address}: names no bucket", f"write {scheme}://BUCKET/NAME")
    return RemotePath(f"{scheme}://{key.rstrip('/')}")


def write(target: Location, data: bytes) -> None:
    """Put bytes in their place, whole or not at all. Raises OutputError or StorageError."""
    if isinstance(target, RemotePath):
        target.write_bytes(data)
    else:
        write_atomically(target, data)


def entries(folder: Location, pattern: str) -> list[Location]:
    """What lies directly in a folder and fits, in the order of names."""
    found: list[Location] = [*folder.glob(pattern)]
    return sorted(found, key=str)


@contextmanager
def local_copy(source: Location) -> Iterator[Path]:
    """A path that programs for local files can read: the same for a local one, else a copy under
    its own name that is removed in the end. Raises InputError where nothing is."""
    if isinstance(source, Path):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="flow3r_") as folder:
        copy = Path(folder) / source.name
        try:
            source.download(copy)
        except FileNotFoundError as error:
            raise InputError(f"{source}: no such file or folder", "check the address") from error
        yield copy


@lru_cache(maxsize=8)
def _filesystem(scheme: str) -> Any:
    """The file system of a scheme, one for all threads of this process."""
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if SCHEMES[scheme] == "s3fs":
        options["config_kwargs"] = {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
            "retries": {"total_max_attempts": 1},
        }
    try:
        import fsspec

        return fsspec.filesystem(scheme, **options)
    except ImportError as error:
        package = SCHEMES[scheme]
        raise StorageError(
            f"{scheme}:// needs {package}",
            install_extra("fleet") if package == "s3fs" else f"pip install {package}",
        ) from error


def forget_connections() -> None:
    """Connect anew, with the credentials and endpoints that the environment names now."""
    _filesystem.cache_clear()


def _may_pass(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is about the connection."""
    while error is not None:
        if _PASSING & {kind.__name__ for kind in type(error).__mro__}:
            return True
        error = error.__cause__
    return False


def _in_words(path: RemotePath, error: Exception) -> StorageError:
    """The error to raise: what went wrong and the cure."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if _may_pass(error):
        return StorageError(
            f"{path}: the connection was lost {len(WAITS_S) + 1} times",
            "check network and endpoint and run again: what is finished is kept",
        )
    if "NoCredentialsError" in kinds or "PartialCredentialsError" in kinds:
        return StorageError(
            f"{path}: no credentials were found",
            "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and its key",
        )
    if "PermissionError" in kinds:
        reason = " ".join(str(error).split())
        return StorageError(f"{path}: access refused ({reason})", "check the credentials' rights")
    return StorageError(f"{path}: {type(error).__name__}: {' '.join(str(error).split())}")
