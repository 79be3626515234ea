"""The inference form of a model: the same function, its linear algebra merged, packed and chunked.

Exact algebra (`docs/method.md`, "Merged algebra at inference"): BatchNorm is folded into the layer
before it; the half of the tokenizer's third layer that meets the group's maximum is applied once
per group, and the other half is merged with the second layer, because nothing between them is
nonlinear. Groups go through the tokenizer, and clouds through the encoder, in pieces whose
temporaries stay within `MOST_BYTES`, so that they stay in the processor's cache.

Shapes: B clouds, N points, c tokens, k points a group, n tokens encoded, d width, R groups.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from foundry3d.errors import InputError
from foundry3d.heads.classifier import ClassHead
from foundry3d.heads.segmenter import PartHead
from foundry3d.inference.kernels import Activation, FastLinear, fastest, folded, is_compiled
from foundry3d.models.backbone import Tokens
from foundry3d.models.gate import Gate
from foundry3d.models.supertokens import CAU
from foundry3d.models.tokenizer import Position, SingleStage, Tokenizer
from foundry3d.models.upsample import FeatureUpsampling
from foundry3d.models.vit import Block, Encoder, Reduce

log = logging.getLogger("foundry3d")

Precision = Literal["fp32", "bf16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MOST_BYTES = 4 * 2**20
"""No temporary of tokenizer or encoder is larger on the CPU, if a group or cloud fits in it."""
MOST_BYTES_CUDA = 256 * 2**20

Model = TypeVar("Model", bound=nn.Module)


class _Maker:
    """Makes fast layers of one precision and kernel."""

    def __init__(self, dtype: torch.dtype, kernel: str, most_bytes: int) -> None:
        self.dtype, self.kernel, self.most_bytes = dtype, kernel, most_bytes

    def layer(
        self,
        weight: Tensor,
        bias: Tensor | None,
        activation: Activation = "none",
        dtype: torch.dtype | None = None,
    ) -> FastLinear:
        dtype = dtype or self.dtype
        bias = None if bias is None else bias.to(dtype)
        kernel = self.kernel if dtype == self.dtype else "plain"
        return FastLinear(weight.to(dtype), bias, activation=activation, kernel=kernel)

    def of(self, linear: nn.Linear, activation: Activation = "none") -> FastLinear:
        return self.layer(linear.weight, linear.bias, activation)


class FastTokens(nn.Module):
    """A tokenizer for inference, some groups at a time.

    Args:
        widest: width of its largest temporary, for each of R x k points.
        width: of its tokens before `bridge`.
        bridge: applied to all tokens at last.
        make: of the layers.
    """

    def __init__(self, widest: int, width: int, bridge: nn.Module, make: _Maker) -> None:
        super().__init__()
        self.row = widest * torch.empty(0, dtype=make.dtype).element_size()
        self.width, self.bridge = width, bridge
        self.dtype, self.most_bytes = make.dtype, make.most_bytes

    def forward(self, neighborhoods: Tensor) -> Tensor:
        """Tokens (B, c, d) of neighborhoods (B, c, k, 3)."""
        batch, tokens, size, _ = neighborhoods.shape
        step = max(1, self.most_bytes // (size * self.row))
        groups = neighborhoods.flatten(0, 1)
        found = groups.new_empty(batch * tokens, self.width, dtype=self.dtype)
        for piece, out in zip(groups.split(step), found.split(step), strict=True):
            self.write(piece.reshape(-1, 3), out, size)
        return self.bridge(found.view(batch, tokens, -1))

    def write(self, points: Tensor, out: Tensor, size: int) -> None:
        """Writes the tokens (R, width) of groups of `size` points (R k, 3) to `out`."""
        raise NotImplementedError("the tokenizers below define it")


class FastTokenizer(FastTokens):
    """A `Tokenizer` for inference, by the merged algebra."""

    def __init__(self, tokenizer: Tokenizer, make: _Maker) -> None:
        bridge = tokenizer.bridge
        last = make.of(bridge) if isinstance(bridge, nn.Linear) else bridge
        widest = max(part.out_features for part in (tokenizer.widen, tokenizer.mix))
        super().__init__(widest, tokenizer.project.out_features, last, make)
        lift = folded(tokenizer.lift, tokenizer.lift_norm)
        self.lift = make.layer(*lift, "relu", torch.float32)  # coordinates keep their precision
        self.widen = make.of(tokenizer.widen)
        weight, bias = (part.double() for part in folded(tokenizer.mix, tokenizer.mix_norm))
        inner, offset = tokenizer.widen.weight.double(), tokenizer.widen.bias.double()
        group, point = weight.split(tokenizer.widen.out_features, dim=1)
        self.once = make.layer(group, bias + point @ offset)
        self.local = make.layer(point @ inner, None)
        self.project = make.of(tokenizer.project)

    def write(self, points: Tensor, out: Tensor, size: int) -> None:
        """Writes the tokens (R, width) of groups of `size` points (R k, 3) to `out`."""
        lifted = self.lift(points)
        whole = self.once(self.widen(lifted).view(len(out), size, -1).amax(dim=1))
        mixed = self.local(lifted).view(len(out), size, -1)
        mixed.add_(whole[:, None]).relu_()
        torch.amax(self.project(mixed.flatten(0, 1)).view(len(out), size, -1), dim=1, out=out)


class FastSingleStage(FastTokens):
    """A `SingleStage` tokenizer for inference."""

    def __init__(self, tokenizer: SingleStage, make: _Maker) -> None:
        width = tokenizer.widen.out_features
        widest = max(width, tokenizer.lift.out_features)
        super().__init__(widest, width, make.of(tokenizer.project), make)
        lift = folded(tokenizer.lift, tokenizer.lift_norm)
        self.lift = make.layer(*lift, "relu", torch.float32)
        self.widen = make.of(tokenizer.widen)

    def write(self, points: Tensor, out: Tensor, size: int) -> None:
        """Writes the group maxima (R, width) of groups of `size` points (R k, 3) to `out`."""
        widened = self.widen(self.lift(points))
        torch.amax(widened.view(len(out), size, -1), dim=1, out=out)


class FastEncoder(Encoder):
    """An `Encoder` for inference: some clouds at a time, and no block's output is kept."""

    def __init__(self, encoder: Encoder, make: _Maker) -> None:
        nn.Module.__init__(self)
        self.blocks, self.norm, self.most_bytes = encoder.blocks, encoder.norm, make.most_bytes
        self.widest = max(
            (block.fc1.out_features for block in encoder.blocks if isinstance(block, Block)),
            default=1,
        )

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        *,
        bias: Tensor | None = None,
        reduce: Reduce | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Encoded tokens (B, n, d), after the final LayerNorm; `reduce` sees all clouds at once."""
        batch, count, _ = tokens.shape
        step = self.most_bytes // (count * self.widest * tokens.element_size())
        if reduce is not None or step >= batch:
            return super().forward(tokens, positions, bias=bias, reduce=reduce, generator=generator)
        step = max(1, step)
        biases: Iterator[Tensor | None] = iter([None] * batch if bias is None else bias.split(step))
        pieces = zip(tokens.split(step), positions.split(step), biases, strict=False)
        return torch.cat([super(FastEncoder, self).forward(x, p, bias=b) for x, p, b in pieces])


def _folded_into(
    convs: nn.ModuleList, norms: nn.ModuleList, make: _Maker
) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Layers with the norm behind each folded into them, and what stands where the norms were."""
    fast = nn.ModuleList(
        make.layer(*folded(conv, norm))  # type: ignore[arg-type]
        for conv, norm in zip(convs, norms, strict=True)
    )
    return fast, nn.ModuleList(nn.Identity() for _ in norms)


