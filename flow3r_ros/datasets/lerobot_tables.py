"""Features of a LeRobot dataset as parquet columns with the statistics that its policies normalise
by: of numbers, and of pictures that lie encoded in the table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.datasets.lerobot import need_pyarrow
from flow3r_ros.types import Float64

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
Stats = dict[str, Float64]
"""min, max, mean, std and QUANTILES of a feature, `[d]` or `[channels, 1, 1]`, and count `[1]`"""


@dataclass(frozen=True)
class Column:
    """One feature of one episode: its entry in `info.json`, one value a frame (numbers `[n, d]`, or
    encoded pictures) and their statistics."""

    key: str
    feature: dict[str, Any]
    values: NDArray[Any] | list[bytes]
    stats: Stats


def number_column(key: str, values: NDArray[Any], names: list[str], **info: Any) -> Column:
    """A column of numbers `[n, d]`; `info` says in words what they mean."""
    feature = {"dtype": str(values.dtype), "shape": [values.shape[1]], "names": names}
    return Column(key, feature | ({"info": info} if info else {}), values, stats_of(values))


def picture_column(
    key: str, pictures: list[bytes], shape: tuple[int, int, int], sample: Float64, **info: Any
) -> Column:
    """A column of encoded pictures of `shape` (height, width, channels); `sample` `[pixels,
    channels]` are the values that statistics are made of."""
    feature = {
        "dtype": "image",
        "shape": list(shape),
        "names": ["height", "width", "channels"],
        "info": info,
    }
    return Column(key, feature, pictures, pixel_stats(sample))


def stats_of(values: NDArray[Any]) -> Stats:
    """Statistics of rows `[n, d]`; rows that are not finite are left out."""
    rows = values.astype(np.float64)
    rows = rows[np.isfinite(rows).all(axis=1)]
    count = np.array([len(rows)], np.int64)
    if not len(rows):
        rows = np.zeros((1, values.shape[1]))
    found = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
    found |= {name: np.quantile(rows, share, axis=0) for name, share in QUANTILES.items()}
    return found | {"count": count}


def pixel_stats(sample: NDArray[Any]) -> Stats:
    """Statistics of pixels `[n, channels]`, each `[channels, 1, 1]`."""
    stats = stats_of(sample)
    return {
        name: value if name == "count" else value.reshape(-1, 1, 1) for name, value in stats.items()
    }


def joined_stats(parts: Sequence[Stats]) -> Stats:
    """Statistics of several episodes together, quantiles as their weighted mean: so do lerobot's
    own."""
    weights = np.array([float(part["count"][0]) for part in parts])
    total = weights.sum()
    share = weights / total if total else np.full(len(parts), 1 / len(parts))

    def mean(values: list[Float64]) -> Float64:
        return np.asarray(sum(w * value for w, value in zip(share, values, strict=True)))

    middle = mean([part["mean"] for part in parts])
    squares = mean([part["std"] ** 2 + (part["mean"] - middle) ** 2 for part in parts])
    return {
        "min": np.min([part["min"] for part in parts], axis=0),
        "max": np.max([part["max"] for part in parts], axis=0),
        "mean": middle,
        "std": np.sqrt(squares),
        "count": np.array([int(total)], np.int64),
        **{name: mean([part[name] for part in parts]) for name in QUANTILES},
    }


def whole_stats(episodes: Sequence[Mapping[str, Stats]]) -> dict[str, Any]:
    """Statistics over all episodes, as `meta/stats.json` holds them."""
    return {
        key: {
            name: value.tolist()
            for name, value in joined_stats([episode[key] for episode in episodes]).items()
        }
        for key in episodes[0]
    }


def arrow_field(column: Column) -> Any:
    """The pyarrow.Field of a column, as lerobot writes it."""
    pa = _pyarrow()
    feature = column.feature
    if feature["dtype"] == "image":
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    else:
        value = pa.type_for_alias(feature["dtype"])
        size = feature["shape"][0]
        kind = value if size == 1 else pa.list_(value, size)
    return pa.field(column.key, kind)


def arrow_array(column: Column) -> Any:
    """The values of a column as a pyarrow.Array, one a frame."""
    pa = _pyarrow()
    values = column.values
    if isinstance(values, list):
        rows = [{"bytes": data, "path": None} for data in values]
        return pa.array(rows, arrow_field(column).type)
    flat = pa.array(np.ascontiguousarray(values).ravel())
    size = values.shape[1]
    return flat if size == 1 else pa.FixedSizeListArray.from_arrays(flat, size)


def extended_schema(schema: Any, columns: Sequence[Column]) -> Any:
    """A data file's pyarrow.Schema with further columns, also in the note that Hugging Face's
    viewer reads the types of columns from."""
    metadata = dict(schema.metadata or {})
    for column in columns:
        schema = schema.append(arrow_field(column))
    try:
        note = json.loads(metadata[b"huggingface"])
        note["info"]["features"].update({column.key: _hub_type(column) for column in columns})
        note.pop("fingerprint", None)
        metadata[b"huggingface"] = json.dumps(note).encode()
    except (KeyError, TypeError, ValueError):
        metadata.pop(b"huggingface", None)
    return schema.with_metadata(metadata)


def hub_note(features: dict[str, Any]) -> dict[bytes, bytes]:
    """The note of a new data file: `features` are those of `info.json` that lie in the table."""
    types = {
        key: _hub_type(Column(key, feature, [], {}))
        for key, feature in features.items()
        if feature["dtype"] != "video"
    }
    return {b"huggingface": json.dumps({"info": {"features": types}}).encode()}


def stats_columns(key: str, stats: Stats) -> dict[str, Any]:
    """A feature's statistics as cells of its row in `meta/episodes`."""
    return {f"stats/{key}/{name}": value.tolist() for name, value in stats.items()}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file as lerobot does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False), encoding="utf-8")


def write_tasks(path: Path, tasks: Sequence[str]) -> None:
    """`meta/tasks.parquet`: task -> number, in the form that pandas reads an index from."""
    pa = _pyarrow()
    index = "__index_level_0__"
    note = {
        "index_columns": [index],
        "column_indexes": [{"name": None, "pandas_type": "unicode", "numpy_type": "object"}],
        "columns": [
            {"name": "task_index", "field_name": "task_index", "pandas_type": "int64",
             "numpy_type": "int64", "metadata": None},
            {"name": None, "field_name": index, "pandas_type": "unicode",
             "numpy_type": "object", "metadata": None},
        ],
        "pandas_version": "2.0.0",
    }  # fmt: skip
    table = pa.table({"task_index": list(range(len(tasks))), index: list(tasks)})
    need_pyarrow().write_table(
        table.replace_schema_metadata({b"pandas": json.dumps(note).encode()}), path
    )


def _hub_type(column: Column) -> dict[str, Any]:
    if column.feature["dtype"] == "image":
        return {"_type": "Image"}
    value = {"dtype": column.feature["dtype"], "_type": "Value"}
    size = column.feature["shape"][0]
    return value if size == 1 else {"feature": value, "length": size, "_type": "List"}


def _pyarrow() -> Any:
    need_pyarrow()
    import pyarrow

    return pyarrow
