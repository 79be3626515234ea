"""What a sensor keeps of a surface, and what it adds: views, occlusion, density, holes, noise.

    entry  0     1 2 3      4         5          6 7 8   9 10 11  12        13     14
           view  direction  distance  occluders  a b r   a b r    exponent  holes  radius
    entry  15     16     17        18    19
           noise  axial  outliers  grid  lines

Lengths are multiples of the program's radius. The camera is in `direction` (a unit vector) at
`distance` (0 = infinitely far); an occluder is a disc in its image. With a view, density falls with
the distance from the camera to the power `exponent`.
"""

from __future__ import annotations

import math

import numpy as np

from foundry3d.data.programs.drawing import uniform
from foundry3d.geometry.jit import unchecked

SENSE = 20
TURN = 2 * math.pi
_REACH = 1.2
"""Half the width of the image, in radii."""


@unchecked
def frame_of(points: np.ndarray, count: int, sense: np.ndarray) -> np.ndarray:
    """Middle, radius, and the camera's axes to the right, up and towards it: (13,) numbers."""
    frame = np.zeros(13)
    for d in range(3):
        low = high = float(points[0, d])
        for i in range(1, count):
            low, high = min(low, points[i, d]), max(high, points[i, d])
        frame[d] = (low + high) / 2
    square = 1e-12
    for i in range(count):
        x, y, z = points[i, 0] - frame[0], points[i, 1] - frame[1], points[i, 2] - frame[2]
        square = max(square, x * x + y * y + z * z)
    frame[3] = math.sqrt(square)
    x, y, z = sense[1], sense[2], sense[3]
    flat = math.sqrt(x * x + y * y)
    if flat < 1e-6:
        frame[4], frame[8] = 1.0, 1.0
    else:
        frame[4], frame[5] = -y / flat, x / flat
        frame[7], frame[8], frame[9] = -x * z / flat, -y * z / flat, flat
    frame[10], frame[11], frame[12] = x, y, z
    return frame


@unchecked
def _image(
    frame: np.ndarray, distance: float, x: float, y: float, z: float
) -> tuple[float, float, float]:
    """Where the camera sees a point, to the right and up, and how far it is from the camera."""
    x, y, z = (x - frame[0]) / frame[3], (y - frame[1]) / frame[3], (z - frame[2]) / frame[3]
    a = frame[4] * x + frame[5] * y + frame[6] * z
    b = frame[7] * x + frame[8] * y + frame[9] * z
    c = frame[10] * x + frame[11] * y + frame[12] * z
    if distance > 0:
        scale = distance / (distance - c)
        return a * scale, b * scale, distance - c
    return a, b, 2 - c


@unchecked
def _pixel(a: float, b: float, size: int) -> tuple[int, int]:
    """Row and column of a pixel; the outermost stay empty."""
    i, j = int((a / _REACH + 1) / 2 * size), int((b / _REACH + 1) / 2 * size)
    return min(max(i, 1), size - 2), min(max(j, 1), size - 2)


@unchecked
def depth_image(points: np.ndarray, count: int, frame: np.ndarray, distance: float) -> np.ndarray:
    """Distance of the nearest surface in each pixel (S, S), inf where there is none.

    A pixel without a point on the nearest surface, between two pixels that have one, takes the
    farther of their distances: back sides do not shine through gaps between points.
    """
    size = max(int(math.sqrt(0.35 * count)), 8)
    near = np.full((size, size), np.inf, np.float32)
    for n in range(count):
        a, b, c = _image(frame, distance, points[n, 0], points[n, 1], points[n, 2])
        i, j = _pixel(a, b, size)
        near[i, j] = min(near[i, j], np.float32(c))
    out = np.full((size, size), np.inf, np.float32)
    for i in range(1, size - 1):
        for j in range(1, size - 1):
            if near[i, j] < np.inf:
                across = min(
                    max(near[i - 1, j], near[i + 1, j]), max(near[i, j - 1], near[i, j + 1])
                )
                along = min(
                    max(near[i - 1, j - 1], near[i + 1, j + 1]),
                    max(near[i - 1, j + 1], near[i + 1, j - 1]),
                )
                out[i, j] = min(near[i, j], min(across, along))
    return out


@unchecked
def tolerance(size: int) -> float:
    """How far behind the nearest surface a point of the same pixel is still seen, in radii."""
    return 1.5 * 2 * _REACH / size


