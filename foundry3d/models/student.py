"""The student: a backbone whose encoder sees supertokens, and as many tokens as a budget allows.

Shapes: B clouds, N points, c tokens, s supertokens, d width, n tokens encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from foundry3d.config import (
    BackboneConfig,
    StudentConfig,
    StudentOptions,
    SupertokenOptions,
    from_dict,
    to_dict,
)
from foundry3d.errors import InputError
from foundry3d.geometry import Groups
from foundry3d.models.backbone import Backbone, Grouped, Tokens
from foundry3d.models.budget import Budget, candidates, choose, profile
from foundry3d.models.entry import Entry, by_length, enter_dense, enter_planned, plan_merging
from foundry3d.models.gate import Gate
from foundry3d.models.supertokens import CAU, DSO, key_bias
from foundry3d.models.vit import initialise


def student_config(
    teacher: BackboneConfig, options: SupertokenOptions | None = None, **changes: Any
) -> StudentConfig:
    """Sizes of a student of a teacher, without dropout.

    Args:
        teacher: sizes of the teacher.
        options: how the student differs from it; None = the defaults of `StudentOptions`.
        changes: fields of `StudentOptions` that replace those of `options`.

    Raises:
        InputError: options that do not fit the teacher, or of a student without supertokens.
    """
    chosen = from_dict(StudentOptions, to_dict(options or StudentOptions()) | changes)
    if chosen.kind != "supertokens":
        raise InputError(f"expected a student of kind supertokens, got kind {chosen.kind}")
    if chosen.group_size is not None and chosen.group_size > teacher.group_size:
        raise InputError(
            f"a student reads groups of at most the teacher's {teacher.group_size} points, got "
            f"group_size {chosen.group_size}"
        )
    widths = chosen.point_widths or teacher.point_widths
    width = teacher.token_dim or teacher.dim
    dim = chosen.dim or teacher.dim
    shape = replace(
        teacher,
        dim=dim,
        depth=chosen.depth or teacher.depth,
        heads=chosen.heads or max(1, dim * teacher.heads // teacher.dim),
        token_dim=None if width == dim else width,
        point_widths=widths,
        tokenizer_dim=teacher.tokenizer_dim if len(widths) == 3 else None,
        group_size=chosen.group_size or teacher.group_size,
        class_token=False,
        dropout=0.0,
        attention_dropout=0.0,
        drop_path=0.0,
    )
    shared = {f.name: getattr(chosen, f.name) for f in fields(SupertokenOptions)}
    return StudentConfig(
        backbone=shape, output_dim=None if dim == teacher.dim else teacher.dim, **shared
    )


class Student(Grouped):
    """A backbone whose encoder sees s supertokens instead of c tokens (the paper's Figure 1).

    Args:
        config: sizes; see `StudentConfig`.
        generator: of the initial weights; None = torch's default one.
    """

    def __init__(self, config: StudentConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self._build(config.backbone)
        dim = config.backbone.dim
        self.dso = DSO(
            dim,
            config.supertokens,
            soft=config.soft_assignment,
            bias=config.dso_bias,
            learned_positions=config.supertoken_positions,
            temperature=config.temperature,
            heads=config.assignment_heads,
        )
        self.cau = CAU(dim, norm=config.cau_norm, heads=config.assignment_heads)
        self.gate = Gate(dim) if config.gate else None
        same = self.output_dim == dim
        self.output = nn.Identity() if same else nn.Linear(dim, self.output_dim)
        initialise(self, generator=generator)
        nn.init.trunc_normal_(self.dso.supertokens, generator=generator)

    @classmethod
    def from_teacher(
        cls,
        teacher: Backbone,
        options: SupertokenOptions | None = None,
        *,
        generator: torch.Generator | None = None,
        **changes: Any,
    ) -> Student:
        """A student that starts from the teacher's weights.

        Tokenizer and position are copied; the encoder too when its sizes match. `dim=192` makes
        the paper's ViT-T student: tokens stay at the teacher's width, are brought to 192 for
        DSO, encoder and CAU, and back at the end. A tokenizer of other widths starts from
        scratch and has to learn the teacher's tokens (`TokenLossConfig`).

        Args:
            teacher: where weights and sizes come from; not changed.
            options: how the student differs from it; None = the defaults of `StudentOptions`.
            generator: of the new weights; None = torch's default one.
            changes: fields of `StudentOptions` that replace those of `options`, e.g.
                `supertokens=4, gate=True`.

        Returns:
            The student, in evaluation mode, on the teacher's device.

        Raises:
            InputError: an unknown option, or one that does not fit the teacher.
        """
        sizes = student_config(teacher.config, options, **changes)
        student = cls(sizes, generator=generator)
        own, shape = teacher.config, sizes.backbone
        parts = ["position"]
        if shape.point_widths == own.point_widths:
            parts.append("tokenizer")
        if (shape.dim, shape.depth, shape.heads) == (own.dim, own.depth, own.heads):
            parts += ["encoder", "token_bridge", "position_bridge"]
        for part in parts:
            getattr(student, part).load_state_dict(getattr(teacher, part).state_dict())
        return student.to(next(teacher.parameters()).device).eval()

    @property
    def output_dim(self) -> int:
        """Width of the returned features: the teacher's."""
        return self.config.output_dim or self.config.backbone.dim

    def encode_tokens(
        self,
        tokens: Tensor,
        centers: Tensor,
        *,
        generator: torch.Generator | None = None,
        **budget: Any,
    ) -> Tokens:
        """Features of the tokenizer's tokens (B, c, d) at centers: compress, encode, reconstruct.

        Args:
            tokens: (B, c, d).
            centers: (B, c, 3).
            generator: of the draws in training mode.
            budget: fields of `models.Budget`.

        Raises:
            InputError: a budget that this student cannot keep.
        """
        entry = self._enter(*self.entering(tokens, centers), Budget(**budget), generator)
        if entry.packed:
            encoded = self._encoded(entry, generator)[-1]
        else:
            encoded = self.encoder(
                entry.tokens, entry.positions, bias=entry.bias, generator=generator
            )
        return Tokens(
            features=self.output(entry.restore(encoded)),
            centers=centers,
            assignment=entry.assignment,
            tokens_used=entry.used,
            probability=entry.probability,
        )

    def block_features(
        self,
        groups: Groups,
        layers: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        **budget: Any,
    ) -> list[Tensor]:
        """Features (B, c, output_dim) after each of these blocks, through assignment and CAU."""
        entry = self._enter(*self.tokens(groups), Budget(**budget), generator)
        encoded = self._encoded(entry, generator)
        return [self.output(entry.restore(encoded[layer])) for layer in layers]

    def budget_for(
        self, *, milliseconds: float, batch: int = 1, points: int = 1024, repeats: int = 9
    ) -> dict[str, int]:
        """The largest budget that this machine keeps: `student(x, **student.budget_for(...))`.

        Every candidate is measured now, as the machine is now, on clouds of random points;
        a threshold cannot promise a time, so the answer is a token budget (with a gate) and s'.

        Args:
            milliseconds: limit of a call, median of the repetitions.
            batch: B, clouds of a call.
            points: N of each cloud.
            repeats: calls at every candidate.

        Returns:
            `supertokens`, and with a gate `token_budget`.

        Raises:
            InputError: a limit that no budget keeps.
        """
        device = next(self.parameters()).device
        clouds = torch.randn(batch, points, 3, generator=torch.Generator().manual_seed(0))
        clouds = clouds.to(device)
        wanted = candidates(self.shape.groups, self.config.supertokens, gated=self.gate is not None)
        with torch.inference_mode():
            timings = profile(partial(self, clouds), wanted, repeats=repeats)
        return choose(timings, milliseconds).budget

    def _encoded(self, entry: Entry, generator: torch.Generator | None) -> list[Tensor]:
        """Output of every block and, last, of the final LayerNorm, each (B, n, d)."""
        x, positions, bias = entry.tokens, entry.positions, entry.bias
        if not entry.packed:
            states = self.encoder.states(x, positions, bias=bias, generator=generator)
            return [*states, self.encoder.norm(states[-1])]
        outputs = [torch.zeros_like(x) for _ in range(len(self.encoder.blocks) + 1)]
        for clouds in by_length(entry.used):
            rows = int(entry.used[clouds[0]])
            states = self.encoder.states(x[clouds, :rows], positions[clouds, :rows])
            for output, state in zip(
                outputs, [*states, self.encoder.norm(states[-1])], strict=True
            ):
                output[clouds, :rows] = state
        return outputs

    def _enter(
        self, tokens: Tensor, positions: Tensor, budget: Budget, generator: torch.Generator | None
    ) -> Entry:
        budget.check(
            gated=self.gate is not None,
            tokens=tokens.shape[1],
            supertokens=self.config.supertokens,
        )
        if self.gate is None:
            normed, cam = self.dso.choose(tokens, generator, budget.supertokens)
            packed = self.dso.merge(normed, positions, cam)
            return Entry(
                packed.supertokens,
                packed.positions,
                key_bias(packed.used, tokens.dtype),
                partial(self.cau, tokens, cam),
                packed.assignment,
                packed.used.sum(dim=1),
            )
        probability = self.gate(tokens)
        ratio = self.config.gate_ratio
        if self.training:
            return enter_dense(
                self.dso,
                self.cau,
                tokens,
                positions,
                probability,
                budget,
                ratio=ratio,
                through=self.config.gate_through,
                generator=generator,
            )
        count = self.config.supertokens if budget.supertokens is None else budget.supertokens
        plan, normed, cam = plan_merging(
            self.dso, tokens, probability, budget, ratio=ratio, count=count
        )
        return enter_planned(
            self.dso, self.cau, tokens, positions, probability, plan, normed, cam, budget.packed
        )


class Budgeted(nn.Module):
    """A student that keeps one budget: points in, `Tokens` out, for whatever takes a model.

    Args:
        student: used as it is.
        budget: fields of `models.Budget`.

    Raises:
        InputError: a budget that the student cannot keep.
    """

    def __init__(self, student: Student, **budget: Any) -> None:
        super().__init__()
        Budget(**budget).check(
            gated=student.gate is not None,
            tokens=student.shape.groups,
            supertokens=student.config.supertokens,
        )
        self.student, self.budget, self.shape = student, budget, student.shape

    def forward(self, points: Tensor) -> Tokens:
        """Features of points (B, N, 3) within the budget."""
        return self.student(points, **self.budget)
