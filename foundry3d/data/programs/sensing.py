"""What a sensor keeps of a surface, and what it adds.

    entry  0     1 2 3      4         5          6 7 8   9 10 11  12        13     14
           view  direction  distance  occluders  a b r   a b r    exponent  holes  radius
    entry  15     16     17        18    19
           noise  axial  outliers  grid  lines

Lengths are multiples of the program's radius. The camera is in `direction` (a unit vector) at
`distance` (0 = infinitely far); an occluder is a disc in its image. With a view, density falls with
the distance from the camera to the power `exponent`. Holes are missing patches about points of the
surface; noise is a standard deviation, `axial` along the line of sight; `grid` pulls points towards
the middles of voxels; `lines` is the distance between the lines of a scanner.

Shapes: the first n of points (3, m); N of the cloud.
"""

from __future__ import annotations

import math

import numpy as np

from foundry3d.data.programs.kernels import relaxed, relaxed_part
from foundry3d.data.programs.numbers import bell, uniform

Array = np.ndarray
SENSE, FRAME = 20, 13
_REACH = 1.2
"""Half the width of the image, in radii."""
_FAR = np.float32(1e9)


@relaxed_part
def _middle(x: Array) -> float:
    low = high = x[0]
    for i in range(x.shape[0]):
        low, high = min(low, x[i]), max(high, x[i])
    return (low + high) / 2


@relaxed
def frame_of(points: Array, n: int, sense: Array, frame: Array) -> None:
    """Writes middle, radius, and the camera's axes to the right, up and towards it: (FRAME,)."""
    x, y, z = points[0, :n], points[1, :n], points[2, :n]
    a, b, c, square = _middle(x), _middle(y), _middle(z), 1e-12
    frame[0], frame[1], frame[2] = a, b, c
    for i in range(x.shape[0]):
        far = (x[i] - a) ** 2 + (y[i] - b) ** 2 + (z[i] - c) ** 2
        square = max(square, far)
    frame[3] = math.sqrt(square)
    a, b, c = sense[1], sense[2], sense[3]
    flat = math.sqrt(a * a + b * b)
    frame[4], frame[8] = 1.0, 1.0
    if flat > 1e-6:
        frame[4], frame[5] = -b / flat, a / flat
        frame[7], frame[8], frame[9] = -a * c / flat, -b * c / flat, flat
    frame[10], frame[11], frame[12] = a, b, c


@relaxed
def holes_of(points: Array, n: int, holes: Array, state: Array) -> None:
    """Fills the middles of holes (H, 3) with points of the surface."""
    for k in range(holes.shape[0]):
        i = int(uniform(state) * n)
        holes[k, 0], holes[k, 1], holes[k, 2] = points[0, i], points[1, i], points[2, i]


@relaxed_part
def focus_of(distance: float) -> float:
    """By which a camera at more than one radius scales, so that a unit ball fills radius 1."""
    return math.sqrt(max(distance * distance - 1.0, 0.01)) if distance > 0 else 1.0


@relaxed
def project(frame: Array, distance: float, points: Array, image: Array) -> None:
    """Writes where the camera sees each point, to the right and up, and its distance: (3, n).

    Whatever lies within the radius of the frame is seen within radius 1.
    """
    right, up, depth = image[0], image[1], image[2]
    n = right.shape[0]
    x, y, z = points[0, :n], points[1, :n], points[2, :n]
    focus = focus_of(distance)
    for i in range(x.shape[0]):
        p, q, r = (x[i] - frame[0]), (y[i] - frame[1]), (z[i] - frame[2])
        a = (frame[4] * p + frame[5] * q + frame[6] * r) / frame[3]
        b = (frame[7] * p + frame[8] * q + frame[9] * r) / frame[3]
        c = (frame[10] * p + frame[11] * q + frame[12] * r) / frame[3]
        scale = focus / (distance - c) if distance > 0 else focus
        right[i], up[i] = a * scale, b * scale
        depth[i] = (distance if distance > 0 else 2.0) - c


@relaxed_part
def _pixel(a: float, size: int) -> int:
    """Row or column of a pixel; the outermost stay empty."""
    return min(max(int((a / _REACH + 1) / 2 * size), 1), size - 2)


@relaxed
def depth_image(image: Array, distance: float) -> Array:
    """Distance of the nearest surface in each pixel (S, S), very large where there is none.

    A pixel without a point on the nearest surface, between two pixels that have one, takes the
    farther of their distances: back sides do not shine through gaps between points. Pixels are
    larger where a camera is near, and points of the front lie farther apart.
    """
    nearest = focus_of(distance) / max(distance - 1.0, 0.1) if distance > 0 else 1.0
    size = max(int(math.sqrt(0.35 * image.shape[1]) / nearest), 8)
    near, out = np.empty((size, size), np.float32), np.empty((size, size), np.float32)
    near[:], out[:] = _FAR, _FAR
    for n in range(image.shape[1]):
        i, j = _pixel(image[0, n], size), _pixel(image[1, n], size)
        near[i, j] = min(near[i, j], np.float32(image[2, n]))
    for i in range(1, size - 1):
        for j in range(1, size - 1):
            if near[i, j] < _FAR:
                a = max(near[i - 1, j], near[i + 1, j])
                b = max(near[i, j - 1], near[i, j + 1])
                c = max(near[i - 1, j - 1], near[i + 1, j + 1])
                d = max(near[i - 1, j + 1], near[i + 1, j - 1])
                out[i, j] = min(near[i, j], min(min(a, b), min(c, d)))
    return out


