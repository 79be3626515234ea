"""Parquet: a table with a row for each point, read by pyarrow.

Shapes: N points.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from foundry3d.data.formats.fields import gathered
from foundry3d.data.formats.headers import coordinate_columns
from foundry3d.data.formats.raw import MAX_BYTES, Raw, ignored, listing
from foundry3d.errors import InputError
from foundry3d.extras import explained

_WIDTH = 8  # bytes of a number in memory, at the most


def read_parquet(blob: bytes, attributes: Sequence[str] = ()) -> Raw:
    """Points of a table with columns x, y and z; no other column but those asked for is read.

    Args:
        blob: the file.
        attributes: to read where the table has their columns.

    Raises:
        InputError: pyarrow is missing, no Parquet file, or no number columns x, y and z.
    """
    with explained():
        import pyarrow as pa
        import pyarrow.parquet as pq
    try:
        table = pq.ParquetFile(io.BytesIO(blob))
    except pa.ArrowException as error:
        raise InputError(
            f"expected a parquet file, got damage ({listing([str(error)], width=80)}); copy or "
            "export it again"
        ) from None
    kinds = (pa.types.is_integer, pa.types.is_floating)
    plain = [field.name for field in table.schema_arrow if any(kind(field.type) for kind in kinds)]
    chosen = coordinate_columns(plain)
    if chosen is None:
        raise InputError(
            f"expected number columns x, y and z, got {listing(table.schema_arrow.names)}; rename "
            "them"
        )

    def column(name: str) -> np.ndarray:
        if table.metadata.num_rows * _WIDTH > MAX_BYTES:
            raise InputError(f"expected at most {MAX_BYTES} bytes in a column; cut the file")
        found: np.ndarray = table.read([name])[name].to_numpy()
        return found

    axes = [plain[i] for i in chosen]
    found, used = gathered(attributes, plain, column)
    others = [name for name in table.schema_arrow.names if name not in {*axes, *used}]
    return Raw(
        vertices=np.stack([column(name) for name in axes], axis=1),
        notices=ignored("columns", others),
        attributes=found,
    )
