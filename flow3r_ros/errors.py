"""One small family of typed errors: each says what went wrong, where, and what to do.

The command line prints `str(error)` as one line on stderr and exits with 1; the node logs it once,
counts it, and goes on.
"""

from __future__ import annotations

import re
import shlex
import unicodedata


def printable(text: object) -> str:
    """Text from outside (names, topics, frame ids, licences) as it may be shown: control
    characters, marks that turn the direction of writing, and bytes that are no text are escaped,
    so it stays one line and says what it is."""
    return "".join(
        letter
        if letter.isprintable() or unicodedata.category(letter) == "Zs"
        else letter.encode("unicode_escape").decode("ascii")
        for letter in str(text)
    )


def cause_of(error: Exception) -> str:
    """Why a file could not be read or written, in words: no number of the system, no path again."""
    if isinstance(error, IsADirectoryError):
        return "it is a folder"
    if isinstance(error, NotADirectoryError):
        return "a file stands where a folder is expected"
    if isinstance(error, FileExistsError):
        return "a file stands there"
    if isinstance(error, FileNotFoundError):
        return "no such file or folder"
    if isinstance(error, UnicodeDecodeError):
        return "it is no text"
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(words.split())[:200] or type(error).__name__


def install_extra(extra: str) -> str:
    """The command that brings the packages of an optional extra of ours. It names them one by one,
    so it works in a checkout, beside a wheel and in a colcon workspace: our own name is on no
    index."""
    wanted = [
        requirement.partition(";")[0].strip()
        for requirement in _requirements()
        if f'extra == "{extra}"' in requirement
    ]
    return (
        f"pip install {shlex.join(wanted)}" if wanted else f"pip install '.[{extra}]' in a checkout"
    )


def install_module(module: str) -> str:
    """The command that brings a module that is missing: with it the rest of the extra it is of."""
    names = {"cv2": "opencv-python-headless", "skimage": "scikit-image", "yaml": "pyyaml"}
    package = names.get(module, module)
    for requirement in _requirements():
        if re.match(r"[\w.-]+", requirement)[0] == package:  # type: ignore[index]
            extra = re.search(r'extra == "(\w+)"', requirement)
            if extra is None or extra[1] != "dev":
                return install_extra(extra[1]) if extra else f"pip install {package}"
    return f"pip install {package}"


def _requirements() -> list[str]:
    """What our package needs, as pip knows it; nothing where we are not installed."""
    from importlib.metadata import PackageNotFoundError, requires  # as slow as the rest of a start

    try:
        return requires("flow3r_ros") or []
    except PackageNotFoundError:
        return []


class Flow3rError(Exception):
    """Base of every error a user can cause or cure.

    Control characters in what is said are shown escaped (`printable`).

    Args:
        what: what is wrong, naming the topic, file or frame.
        cure: what to do about it; empty where nothing can be done.
    """

    def __init__(self, what: str, cure: str = "") -> None:
        self.what = printable(what)
        self.cure = printable(cure)
        super().__init__(f"{self.what}; {self.cure}" if cure else self.what)


class ConfigError(Flow3rError):
    """A setting does not exist, has the wrong type, or lies outside its range."""


class InputError(Flow3rError):
    """A video, folder, bag or camera file cannot be read or does not make sense."""


class FrameError(Flow3rError):
    """One frame is unusable; the caller counts it as dropped under `reason` and goes on.

    Args:
        reason: key of the drop counter, snake case (`corrupt_image`, `non_monotonic_stamp`, ...).
    """

    def __init__(self, reason: str, what: str, cure: str = "") -> None:
        self.reason = reason
        super().__init__(what, cure)


class CameraError(Flow3rError):
    """Intrinsics or distortion are not finite, do not fit the image, or use an unknown model."""


class ModelError(Flow3rError):
    """A model folder, manifest or weights file is missing, damaged, of another shape, or unsafe."""


class OutputError(Flow3rError):
    """An output folder or file exists already, cannot be written, or the disk is full."""


class StorageError(Flow3rError):
    """Object storage has no such bucket, refuses access, or cannot be reached."""


class BagError(InputError):
    """A rosbag is damaged, empty, or lacks what was asked of it."""


class TrainingError(Flow3rError):
    """Training cannot start or go on: data, checkpoint and settings do not fit, or a loss is not
    finite."""


class EvaluationError(Flow3rError):
    """Estimate and reference cannot be compared."""
