"""Closed forms of the paper's costs (Table 1, Appendix C).

Symbols as in the paper: S supertokens, N input tokens, D width, nh heads, d hidden width of the
gate, L blocks, R merged tokens of a cloud, U = N - R.

The paper's forms add up three kinds of operations, which `Terms` keeps apart: products with weights
(the only kind in the paper's tables, which were counted with the `calflops` library), products of
activations (attention, assignment), and normalisations. `Terms.linear` must therefore be twice the
multiply-accumulates that are counted on the modules.
"""

from __future__ import annotations

from typing import NamedTuple


class Terms(NamedTuple):
    """FLOPs of one cloud, by kind.

    Attributes:
        linear: products with weights.
        products: products of activations with each other.
        other: normalisations.
    """

    linear: float
    products: float = 0.0
    other: float = 0.0

    @property
    def total(self) -> float:
        """The value of the paper's formula."""
        return self.linear + self.products + self.other

    def plus(self, *others: Terms) -> Terms:
        """The sum, kind by kind."""
        return Terms(*map(sum, zip(self, *others, strict=True)))


def mlp(*, N: int, D: int) -> Terms:
    """Equation 7: an MLP of hidden ratio 4."""
    return Terms(16 * N * D**2)


def self_attention(*, N: int, D: int) -> Terms:
    """Equation 8: 4 N D (2 D + N)."""
    return Terms(8 * N * D**2, 4 * N**2 * D)


def transformer(*, L: int, N: int, D: int) -> Terms:
    """Equation 10: 4 L N D (N + 6 D)."""
    block = self_attention(N=N, D=D).plus(mlp(N=N, D=D))
    return Terms(*(L * term for term in block))


def dso(*, S: int, N: int, D: int) -> Terms:
    """Equation 12: 4 D^2 (S + N) + 4 S N D."""
    return Terms(4 * D**2 * (S + N), 4 * S * N * D)


def map_entries(*, S: int, N: int, nh: int) -> int:
    """Nh S N: one-hot maps of N tokens onto S supertokens, one for each head (equation 13)."""
    return nh * S * N


def cau(*, S: int, N: int, D: int, nh: int) -> Terms:
    """Equation 14: 2 S N (2 nh + D) + 16 N D^2, with an MLP of ratio 4."""
    return Terms(mlp(N=N, D=D).linear, 2 * S * N * D, 4 * map_entries(S=S, N=N, nh=nh))


def gate(*, N: int, D: int, d: int) -> Terms:
    """Equation 15: 4 N D d."""
    return Terms(4 * N * D * d)


def foundry(*, L: int, S: int, N: int, D: int, nh: int) -> Terms:
    """Equation 19: 4 D^2 (S + 5 N) + 2 S N (3 D + 2 nh) + 4 L S D (S + 6 D)."""
    return transformer(L=L, N=S, D=D).plus(dso(S=S, N=N, D=D), cau(S=S, N=N, D=D, nh=nh))


def foundry_gate(*, L: int, S: int, N: int, D: int, nh: int, d: int, R: int) -> Terms:
    """Equation 23: the gate on all N tokens, DSO and CAU on R, the encoder on S + N - R."""
    return transformer(L=L, N=S + N - R, D=D).plus(
        gate(N=N, D=D, d=d), dso(S=S, N=R, D=D), cau(S=S, N=R, D=D, nh=nh)
    )


def order_transformer(*, L: int, c: float, D: int) -> float:
    """Table 1, first row, without constants: l c^2 d + l c d^2."""
    return L * c**2 * D + L * c * D**2


def order_foundry(*, L: int, S: int, c: int, D: int) -> float:
    """Table 1, second row: encoder l s^2 d + l s d^2, wrapper 2 s c d + c d^2."""
    return order_transformer(L=L, c=S, D=D) + 2 * S * c * D + c * D**2


def order_foundry_gate(*, L: int, S: int, c: int, D: int, r: float) -> float:
    """Table 1, third row: encoder on s + (1 - r) c tokens, wrapper c d + 2 s r c d + c d^2.

    The wrapper is printed as 2 s r d; the total next to it has s r c d, which is what it must be.
    """
    wrapper = c * D + 2 * S * r * c * D + c * D**2
    return order_transformer(L=L, c=S + (1 - r) * c, D=D) + wrapper
