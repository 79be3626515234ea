"""Makes the sample clouds of the page from the package's built-in shapes.

python edge/web/make_samples.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from foundry3d.data.procedural import CATEGORIES, generate

FOLDER = Path(__file__).parent / "public" / "samples"
SHOWN = ("airplane", "chair", "mug", "lamp", "table", "car")
COUNT = 1024


def main() -> None:
    """Writes one binary ply file for each shape."""
    clouds = generate(len(CATEGORIES), points=COUNT, seed=7)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {COUNT}\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
    for name in SHOWN:
        [row] = np.flatnonzero(clouds.labels == CATEGORIES.index(name))
        data = clouds.points[row].astype("<f4").tobytes()
        (FOLDER / f"{name}.ply").write_bytes(header.encode() + data)


if __name__ == "__main__":
    main()
