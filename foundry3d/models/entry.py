"""Into the encoder and back: the gated compression of sections 3.2 to 3.4.

`Compression` holds DSO, CAU and gate. It plans which tokens are merged, enters supertokens and the
other tokens into the encoder, and restores a feature for every token. Without a gate every token is
merged. In training every token takes both ways and the gate's choice weighs them, so that the loss
can reach the gate; at inference merged tokens and unused supertokens do not enter at all.

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
        compressed = self.dso.merge(plan.normed, placed, plan.weighted_cam)
        parts = tokens, positions, plan.staying()
        if plan.weight is None:  # no token stays
            parts = parts[0][:, :0], parts[1][:, :0], parts[2][:, :0]
        entered = side_by_side(compressed, *parts, width=plan.width, hide=plan.rows is None)
        return replace(entered, packed=plan.packed)

    def restore(self, tokens: Tensor, plan: Plan, entered: EncoderInput, encoded: Tensor) -> Tensor:
        """Features (B, c, d): of merged tokens by the CAU (equation 5), of others their own row.

        Args:
            tokens: (B, c, d), as given to `plan`.
            plan: from `plan`.
            entered: from `enter`.
            encoded: (B, n, d), the encoder's output for `entered`.
        """
        supertokens, own = entered.split(encoded)
        if plan.weight is None:
            return self.cau(tokens, plan.cam, supertokens)
        weight, rows = plan.weight.unsqueeze(-1), plan.rows
        if rows is None:
            return weight * self.cau(tokens, plan.cam, supertokens) + (1 - weight) * own
        merged = self.cau(gather(tokens, rows), plan.cam, supertokens)
        merged = torch.where(weight > 0.5, merged, gather(own, rows))
        return own.to(merged.dtype).scatter(1, rows.unsqueeze(-1).expand_as(merged), merged)

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
        """The plan in which all tokens take both ways, with a gradient to the gate.

        Merged tokens are hidden from the encoder's keys. As queries they still get the feature that
        they would have without being merged, so that the loss knows what merging them costs.

        Raises:
            InputError: a token budget, which is for inference.
        """
        if budget.token_budget is not None:
            raise InputError("a token_budget is for inference; call eval() on the student first")
        assert self.gate is not None
        probability = self.gate(tokens)
        ranked = probability if budget.merged is None else relative(probability)
        weight = selection(ranked, budget.merged_of(probability, self.ratio)).to(tokens.dtype)
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
        """The plan of an inference with a gate; only tokens that may be merged are assigned.

        Args:
            probability: (B, c) of the gate.
            budget: checked.
            assign: from rows (B, m) to those tokens layer-normed (B, m, d), or None where the
                caller merges them itself, and their map (B, m, s).
        """
        total, wanted = probability.shape[1], budget.token_budget
        count = budget.supertokens or len(self.dso.supertokens)
        if wanted is not None:
            most = total - wanted + count if wanted < total else 0
        else:
            merged = budget.merged_of(probability, self.ratio)
            most = budget.merged if isinstance(budget.merged, int) else int(merged.max())
        rows = by_probability(probability)[:, :most]
        normed, cam = assign(rows)
        if wanted is not None:
            merged = fill_budget(cam, total, wanted)
        return Plan(
            cam=cam,
            normed=normed,
            rows=rows,
            weight=(torch.arange(most, device=cam.device) < merged[:, None]).to(cam.dtype),
            probability=probability,
            # A soft map can leave a supertoken without weight, so its width has to be counted.
            width=None if self.dso.soft else wanted,
            packed=budget.packed,
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which tokens are merged, and into which supertokens.

    Attributes:
        cam: assignment map (B, m, s) of the tokens that the DSO reads; (B, h, m, s) with h heads.
        normed: (B, m, d) those tokens layer-normed; None where a scene merges them in chunks.
        rows: (B, m) int64, their indices, the most probable first; None = all c, in order.
        weight: (B, m), 1 = merged, 0 = stays; with a gradient to the gate in training. None = all
            are merged.
        probability: (B, c) of the gate, None without one.
        width: n, the same for every cloud; None = counted, which waits for an accelerator.
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
    def weighted_cam(self) -> Tensor:
        """The map, with zero rows where a token stays."""
        return self.cam if self.weight is None else self.cam * self.weight.unsqueeze(-1)

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
            return self.cam.new_zeros(len(self.cam), self.cam.shape[-2], dtype=torch.bool)
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

    def encode(self, encoder: Encoder, generator: torch.Generator | None = None) -> Tensor:
        """The encoder's output (B, n, d); the generator is for training mode."""
        if not self.packed:
            return encoder(self.tokens, self.positions, bias=self.bias, generator=generator)
        encoded = torch.zeros_like(self.tokens)
        for n in self.used.unique().tolist():
            clouds = torch.nonzero(self.used == n).flatten()
            encoded[clouds, :n] = encoder(self.tokens[clouds, :n], self.positions[clouds, :n])
        return encoded

    def split(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded supertokens (B, s, d) and the tokens behind them; rows left out are zero."""
        if self.index is not None:
            encoded = scatter_rows(encoded, self.index, self.total)
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
        hide: what is unused or does not stay enters all the same, hidden; else it is left out.
    """
    x = torch.cat([compressed.supertokens, tokens], dim=1)
    placed = torch.cat([compressed.positions, positions], dim=1)
    seen = torch.cat([compressed.used, stays], dim=1)
    used, index, padded = seen.sum(dim=1), None, hide
    if not hide:
        least = width
        if width is None:
            least, width = torch.stack(used.aminmax()).tolist()
        index = seen.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :width]
        padded = least != width
    return EncoderInput(
        tokens=x if index is None else gather(x, index),
        positions=placed if index is None else gather(placed, index),
        bias=key_bias(seen if index is None else seen.gather(1, index), x.dtype)
        if padded
        else None,
        used=used,
        supertokens=compressed.used.shape[1],
        total=seen.shape[1],
        index=index,
    )


def scatter_rows(rows: Tensor, index: Tensor, count: int) -> Tensor:
    """(B, count, d) with rows (B, n, d) at index (B, n), zero elsewhere."""
    target = rows.new_zeros(rows.shape[0], count, rows.shape[-1])
    return target.scatter(1, index.unsqueeze(-1).expand_as(rows), rows)
