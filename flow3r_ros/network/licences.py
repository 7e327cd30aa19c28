"""What a licence text allows as far as we can tell, and what weights may say of themselves when
their parts have different ones."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

Concern = Literal["", "non-commercial", "unknown", "copyleft"]
UNKNOWN = "unknown"

_RESTRICTED = re.compile(
    r"non[- _]?commercial|\bby[- _]nc\b|[- _]nc[- _]|[- _]nc\b|research[- _](use|only|purposes)|"
    r"academic use|no derivative|[- _]nd\b",
    re.IGNORECASE,
)
_KNOWN = re.compile(
    r"apache|\bmit\b|\bbsd\b|\bisc\b|\bzlib\b|\bmpl\b|cc0|cc[- _]by|public domain|unlicense|"
    r"\bodbl\b|\bpddl\b|proprietary|\bown\b",
    re.IGNORECASE,
)
_COPYLEFT = re.compile(r"gpl|\bby[- _]sa\b|share[- ]?alike", re.IGNORECASE)
_TEXTS = (
    (r"creative commons.*(noncommercial|non-commercial)", "CC-BY-NC"),
    (r"\bcc[- ]by[- ]nc", "CC-BY-NC"),
    (r"cc0 1\.0 universal", "CC0-1.0"),
    (r"creative commons attribution[- ]sharealike", "CC-BY-SA"),
    (r"creative commons attribution", "CC-BY"),
    (r"apache license", "Apache-2.0"),
    (r"mit license|permission is hereby granted, free of charge", "MIT"),
    (r"redistribution and use in source and binary forms", "BSD"),
    (r"gnu affero general public license", "AGPL"),
    (r"gnu lesser general public license", "LGPL"),
    (r"gnu general public license", "GPL"),
)
"""how the texts of common licences begin, in the order in which they are tried"""
_NAMES = ("LICENSE*", "LICENCE*", "COPYING*", "license*", "licence*")


def concern(licence: str) -> Concern:
    """What stands in the way of using something under this licence freely; empty when nothing that
    we recognise does."""
    if _RESTRICTED.search(licence):
        return "non-commercial"
    if licence.lower().startswith(UNKNOWN):
        return "unknown"
    if _COPYLEFT.search(licence):
        return "copyleft"
    return "" if _KNOWN.search(licence) else "unknown"


def combined(own: str, parts: Iterable[tuple[str, str]]) -> str:
    """The licence of weights trained by us under `own` from `parts` (name, licence): `own`, or what
    keeps it from holding and the parts that do."""
    worries = [(name, licence or UNKNOWN, concern(licence)) for name, licence in parts]
    named = [f"{name} ({licence})" for name, licence, worry in worries if worry]
    if not named:
        return own
    kinds = {worry for _, _, worry in worries}
    verdict = next(kind for kind in ("non-commercial", "unknown", "copyleft") if kind in kinds)
    return f"{verdict}: {own} would hold but for what these weights saw: {', '.join(named)}"


def licence_beside(recording: Path) -> str:
    """Name of the licence whose text lies beside a recording (a file's folder; in a folder, or
    beside it); `unknown` without one, or the text's first line where it is not recognised."""
    folders = [recording, recording.parent] if recording.is_dir() else [recording.parent]
    for folder in folders:
        for pattern in _NAMES:
            for path in sorted(folder.glob(pattern)):
                if path.is_file():
                    return _recognised(path.read_text(encoding="utf-8", errors="replace"))
    return UNKNOWN


def _recognised(text: str) -> str:
    flat = " ".join(text[:4000].lower().split())
    for pattern, name in _TEXTS:
        if re.search(pattern, flat):
            return name
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:80] if lines else UNKNOWN
