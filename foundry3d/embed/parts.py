"""Parquet parts of features: one file per unit, complete or not there, the same bytes every time.

A part has one row per cloud that could be used: `name`, `points_used`, `pooled` (2d,) float32; on
request `tokens` (c, d) and `centers` (c, 3) float16, which are `centers * scale + shift` in the
coordinates of the file. Its metadata hold `protocol`, how the features were made, and `unit`: the
files, the clouds that could not be used and why, and notices.

Shapes: c tokens, d width of a feature, n rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from foundry3d.embed.clouds import PreparedCloud
from foundry3d.errors import InputError
from foundry3d.extras import explained
from foundry3d.models.backbone import Tokens
from foundry3d.writing import held, replacing

PATTERN = "part-*.parquet"


def arrow() -> Any:
    """The pyarrow package.

    Raises:
        MissingExtra: it is not installed.
    """
    with explained():
        import pyarrow
        import pyarrow.parquet
    return pyarrow


class Shape(NamedTuple):
    """Sizes in a part: d, and c where the features of tokens are stored too."""

    width: int
    tokens: int | None


def schema_of(shape: Shape, protocol: dict[str, Any]) -> Any:
    """The columns of a part, with the protocol as metadata."""
    pa = arrow()
    fields = [
        pa.field("name", pa.string(), nullable=False),
        pa.field("points_used", pa.int32(), nullable=False),
        pa.field("pooled", pa.list_(pa.float32(), 2 * shape.width), nullable=False),
    ]
    if shape.tokens is not None:
        half = pa.float16()
        fields += [
            pa.field("tokens", pa.list_(pa.list_(half, shape.width), shape.tokens)),
            pa.field("centers", pa.list_(pa.list_(half, 3), shape.tokens)),
            pa.field("shift", pa.list_(pa.float64(), 3)),
            pa.field("scale", pa.float64()),
        ]
    return pa.schema(fields, metadata={"protocol": json.dumps(protocol, sort_keys=True)})


def _fixed(values: np.ndarray) -> Any:
    """Rows (n, ...) as a column of lists of fixed size."""
    pa = arrow()
    found = pa.array(values.reshape(-1))
    for size in reversed(values.shape[1:]):
        found = pa.FixedSizeListArray.from_arrays(found, size)
    return found


class Rows:
    """Collects the rows of a part; `table` empties it."""

    def __init__(self, schema: Any, shape: Shape) -> None:
        self.schema, self.shape = schema, shape
        self._rows: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, cloud: PreparedCloud, tokens: Tokens) -> None:
        """Adds a cloud with its tokens, a batch of one whose centers are those of the file."""
        row: dict[str, Any] = {
            "name": cloud.source,
            "points_used": len(cloud.points),
            "pooled": tokens.pooled()[0].numpy(),
        }
        if self.shape.tokens is not None:
            centers = tokens.centers[0].double()
            shift = centers.mean(dim=0)
            scale = max(float((centers - shift).abs().max()), float(np.finfo(np.float64).tiny))
            row |= {
                "tokens": tokens.features[0].to(torch.float16).numpy(),
                "centers": ((centers - shift) / scale).to(torch.float16).numpy(),
                "shift": shift.numpy(),
                "scale": scale,
            }
        self._rows.append(row)

    def table(self) -> Any:
        """The rows so far, which are not kept."""
        pa, columns = arrow(), []
        for field in self.schema:
            values = [row[field.name] for row in self._rows]
            lists = pa.types.is_fixed_size_list(field.type)
            columns.append(_fixed(np.stack(values)) if lists else pa.array(values, field.type))
        self._rows = []
        return pa.Table.from_arrays(columns, schema=self.schema)


def _hidden(path: Path) -> Path:
    """A name by which a part is held; readers of the folder pass over it."""
    return path.with_name(f".{path.name}")


def write_part(
    path: Path,
    clouds: Iterator[tuple[PreparedCloud, Tokens]],
    about: dict[str, Any],
    *,
    schema: Any,
    shape: Shape,
    block: int,
) -> None:
    """Writes a part, unless another process has written it meanwhile.

    Args:
        path: of the part.
        clouds: each with its tokens; read only if the part has to be written.
        about: what is known of the unit when all clouds have been read; becomes metadata.
        schema: of `schema_of`.
        shape: of the rows.
        block: rows in memory at a time.
    """
    pq, rows = arrow().parquet, Rows(schema, shape)
    with held(_hidden(path), wait=True):
        if path.exists():
            return
        for left in path.parent.glob(f".{path.name}.*.partial"):  # of a process that was killed
            left.unlink(missing_ok=True)
        with (
            replacing(path) as partial,
            pq.ParquetWriter(
                partial, schema, compression="none", use_dictionary=False,
                write_statistics=["name"], write_page_checksum=True,
            ) as writer,
        ):  # fmt: skip
            for cloud, tokens in clouds:
                rows.add(cloud, tokens)
                if len(rows) == block:
                    writer.write_table(rows.table())
            if len(rows):
                writer.write_table(rows.table())
            writer.add_key_value_metadata({"unit": json.dumps(about, sort_keys=True)})


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a part says about itself.

    Attributes:
        path: of the file.
        rows: clouds in it.
        protocol: how its features were made.
        about: of its unit, as `write_part` was told.
    """

    path: Path
    rows: int
    protocol: dict[str, Any]
    about: dict[str, Any]


def read_part(path: Path) -> Part:
    """What a part says about itself; its rows are not read.

    Raises:
        InputError: damaged, or not a part; names it.
    """
    try:
        found = arrow().parquet.read_metadata(path)
        texts = found.metadata or {}
        protocol, about = (json.loads(texts[key]) for key in (b"protocol", b"unit"))
    except InputError:
        raise
    except Exception as error:  # whatever the damaged bytes lead to
        raise _damaged(path, error) from None
    return Part(path=path, rows=found.num_rows, protocol=protocol, about=about)


def blocks_of(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    """The rows of a part as tables of some columns, a block at a time, their checksums verified.

    Raises:
        InputError: the part is damaged; names it.
    """
    pq = arrow().parquet
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=list(columns))
    except Exception as error:
        raise _damaged(path, error) from None


def require_whole(path: Path) -> Part:
    """What a part says about itself, after all of it was read and compared with its checksums.

    Raises:
        InputError: damaged, or not a part; names it.
    """
    part = read_part(path)
    columns = arrow().parquet.read_schema(path).names
    rows = sum(len(table) for table in blocks_of(path, columns))
    if rows != part.rows:
        raise _damaged(path, ValueError(f"{rows} of {part.rows} rows"))
    return part


def _damaged(path: Path, error: Exception) -> InputError:
    reason = next(iter(str(error).splitlines()), "")[:160] or type(error).__name__
    return InputError(
        f"{path}: expected a whole part of features, got a damaged file ({reason}); remove it and "
        "give the command that wrote it again"
    )


def parts_in(folder: Path) -> list[Path]:
    """The parts in a folder, in order."""
    with suppress(OSError):
        return sorted(folder.glob(PATTERN))
    return []