@relaxed
def tolerance(size: int) -> float:
    """How far behind the nearest surface a point of the same pixel is still seen, in radii."""
    return 3 * _REACH / size


@relaxed_part
def _seen(image: Array, n: int, depth: Array, sense: Array, state: Array) -> bool:
    """Whether the camera keeps point n of an image (3, n)."""
    a, b, c, size = image[0, n], image[1, n], image[2, n], depth.shape[0]
    if c > depth[_pixel(a, size), _pixel(b, size)] + tolerance(size):
        return False
    for k in range(6, 6 + 3 * int(sense[5]), 3):
        if (a - sense[k]) ** 2 + (b - sense[k + 1]) ** 2 < sense[k + 2] ** 2:
            return False
    if sense[19] > 0:
        part = b / sense[19]
        if part - math.floor(part) > 0.4:
            return False
    if sense[12] > 0:
        nearest = max(sense[4] - 1, 0.1) if sense[4] > 0 else 1.0
        return uniform(state) < (nearest / c) ** sense[12]
    return True


@relaxed
def pick(
    points: Array, count: int, image: Array, depth: Array, holes: Array, reach: float,
    sense: Array, state: Array,
) -> int:  # fmt: skip
    """Moves those of the first `count` points that the sensor keeps forward; returns how many."""
    kept = 0
    x, y, z = points[0, :count], points[1, :count], points[2, :count]
    for n in range(count):
        a, b, c = x[n], y[n], z[n]
        keep = True
        for k in range(holes.shape[0]):
            far = (a - holes[k, 0]) ** 2 + (b - holes[k, 1]) ** 2 + (c - holes[k, 2]) ** 2
            keep = keep and far > reach * reach
        if keep and sense[0] > 0:
            keep = _seen(image, n, depth, sense, state)
        if keep:
            x[kept], y[kept], z[kept] = a, b, c
            kept += 1
    return kept


@relaxed
def pooled(points: Array, found: int, pool: Array, kept: int) -> int:
    """Appends `found` points to the `kept` ones of `pool` (3, m); returns how many there are."""
    for n in range(min(found, pool.shape[1] - kept)):
        for d in range(3):
            pool[d, kept] = points[d, n]
        kept += 1
    return kept


@relaxed
def choose(pool: Array, kept: int, out: Array, state: Array) -> None:
    """Fills `out` (3, N) with N of the `kept` points of `pool` (3, m), in random order."""
    for n in range(out.shape[1]):
        other = n + int(uniform(state) * (kept - n))
        for d in range(3):
            out[d, n] = pool[d, other]
            pool[d, other] = pool[d, n]


@relaxed
def disturb(points: Array, sense: Array, frame: Array, state: Array) -> None:
    """Adds noise, outliers and the grid of a voxel map to points (3, N), in place."""
    radius = frame[3]
    noise, step = sense[15] * radius, sense[18] * radius
    for d in range(3):
        if step > 0:  # most of the way to the middle of a voxel
            for n in range(points.shape[1]):
                middle = (math.floor(points[d, n] / step) + 0.5) * step
                points[d, n] += 0.6 * (middle - points[d, n])
        if noise > 0 and sense[16] == 0:
            for n in range(points.shape[1]):
                points[d, n] += noise * bell(state)
    for n in range(points.shape[1]):
        if noise > 0 and sense[16] > 0:
            shift = noise * bell(state)
            for d in range(3):
                points[d, n] += shift * frame[10 + d]
        if sense[17] > 0 and uniform(state) < sense[17]:
            for d in range(3):
                points[d, n] = frame[d] + radius * (2 * uniform(state) - 1) * 0.8


@relaxed
def normalise(points: Array, out: Array) -> None:
    """Writes points (3, N) to `out` (N, 3), their mean at the origin and the farthest at norm 1."""
    x, y, z = points[0], points[1], points[2]
    a, b, c = x.mean(), y.mean(), z.mean()
    square = 1e-20
    for n in range(x.shape[0]):
        square = max(square, (x[n] - a) ** 2 + (y[n] - b) ** 2 + (z[n] - c) ** 2)
    scale = 1 / math.sqrt(square)
    for n in range(x.shape[0]):
        out[n, 0] = (x[n] - a) * scale
        out[n, 1] = (y[n] - b) * scale
        out[n, 2] = (z[n] - c) * scale
