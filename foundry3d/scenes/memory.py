"""How much memory and arithmetic a scene needs, known before anything is computed.

Shapes: N points, c tokens, k points per group, s supertokens, d width, n tokens encoded, h heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from foundry3d.config import BackboneConfig
from foundry3d.config.attributes import width_of
from foundry3d.errors import InputError

MOST_TEMPORARY = 2**25
"""Bytes that all temporaries of a chunk may take: 32 MiB."""
KEPT = 2
"""Factor on temporaries, because allocators keep memory that has been freed."""
MOST_ATTENTION = 2**32
"""Bytes that the attention weights of a block may take: 4 GiB, for 13,377 tokens and 6 heads."""
FLOAT, INDEX = 4, 8
GEOMETRY = 64
"""Bytes per point that sampling and the neighbour search need."""


class Attention(NamedTuple):
    """What an encoder needs for n tokens, with attention over n x n pairs in every head.

    Attributes:
        weights: bytes of the h x n x n attention weights of a block. Fused kernels need less,
            because they never hold all of them; the arithmetic is the same.
        rows: bytes of everything else in an encoder: L + 13 rows of d.
        macs: multiply-accumulates of all blocks, L (4 + 2 r) n d^2 for the linear layers of MLP
            ratio r and 2 L n^2 d for attention.
    """

    weights: int
    rows: int
    macs: int


def attention(shape: BackboneConfig, tokens: int) -> Attention:
    """What an encoder of these sizes needs for `tokens` tokens of one cloud."""
    n, d, blocks = tokens, shape.dim, shape.depth
    hidden = int(d * shape.mlp_ratio)
    return Attention(
        weights=FLOAT * shape.heads * n * n if blocks else 0,
        rows=FLOAT * n * ((blocks + 5) * d + 2 * hidden),
        macs=blocks * (n * (4 * d * d + 2 * d * hidden) + 2 * n * n * d),
    )


def require_attention(shape: BackboneConfig, tokens: int, most: int = MOST_ATTENTION) -> None:
    """Refuses attention over more tokens than memory allows.

    Raises:
        InputError: the attention weights of a block would take more than `most` bytes.
    """
    need = attention(shape, tokens)
    if need.weights > most:
        raise InputError(
            f"attention over {tokens} tokens takes {in_bytes(need.weights)} for the "
            f"{shape.heads} x {tokens} x {tokens} weights of a block, of {in_bytes(most)} allowed, "
            f"and {need.macs / 1e12:.3g} T multiply-accumulates; encode in windows (--windows "
            f"{shape.groups}), or take a student with few supertokens"
        )


def group_bytes(shape: BackboneConfig) -> int:
    """Bytes of the temporaries of one group, from its points to its token and back.

    For each of k points, a layer holds at most one row of its input and three of its output
    (output, norm, ReLU) at once. The rest is per group: 16 rows of the widest vector.
    """
    inner = shape.tokenizer_dim or shape.token_dim or shape.dim
    widths = (
        shape.point_channels,
        *shape.point_widths,
        *((inner,) if len(shape.point_widths) == 3 else ()),
    )
    point = max(a + 3 * b for a, b in pairwise(widths)) + 6
    widest = max(inner, shape.token_dim or 0, shape.dim, shape.position_dim)
    return FLOAT * (shape.group_size * point + 16 * widest)


def groups_at_once(shape: BackboneConfig) -> int:
    """Groups per chunk: as many as fit into `MOST_TEMPORARY`, at least one."""
    return max(1, MOST_TEMPORARY // group_bytes(shape))


@dataclass(frozen=True, kw_only=True)
class SceneMemory:
    """Bytes that a scene needs, in addition to the model and the program.

    Attributes:
        points: N coordinates.
        geometry: temporaries of sampling and of the neighbour search.
        index: the centers and k neighbours of each.
        tokens: c rows of the width, including the result, and the assignment map.
        chunk: temporaries of a chunk of groups.
        encoder: rows and attention weights of the encoder, or of its blocks on all tokens in
            windows, whichever are more.
    """

    points: int
    geometry: int
    index: int
    tokens: int
    chunk: int
    encoder: int

    @property
    def peak(self) -> int:
        """The most bytes needed at once: geometry is done before tokens are computed."""
        later = self.tokens + max(self.chunk, self.encoder)
        return self.points + self.index + max(self.geometry, later)


def scene_memory(
    shape: BackboneConfig,
    *,
    points: int,
    tokens: int,
    supertokens: int | None = None,
    encoded: int | None = None,
    window: int | None = None,
    output_dim: int | None = None,
    first_blocks: int = 0,
) -> SceneMemory:
    """The memory of a scene, from sizes alone.

    Args:
        shape: sizes of the model.
        points: N.
        tokens: c.
        supertokens: of a student, s times its assignment heads, 0 of a truncated one; None = a
            teacher.
        encoded: n, tokens that enter the encoder; None = s, or c for a teacher.
        window: w, tokens per window; None = the scene is encoded as a whole.
        output_dim: width of the features; None = the encoder's.
        first_blocks: blocks that a student runs on all tokens, in windows of `shape.groups`.
    """
    out = output_dim or shape.dim
    if window is not None:
        width, n, together = out, min(window, tokens), max(1, groups_at_once(shape) // window)
    elif supertokens is not None:
        width, n, together = shape.dim + (out if out != shape.dim else 0), encoded or supertokens, 1
    else:
        width, n, together = 2 * shape.dim + out, encoded or tokens, 1
    need = attention(shape, n)
    encoder = together * (need.weights + need.rows)
    if first_blocks and window is None:
        window = min(shape.groups, tokens)
        need = attention(shape, window)
        together = max(1, groups_at_once(shape) // window)
        encoder = max(encoder, together * (need.weights + need.rows))
    maps = 0 if supertokens is None else 2 * FLOAT * tokens * supertokens
    rest = 6 * INDEX * tokens  # gate, assignment, slots, order
    return SceneMemory(
        points=_columns(shape) * FLOAT * points,
        geometry=GEOMETRY * points,
        index=(INDEX * shape.group_size + 6 * FLOAT) * tokens,
        tokens=FLOAT * tokens * width + maps + rest,
        chunk=KEPT * max(MOST_TEMPORARY, group_bytes(shape)),
        encoder=KEPT * encoder,
    )


def _columns(shape: BackboneConfig) -> int:
    """Numbers that are held of each point; those of attributes twice, as given and as read."""
    return shape.point_channels + (width_of(shape.attributes) if shape.attributes else 0)


def in_bytes(size: float) -> str:
    """A number of bytes as text, e.g. 1.5 GB."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