@unchecked
def _kept(
    sense: np.ndarray,
    frame: np.ndarray,
    depth: np.ndarray,
    holes: np.ndarray,
    state: np.ndarray,
    x: float,
    y: float,
    z: float,
) -> bool:
    for k in range(holes.shape[0]):
        r, s, t = x - holes[k, 0], y - holes[k, 1], z - holes[k, 2]
        if r * r + s * s + t * t < (sense[14] * frame[3]) ** 2:
            return False
    if sense[0] == 0:
        return True
    a, b, c = _image(frame, sense[4], x, y, z)
    size = depth.shape[0]
    i, j = _pixel(a, b, size)
    if c > depth[i, j] + tolerance(size):
        return False
    for k in range(6, 6 + 3 * int(sense[5]), 3):
        if (a - sense[k]) ** 2 + (b - sense[k + 1]) ** 2 < sense[k + 2] ** 2:
            return False
    if sense[19] > 0 and (b / sense[19]) % 1.0 > 0.4:
        return False
    if sense[12] > 0:
        nearest = max(sense[4] - 1, 0.1) if sense[4] > 0 else 1.0
        return uniform(state) < (nearest / c) ** sense[12]
    return True


@unchecked
def pick(
    points: np.ndarray, first: int, last: int, which: np.ndarray, kept: int, sense: np.ndarray,
    frame: np.ndarray, depth: np.ndarray, holes: np.ndarray, state: np.ndarray,
) -> int:  # fmt: skip
    """Appends the indices of points `first` to `last` that the sensor keeps to `which`."""
    for n in range(first, last):
        if _kept(sense, frame, depth, holes, state, points[n, 0], points[n, 1], points[n, 2]):
            which[kept] = n
            kept += 1
    return kept


@unchecked
def holes_of(points: np.ndarray, count: int, sense: np.ndarray, state: np.ndarray) -> np.ndarray:
    """The middles (H, 3) of missing patches, drawn from the points."""
    holes = np.empty((int(sense[13]), 3))
    for k in range(holes.shape[0]):
        n = int(uniform(state) * count)
        holes[k, 0], holes[k, 1], holes[k, 2] = points[n, 0], points[n, 1], points[n, 2]
    return holes


@unchecked
def choose(
    points: np.ndarray, which: np.ndarray, kept: int, out: np.ndarray, state: np.ndarray
) -> None:
    """Fills `out` (N, 3) with points drawn from the first `kept` of `which`, in random order."""
    for n in range(out.shape[0]):
        other = n + int(uniform(state) * (kept - n))
        i = which[other]
        which[other] = which[n]
        out[n, 0], out[n, 1], out[n, 2] = points[i, 0], points[i, 1], points[i, 2]


@unchecked
def disturb(points: np.ndarray, sense: np.ndarray, frame: np.ndarray, state: np.ndarray) -> None:
    """Adds noise, outliers and the grid of a voxel map to points (N, 3), in place."""
    radius = frame[3]
    for n in range(points.shape[0]):
        if sense[18] > 0:  # most of the way to the middle of a voxel
            step = sense[18] * radius
            for d in range(3):
                middle = (math.floor(points[n, d] / step) + 0.5) * step
                points[n, d] += 0.6 * (middle - points[n, d])
        if sense[15] > 0:
            reach = sense[15] * radius * math.sqrt(-2 * math.log(1 - uniform(state)))
            other = sense[15] * radius * math.sqrt(-2 * math.log(1 - uniform(state)))
            first, second = TURN * uniform(state), TURN * uniform(state)
            if sense[16] > 0:  # along the line of sight alone
                for d in range(3):
                    points[n, d] += reach * math.cos(first) * frame[10 + d]
            else:
                points[n, 0] += reach * math.cos(first)
                points[n, 1] += reach * math.sin(first)
                points[n, 2] += other * math.cos(second)
        if sense[17] > 0 and uniform(state) < sense[17]:
            for d in range(3):
                points[n, d] = frame[d] + radius * (2 * uniform(state) - 1) * 0.8


@unchecked
def normalise(points: np.ndarray) -> None:
    """Moves the mean of points (N, 3) to the origin and scales the farthest to norm 1, in place."""
    count = points.shape[0]
    for d in range(3):
        mean = 0.0
        for n in range(count):
            mean += points[n, d]
        mean /= count
        for n in range(count):
            points[n, d] -= mean
    square = 1e-20
    for n in range(count):
        x, y, z = points[n, 0], points[n, 1], points[n, 2]
        square = max(square, x * x + y * y + z * z)
    scale = 1 / math.sqrt(square)
    for n in range(count):
        for d in range(3):
            points[n, d] *= scale
