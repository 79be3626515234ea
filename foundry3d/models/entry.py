"""Into the encoder and back: the gated compression of sections 3.2 to 3.4.

`Compression` holds DSO, CAU and gate. It plans which tokens are merged, puts supertokens and the
other tokens into the encoder, and restores a feature for every token. Without a gate all are
merged. With one, training weights both features of a token by its choice, so that the loss reaches
it; at inference merged tokens and unused supertokens stay out of the encoder.

Shapes: B clouds, c tokens, s supertokens, d width, m tokens that the DSO reads, n rows encoded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foundry3d.errors import InputError
from foundry3d.geometry import gather
from foundry3d.models.budget import Budget
from foundry3d.models.gate import Gate, by_probability, fill_budget, relative, selection
from foundry3d.models.supertokens import CAU, DSO, Compressed, first_choice, key_bias
from foundry3d.models.vit import Encoder


@dataclass(frozen=True, kw_only=True)
class Compression:
    """The way into a student's encoder and back: `plan`, `enter`, encode, `restore`.

    Attributes:
        dso: compresses tokens into supertokens.
        cau: reconstructs tokens from encoded supertokens.
        gate: decides which tokens are merged; None = all are.
        ratio: r where a budget sets none.
        through: gradients of the features reach the gate (`StudentConfig.gate_through`).
    """

    dso: DSO
    cau: CAU
    gate: Gate | None
    ratio: float = 0.5
    through: bool = True

    def plan(
        self, tokens: Tensor, budget: Budget | None = None, generator: torch.Generator | None = None
    ) -> Plan:
        """Which of the tokens (B, c, d) are merged, and into which supertokens (equation 3).

        Args:
            tokens: (B, c, d), without position.
            budget: how many are merged; None = those above the ratio.
            generator: source of the draws in training mode.

        Raises:
            InputError: the student cannot keep the budget, or a token budget in training mode.
        """
        budget = self.checked(budget, tokens.shape[1])
        if self.gate is None:
            normed, cam = self.dso.choose(tokens, generator, budget.supertokens)
            return Plan(cam=cam, normed=normed)
        if self.dso.training:
            return self.plan_training(tokens, budget, generator)

        def assign(rows: Tensor) -> tuple[Tensor, Tensor]:
            return self.dso.choose(gather(tokens, rows), count=budget.supertokens)

        return self.select(self.gate(tokens), budget, assign)

    def enter(self, tokens: Tensor, positions: Tensor, plan: Plan) -> EncoderInput:
        """Supertokens (equation 4), followed by the tokens that are not merged.

        Args:
            tokens: (B, c, d).
            positions: (B, c, d).
            plan: of these tokens, from `plan`.
        """
        assert plan.normed is not None
        placed = positions if plan.rows is None else gather(positions, plan.rows)
        cam = plan.cam if plan.weight is None else plan.cam * plan.weight.unsqueeze(-1)
        compressed = self.dso.merge(plan.normed, placed, cam)
        parts = tokens, positions, plan.staying()
        if plan.weight is None:  # no token stays
            parts = parts[0][:, :0], parts[1][:, :0], parts[2][:, :0]
        entered = side_by_side(compressed, *parts, width=plan.width, hide=plan.rows is None)
        return replace(entered, packed=plan.packed)

    def restore(self, tokens: Tensor, plan: Plan, entered: EncoderInput, encoded: Tensor) -> Tensor:
        """Features (B, c, d): of merged tokens by the CAU (equation 5), of others their own row.

        Args:
            tokens: (B, c, d), which the CAU adds supertokens to (`Student.residual`).
            plan: from `plan`.
            entered: from `enter`.
            encoded: (B, n, d), the encoder's output for `entered`.
        """
        supertokens, own = entered.split(encoded)
        rows = plan.rows
        read = tokens if rows is None else gather(tokens, rows)
        found = self.cau(read, plan.cam, supertokens)
        if plan.weight is None:
            return found
        weight = plan.weight.unsqueeze(-1)
        if rows is None:
            return weight * found + (1 - weight) * own
        found = torch.where(weight > 0.5, found, gather(own, rows))
        return own.to(found.dtype).scatter(1, rows.unsqueeze(-1).expand_as(found), found)

    def checked(self, budget: Budget | None, tokens: int) -> Budget:
        """The budget for clouds of c tokens, an empty one for None.

        Raises:
            InputError: the student cannot keep it.
        """
        budget, supertokens = budget or Budget(), len(self.dso.supertokens)
        budget.check(gated=self.gate is not None, tokens=tokens, supertokens=supertokens)
        return budget

    def plan_training(
        self, tokens: Tensor, budget: Budget, generator: torch.Generator | None
    ) -> Plan:
        """The plan of training with a gate: both features of every token are computed.

        Merged tokens enter the encoder as queries, not as keys: no other token sees them, and they
        get their feature as if unmerged, so that the loss measures what merging them costs.

        Raises:
            InputError: a token budget, which is for inference.
        """
        if budget.token_budget is not None:
            raise InputError("a token_budget is for inference; call eval() on the student first")
        assert self.gate is not None
        probability = self.gate(tokens)
        ranked = probability if budget.merged is None else relative(probability)
        count = budget.supertokens or len(self.dso.supertokens)
        merged = budget.merged_of(probability, self.ratio, supertokens=count)
        weight = selection(ranked, merged).to(tokens.dtype)
        normed, cam = self.dso.choose(tokens, generator, budget.supertokens)
        return Plan(
            cam=cam,
            normed=normed,
            weight=weight if self.through else weight.detach(),
            probability=probability,
        )

    def select(
        self,
        probability: Tensor,
        budget: Budget,
        assign: Callable[[Tensor], tuple[Tensor | None, Tensor]],
    ) -> Plan:
        """The plan of inference with a gate; only tokens that may be merged are assigned.

        Args:
            probability: (B, c) of the gate.
            budget: checked.
            assign: takes rows (B, m) and returns those tokens layer-normed (B, m, d), or None if
                the caller merges them itself, and their map (B, m, s).
        """
        total, exact = probability.shape[1], budget.exact
        count = budget.supertokens or len(self.dso.supertokens)
        if exact is not None:
            most = total - exact + count if exact < total else 0
        else:
            merged = budget.merged_of(probability, self.ratio, supertokens=count)
            most = budget.merged if isinstance(budget.merged, int) else int(merged.max())
        rows = by_probability(probability)[:, :most]
        normed, cam = assign(rows)
        if exact is not None:
            merged = fill_budget(cam, total, exact)
        return Plan(
            cam=cam,
            normed=normed,
            rows=rows,
            weight=(torch.arange(most, device=cam.device) < merged[:, None]).to(cam.dtype),
            probability=probability,
            # A soft map can leave a supertoken without weight, so its width has to be counted.
            width=None if self.dso.soft else exact,
            packed=budget.packed,
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which tokens are merged, and into which supertokens.

    Attributes:
        cam: assignment map (B, m, s) of the tokens that the DSO reads; (B, h, m, s) with h heads.
        normed: (B, m, d) those tokens layer-normed; None for scenes, which merge them in chunks.
        rows: (B, m) int64, their indices, the most probable first. None = all c, in order; then
            tokens and supertokens that do not count are hidden from the encoder, not left out.
        weight: (B, m), 1 = merged, 0 = stays; with a gradient to the gate in training. None = all
            are merged.
        probability: (B, c) of the gate, None without one.
        width: n, if it is known and the same for every cloud; None = counted, which waits for an
            accelerator.
        packed: see `Budget`.
    """

    cam: Tensor
    normed: Tensor | None = None
    rows: Tensor | None = None
    weight: Tensor | None = None
    probability: Tensor | None = None
    width: int | None = None
    packed: bool = False

    @property
    def assignment(self) -> Tensor:
        """(B, c) int64: the supertoken of each token, -1 = not merged; of the first head."""
        chosen = first_choice(self.cam)
        if self.weight is not None:
            chosen = chosen.masked_fill(self.weight < 0.5, -1)
        if self.rows is None or self.probability is None:
            return chosen
        nothing = chosen.new_full(self.probability.shape, -1)
        return nothing.scatter(1, self.rows, chosen)

    def staying(self) -> Tensor:
        """(B, c) bool: the tokens that are not merged."""
        if self.weight is None:
            return self.cam.new_zeros(self.cam.shape[0], self.cam.shape[-2], dtype=torch.bool)
        stays = self.weight < 0.5
        if self.rows is None or self.probability is None:
            return stays
        return torch.ones_like(self.probability, dtype=torch.bool).scatter(1, self.rows, stays)