def _part_head(head: PartHead, make: _Maker) -> None:
    """Folds the norms of a part head; the first stands behind a sum of two layers."""
    first = head.norms[0]
    assert isinstance(first, nn.BatchNorm1d)
    head.local = make.layer(*folded(head.local, first))  # type: ignore[assignment]
    head.whole = make.layer(folded(head.whole, first)[0], None)  # type: ignore[assignment]
    convs, norms = _folded_into(head.convs, head.norms[1:], make)
    head.convs, head.norms = convs, nn.ModuleList([nn.Identity(), *norms])
    if head.categories > 1:
        head.label = make.layer(*folded(head.label, head.label_norm))  # type: ignore[assignment]
        head.label_norm = nn.Identity()  # type: ignore[assignment]


def _rewrite(parent: nn.Module, make: _Maker) -> None:
    """Puts fast layers where a module's parts are, in place."""
    match parent:
        case Block() | CAU() | Gate():
            parent.fc1 = make.of(parent.fc1, "gelu")  # type: ignore[assignment]
            parent.activation = nn.Identity()  # type: ignore[assignment]
        case ClassHead():
            parent.hidden, parent.norms = _folded_into(parent.hidden, parent.norms, make)
        case FeatureUpsampling():
            parent.convs, parent.norms = _folded_into(parent.convs, parent.norms, make)
        case PartHead():
            _part_head(parent, make)
    for name, part in list(parent.named_children()):
        match part:
            case Tokenizer():
                setattr(parent, name, FastTokenizer(part, make))
            case SingleStage():
                setattr(parent, name, FastSingleStage(part, make))
            case Position():
                first, _, last = part
                assert isinstance(first, nn.Linear)
                assert isinstance(last, nn.Linear)
                setattr(parent, name, nn.Sequential(make.of(first, "gelu"), make.of(last)))
            case Encoder():
                fast = FastEncoder(part, make)
                _rewrite(fast, make)
                setattr(parent, name, fast)
            case nn.Linear():
                setattr(parent, name, make.of(part))
            case _:
                _rewrite(part, make)


