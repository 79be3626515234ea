"""Parquet files of points and features, read and written by pyarrow where it is installed.

Shapes: N points, D width of a list column.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foundry3d.errors import InputError
from foundry3d.extras import explained


def read_parquet(path: Path, wanted: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of a Parquet file by name; columns `x`, `y`, `z` become `points`.

    Raises:
        InputError: a missing or damaged file, columns of other kinds, or no pyarrow.
    """
    with explained():
        import pyarrow.parquet as pq

    try:
        columns = pq.ParquetFile(path).schema_arrow.names
        apart = "points" not in columns and {"x", "y", "z"} <= set(columns)
        names = [n for n in wanted if n in columns] + (["x", "y", "z"] if apart else [])
        table = pq.read_table(path, columns=names)
        whole = "centers" in columns
        found = {n: _column(table[n], n, whole) for n in names}
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # damaged bytes fail in every way there is
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{path}: not a readable Parquet file ({reason}); write it again"
        ) from None
    if apart:
        found["points"] = np.stack([found.pop(axis) for axis in "xyz"], axis=1)
    return found


def _column(column: Any, name: str, whole: bool) -> np.ndarray:
    """A column as an array (N,) or, of lists, (N, D); `whole` = of the lists in its only row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = column.combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks)
    if whole:
        if len(values) != 1:
            raise InputError(f"expected one row of lists with 'centers', got {len(values)} rows")
        values = values.flatten()
    nested = pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type)
    nested = nested or pa.types.is_large_list(values.type)
    if not nested:
        return np.asarray(values.to_numpy(zero_copy_only=False))
    valid = values.is_valid().to_numpy(zero_copy_only=False)
    widths = pc.list_value_length(values).drop_null().unique().to_pylist()
    if len(widths) != 1:
        raise InputError(f"expected lists of one length in '{name}', got {sorted(widths)[:4]}")
    flat = np.asarray(values.flatten().to_numpy(zero_copy_only=False))
    rows = np.full(
        (len(values), widths[0]), np.nan, flat.dtype if flat.dtype.kind == "f" else float
    )
    rows[valid] = flat.reshape(-1, widths[0])
    return rows


def write_parquet(stream: Any, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays (n, m) for `read_parquet`: a row each, or one row of lists with centers.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    with explained():
        import pyarrow as pa
        import pyarrow.parquet as pq

    def lists(rows: np.ndarray) -> Any:
        there = np.isfinite(rows).all(axis=1)
        flat = pa.array(np.ascontiguousarray(rows[there]).reshape(-1))
        if there.all():
            return pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])
        # pyarrow before 24 writes no absent lists of a fixed size
        ends = np.cumsum(there, dtype=np.int32) * np.int32(rows.shape[1])
        starts = pa.array(np.concatenate([np.zeros(1, np.int32), ends]))
        return pa.ListArray.from_arrays(starts, flat, mask=pa.array(~there))

    columns = {name: lists(rows) for name, rows in arrays.items()}
    if "centers" in arrays:
        columns = {
            name: pa.ListArray.from_arrays(pa.array([0, len(column)], pa.int32()), column)
            for name, column in columns.items()
        }
    pq.write_table(pa.table(columns), stream)