@dataclass(frozen=True, kw_only=True)
class EncoderInput:
    """The rows that enter the encoder.

    Attributes:
        tokens: (B, n, d).
        positions: (B, n, d).
        bias: (B, n), -inf hides a row from all queries; None = all are seen.
        used: (B,) int64, rows of each cloud that are not hidden.
        supertokens: s, the supertokens in front, used or not.
        index: (B, n) int64, which of the s supertokens and the tokens behind them a row holds;
            None = all of them, in order.
        total: s plus the tokens behind them.
        packed: clouds of equal length are encoded together, without hidden rows.
    """

    tokens: Tensor
    positions: Tensor
    bias: Tensor | None
    used: Tensor
    supertokens: int
    total: int
    index: Tensor | None = None
    packed: bool = False

    def encode(
        self, encoder: Encoder, generator: torch.Generator | None = None, *, start: int = 0
    ) -> Tensor:
        """The output (B, n, d) of the blocks from `start`; the generator is for training mode."""
        x, at = self.tokens, self.positions
        if not self.packed:
            return encoder(x, at, bias=self.bias, generator=generator, start=start)
        encoded = torch.zeros_like(x)
        for n in self.used.unique().tolist():
            clouds = torch.nonzero(self.used == n).flatten()
            encoded[clouds, :n] = encoder(x[clouds, :n], at[clouds, :n], start=start)
        return encoded

    def split(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded supertokens (B, s, d) and the tokens behind them; rows left out are zero."""
        if self.index is not None:
            zeros = encoded.new_zeros(encoded.shape[0], self.total, encoded.shape[-1])
            encoded = zeros.scatter(1, self.index.unsqueeze(-1).expand_as(encoded), encoded)
        return encoded[:, : self.supertokens], encoded[:, self.supertokens :]


def side_by_side(
    compressed: Compressed,
    tokens: Tensor,
    positions: Tensor,
    stays: Tensor,
    *,
    width: int | None = None,
    hide: bool = False,
) -> EncoderInput:
    """Supertokens, and behind them the tokens that stay.

    Args:
        compressed: s supertokens.
        tokens: (B, q, d).
        positions: (B, q, d).
        stays: (B, q) bool, which of the tokens stay.
        width: n, if it is the same for every cloud; None = counted.
        hide: unused supertokens and tokens that do not stay are hidden; False = they are left out.
    """
    x = torch.cat([compressed.supertokens, tokens], dim=1)
    seen = torch.cat([compressed.used, stays], dim=1)
    everything = EncoderInput(
        tokens=x,
        positions=torch.cat([compressed.positions, positions], dim=1),
        bias=key_bias(seen, x.dtype),
        used=seen.sum(dim=1),
        supertokens=compressed.used.shape[1],
        total=seen.shape[1],
    )
    return everything if hide else compacted(everything, seen, width)


def compacted(rows: EncoderInput, seen: Tensor, width: int | None) -> EncoderInput:
    """The rows that are seen (B, n), cut to `width`; hidden ones only pad shorter clouds."""
    least = width
    if width is None:
        least, width = torch.stack(rows.used.aminmax()).tolist()
    index = seen.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :width]
    return replace(
        rows,
        tokens=gather(rows.tokens, index),
        positions=gather(rows.positions, index),
        bias=None if least == width else key_bias(seen.gather(1, index), rows.tokens.dtype),
        index=index,
    )
