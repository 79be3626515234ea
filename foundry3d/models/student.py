"""The student: its encoder sees supertokens, and as many tokens as a budget allows.

Shapes: B clouds, N points, c tokens, s supertokens, d width, n rows encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from foundry3d.config import StudentConfig, SupertokenOptions
from foundry3d.config.attributes import width_of
from foundry3d.geometry import Groups
from foundry3d.models.backbone import Backbone, Tokens
from foundry3d.models.budget import Budget, candidates, choose, profile
from foundry3d.models.entry import Compression, EncoderInput, Plan
from foundry3d.models.gate import Gate
from foundry3d.models.inherit import copy_weights
from foundry3d.models.inherit import student_config as student_config
from foundry3d.models.supertokens import CAU, DSO
from foundry3d.models.tokenizer import PointModel
from foundry3d.models.vit import encoder_of, initialise


class Student(PointModel):
    """A backbone whose encoder sees s supertokens instead of c tokens (the paper's Figure 1).

    Args:
        config: sizes; see `StudentConfig`.
        generator: source of the initial weights; None = torch's default one.
    """

    def __init__(self, config: StudentConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__(config.backbone)
        self.config = config
        self.encoder = encoder_of(config.backbone)
        dim = config.backbone.dim
        self.dso = DSO(
            dim,
            config.supertokens,
            soft=config.soft_assignment,
            bias=config.dso_bias,
            learned_positions=config.supertoken_positions,
            temperature=config.temperature_end or config.temperature,
            heads=config.assignment_heads,
        )
        self.cau = CAU(dim, norm=config.cau_norm, heads=config.assignment_heads)
        self.gate = Gate(dim) if config.gate else None
        same = self.output_dim == dim
        self.output = nn.Identity() if same else nn.Linear(dim, self.output_dim)
        initialise(self, generator=generator)
        std = config.supertoken_std
        nn.init.trunc_normal_(self.dso.supertokens, std=std, generator=generator)

    def forward(
        self,
        points: Tensor | Groups,
        *,
        tokens: Tensor | None = None,
        budget: Budget | None = None,
        generator: torch.Generator | None = None,
    ) -> Tokens:
        """The teacher's features, reconstructed from few encoded supertokens (sections 3.1-3.4).

        Args:
            points: (B, N, 3) floating point, N at least groups and group_size, taken as they are,
                with attributes (B, N, 3 + m); or groups of them.
            tokens: (B, c, token width), the tokenizer's output for groups where it exists already.
            budget: how much is computed, e.g. `Budget(token_budget=32)`; None = as the student was
                made. No budget needs training again.
            generator: source of the draws in training mode; None = torch's default one.

        Raises:
            InputError: `geometry.check_points` refuses the points, or the student cannot keep the
                budget.
        """
        compression = self.compression
        # 3.1  Group the points; tokenize each group into T, without its position.
        groups = points if isinstance(points, Groups) else self.group(points, generator=generator)
        tokens, positions = self.begin(groups, tokens, generator)
        # 3.2  Assign each token to a supertoken: the CAM (equations 2 and 3).
        # 3.4  With a gate, only tokens of fusion probability > r, or as many as the budget asks.
        plan = compression.plan(tokens, budget, generator)
        # 3.2  Compress: means of values and positions (equation 4). Other tokens stay.
        entered = compression.enter(tokens, positions, plan)
        # 3.1  Encode.
        encoded = entered.encode(self.encoder, generator, start=self.config.supertokens_after)
        # 3.3  Reconstruct: MLP(T + P + CAM S) (equation 5), at the teacher's width.
        residual = self.residual(tokens, positions)
        features = self.output(compression.restore(residual, plan, entered, encoded))
        return Tokens(
            features=features,
            centers=groups.centers,
            assignment=plan.assignment,
            tokens_used=entered.used,
            probability=plan.probability,
        )

    def block_features(
        self,
        groups: Groups,
        layers: Sequence[int],
        *,
        budget: Budget | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Tensor]:
        """Features (B, c, output_dim) after each of these blocks, reconstructed by the CAU.

        Blocks before `supertokens_after` have a feature for every token, which is taken as it is.

        Args:
            groups: of B clouds.
            layers: indices of blocks, from 0; their output is taken before the final LayerNorm.
            budget: see `forward`.
            generator: source of the draws in training mode.

        Raises:
            InputError: the student cannot keep the budget.
        """
        _, _, after_block = self._traced(groups, None, budget, generator)
        return [after_block(layer) for layer in layers]

    def encode_blocks(
        self,
        groups: Groups,
        layers: Sequence[int],
        *,
        tokens: Tensor | None = None,
        budget: Budget | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tokens, list[Tensor]]:
        """`encode` and `block_features` with one run of the encoder and the same draws."""
        plan, entered, after_block = self._traced(groups, tokens, budget, generator)
        output = Tokens(
            features=after_block(None),
            centers=groups.centers,
            assignment=plan.assignment,
            tokens_used=entered.used,
            probability=plan.probability,
        )
        return output, [after_block(layer) for layer in layers]

    def _traced(
        self,
        groups: Groups,
        tokens: Tensor | None,
        budget: Budget | None,
        generator: torch.Generator | None,
    ) -> tuple[Plan, EncoderInput, Callable[[int | None], Tensor]]:
        """Runs all blocks; the function gives features after one, None = after the final norm."""
        compression, after = self.compression, self.config.supertokens_after
        tokens, positions = self.embed_groups(groups, tokens, generator)
        before = self.encoder.states(tokens, positions, generator=generator, stop=after)
        tokens = [tokens, *before][-1]
        plan = compression.plan(tokens, budget, generator)
        entered = compression.enter(tokens, positions, plan)
        states = self.encoder.states(
            entered.tokens, entered.positions, bias=entered.bias, generator=generator, start=after
        )
        residual = self.residual(tokens, positions)

        def after_block(layer: int | None) -> Tensor:
            if layer is not None and layer < after:
                return self.output(before[layer])
            encoded = self.encoder.norm(states[-1]) if layer is None else states[layer - after]
            return self.output(compression.restore(residual, plan, entered, encoded))

        return plan, entered, after_block

    def begin(
        self,
        groups: Groups,
        tokens: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What DSO and gate read: tokens after `supertokens_after` blocks, and positions (B, c, d).

        Args:
            groups: of B clouds.
            tokens: (B, c, token width), the tokenizer's output where it exists already.
            generator: source of the draws in training mode.
        """
        tokens, positions = self.embed_groups(groups, tokens, generator)
        after = self.config.supertokens_after
        return self.encoder.begin(tokens, positions, after, generator=generator), positions

    def residual(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """What the CAU adds supertokens to: tokens (B, c, d), with positions by default."""
        return tokens + positions if self.config.cau_positions else tokens

    @property
    def compression(self) -> Compression:
        """DSO, CAU and gate as one: which tokens are merged, into the encoder and back."""
        return Compression(
            dso=self.dso,
            cau=self.cau,
            gate=self.gate,
            ratio=self.config.gate_ratio,
            through=self.config.gate_through,
        )

    @property
    def output_dim(self) -> int:
        """Width of the returned features: the teacher's."""
        return self.config.output_dim or self.config.backbone.dim

    @classmethod
    def from_teacher(
        cls,
        teacher: Backbone,
        options: SupertokenOptions | None = None,
        *,
        generator: torch.Generator | None = None,
        **changes: Any,
    ) -> Student:
        """A student that starts from the teacher's weights, in evaluation mode, on its device.

        Tokenizer and position are copied, the encoder too if its sizes match. `dim=192` makes the
        paper's ViT-T student: tokens keep the teacher's width, a Linear leads to 192 for DSO,
        encoder and CAU, and another back at the end. A tokenizer of other widths starts from
        scratch and has to learn the teacher's tokens (`TokenLossConfig`).

        Args:
            teacher: where weights and sizes come from; not changed.
            options: how the student differs from it; None = the defaults of `StudentOptions`.
            generator: of the new weights; None = torch's default one.
            changes: fields of `StudentOptions` that replace those of `options`, e.g.
                `supertokens=4, gate=True`.

        Raises:
            InputError: an unknown option, or one that does not fit the teacher.
        """
        sizes = student_config(teacher.config, options, **changes)
        student = cls(sizes, generator=generator)
        copy_weights(teacher, teacher.config, student, sizes.backbone)
        return student.to(next(teacher.parameters()).device).eval()

    def budget_for(
        self, *, milliseconds: float, batch: int = 1, points: int = 1024, repeats: int = 9
    ) -> Budget:
        """The largest budget that keeps a time on this machine, measured now.

        Every candidate is run on clouds of random points. A threshold cannot promise a time, so
        the answer is a number of supertokens and, with a gate, a token budget.

        Args:
            milliseconds: limit for a call; the median of the repetitions counts.
            batch: B, clouds per call.
            points: N of each cloud.
            repeats: calls of every candidate.

        Raises:
            InputError: every budget takes longer.
        """
        device = next(self.parameters()).device
        width = width_of(self.shape.attributes)
        clouds = torch.randn(batch, points, width, generator=torch.Generator().manual_seed(0))
        clouds = clouds.to(device)
        wanted = candidates(self.shape.groups, self.config.supertokens, gated=self.gate is not None)
        with torch.inference_mode():
            timings = profile(partial(self, clouds), wanted, repeats=repeats)
        return choose(timings, milliseconds).budget


class Budgeted(nn.Module):
    """A student that always keeps the same budget: points in, `Tokens` out.

    Args:
        student: weights are shared.
        budget: of every call.

    Raises:
        InputError: the student cannot keep the budget.
    """

    def __init__(self, student: Student, budget: Budget) -> None:
        super().__init__()
        student.compression.checked(budget, student.shape.groups)
        self.student, self.budget, self.shape = student, budget, student.shape

    def forward(self, points: Tensor) -> Tokens:
        """Features of points (B, N, 3) within the budget."""
        return self.student(points, budget=self.budget)