def _cast(model: nn.Module, dtype: torch.dtype) -> None:
    """Brings what is left of a rewritten model to a precision, in place."""
    for part in model.modules():
        if isinstance(part, FastLinear):
            continue
        for parameter in part.parameters(recurse=False):
            parameter.data = parameter.data.to(dtype)
        for name, buffer in list(part.named_buffers(recurse=False)):
            if buffer.is_floating_point():
                setattr(part, name, buffer.to(dtype))


def _as_float(model: nn.Module, inputs: Any, output: Any) -> Any:
    """What a model returns, in float32."""
    if isinstance(output, Tokens):
        return replace(output, features=output.features.float())
    return output.float() if isinstance(output, Tensor) else output


def compile(model: Model, precision: str = "fp32") -> Model:
    """The inference form of a model: same class, same calls, same outputs, faster.

    A copy without gradients, in evaluation mode, on the device of the model. On the CPU the
    quickest linear kernel of this machine is measured and taken. `fp32` gives the model's
    features to 1e-5 relative and the same assignments; `bf16` computes in bfloat16 (but for
    grouping and the first layer, whose input are coordinates) and returns float32, and on a CPU
    that has no quick bfloat16 it says so and computes in float32.

    Args:
        model: a backbone, student, reduced backbone, classifier or segmenter; not changed.
        precision: `fp32` or `bf16`.

    Returns:
        The compiled model. Save and train the one it was made of instead.

    Raises:
        InputError: an unknown precision, or a model that is compiled already.
    """
    if precision not in get_args(Precision):
        raise InputError(f"precision is one of {', '.join(DTYPES)}; got {precision!r}")
    if is_compiled(model):
        raise InputError("the model is compiled already; compile the one it was made of")
    fast = copy.deepcopy(model).eval().requires_grad_(False)
    dtype, kernel, most = DTYPES[precision], "plain", MOST_BYTES_CUDA
    if next(model.parameters()).device.type == "cpu":
        kernel, most = fastest(dtype)[0], MOST_BYTES
        if dtype is torch.bfloat16 and fastest(dtype)[1] > fastest(torch.float32)[1]:
            log.warning("bfloat16 is slower than float32 on this processor, so float32 is used")
            dtype, kernel = torch.float32, fastest(torch.float32)[0]
    with torch.no_grad():
        _rewrite(fast, _Maker(dtype, kernel, most))
        _cast(fast, dtype)
    if dtype is torch.bfloat16:
        fast.register_forward_hook(_as_float)
    return fast
