"""Random numbers by counter, and sine and cosine that a loop can compute for many at once."""

from __future__ import annotations

import math

import numpy as np

from foundry3d.data.programs.kernels import relaxed, relaxed_part

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S32, _S11 = (np.uint64(n) for n in (30, 27, 31, 32, 11))
_LOW = np.uint64(0xFFFFFFFF)
_SIXTEEN = np.uint64(0xFFFF)


@relaxed_part
def mixed(state: np.uint64) -> np.uint64:
    """64 random bits of a state: SplitMix64."""
    x = (state ^ (state >> _S30)) * _FIRST
    x = (x ^ (x >> _S27)) * _SECOND
    return x ^ (x >> _S31)


@relaxed_part
def uniform(state: np.ndarray) -> float:
    """The next number in 0..1 (exclusive) of a generator with state (1,) uint64."""
    state[0] += _GOLDEN
    return float(np.int64(mixed(state[0]) >> _S11)) * 1.1102230246251565e-16


@relaxed_part
def fill_uniform(state: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
    """Fills u and v (n,) with numbers in 0..1 (exclusive)."""
    at = state[0]
    for i in range(u.shape[0]):
        at += _GOLDEN
        x = mixed(at)
        u[i] = (float(np.int64(x >> _S32)) + 0.5) * 2.3283064365386963e-10
        v[i] = (float(np.int64(x & _LOW)) + 0.5) * 2.3283064365386963e-10
    state[0] = at


@relaxed_part
def bell(state: np.ndarray) -> float:
    """A nearly normal number: four uniform ones of 16 bits, summed and standardised."""
    state[0] += _GOLDEN
    x = mixed(state[0])
    total = np.int64(x & _SIXTEEN) + np.int64((x >> np.uint64(16)) & _SIXTEEN)
    total += np.int64((x >> _S32) & _SIXTEEN) + np.int64(x >> np.uint64(48))
    return (total - 131070) * 2.6430099e-5


@relaxed
def sine(turns: float) -> float:
    """The sine of an angle in turns, within 6e-8."""
    r = turns - math.floor(turns + 0.5)
    r = 0.5 - r if r > 0.25 else r
    r = -0.5 - r if r < -0.25 else r
    x = r * 6.283185307179586
    s = x * x
    p = -2.5052108385441720e-8 * s + 2.7557319223985893e-6
    p = (p * s - 1.9841269841269841e-4) * s + 8.3333333333333332e-3
    return x * ((p * s - 1.6666666666666666e-1) * s + 1.0)


@relaxed_part
def cosine(turns: float) -> float:
    """The cosine of an angle in turns, within 6e-8."""
    return sine(turns + 0.25)
