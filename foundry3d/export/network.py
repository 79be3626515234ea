"""What is exported: a model and a budget as one module from tensors to a tuple of named tensors.

Shapes: B clouds, N points, c tokens, k points per group, d width, K categories.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from foundry3d.baselines import FPSStudent, Merged
from foundry3d.checkpoints.folder import Model
from foundry3d.config import BackboneConfig
from foundry3d.errors import InputError
from foundry3d.export.tokenizer import with_merged_tokenizers
from foundry3d.geometry import Groups
from foundry3d.heads.classifier import Classifier, Inner
from foundry3d.heads.segmenter import Segmenter
from foundry3d.models.backbone import Backbone, Tokens
from foundry3d.models.budget import Budget
from foundry3d.models.student import Student

Geometry = Literal["inside", "outside"]


class Network(nn.Module):
    """A model with a fixed budget: points, or groups of them, in; named tensors out.

    Its inputs are `points` (B, N, 3) with the geometry inside. With it outside they are `centers`
    (B, c, 3) and `neighborhoods` (B, c, k, 3), behind the points for a segmenter, which needs
    both. A segmenter of several categories also takes `categories` (B,) int64.

    Args:
        model: weights are shared.
        budget: of every call; None = as the student was made.
        geometry: whether sampling and neighbours are part of it.

    Attributes:
        shape: sizes of the model, with the groups that features are returned for.
        least: the fewest points that a cloud may have.

    Raises:
        InputError: the model cannot keep the budget, keeps a number of tokens that depends on the
            cloud, or makes groups that only it can make.
    """

    def __init__(self, model: Model, budget: Budget | None, geometry: Geometry) -> None:
        super().__init__()
        self.model, self.budget, self.geometry = model, budget, geometry
        inner = inner_of(model)
        self.shape = shape_of(inner)
        self.least = max(self.shape.groups, inner.shape.group_size, self.shape.group_size)
        check_coordinates(inner)
        check_budget(inner, budget)
        if isinstance(inner, Merged) and inner.config.reduction.method == "random":
            raise InputError("random clusters are drawn anew for every batch; no file can do that")
        if geometry == "outside" and isinstance(inner, FPSStudent):
            raise InputError("an FPS-Student makes two sets of groups; export it with the geometry")

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        if isinstance(self.model, Segmenter):
            groups = ("centers", "neighborhoods") * (self.geometry == "outside")
            return ("points", *groups, *(("categories",) * (self.model.head.categories > 1)))
        return ("points",) if self.geometry == "inside" else ("centers", "neighborhoods")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        if isinstance(self.model, Segmenter):
            return ("logits",)
        names = ("features", *(("centers",) * (self.geometry == "inside")), "pooled")
        assigned = ("assignment",) * (not isinstance(inner_of(self.model), Backbone))
        return names + assigned + ("logits",) * isinstance(self.model, Classifier)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The tensors of `outputs` from those of `inputs`."""
        given = dict(zip(self.inputs, inputs, strict=True))
        inner = inner_of(self.model)
        if self.geometry == "inside":
            groups = inner.group(given["points"])
        else:
            groups = Groups(given["centers"], given["neighborhoods"])
        if isinstance(self.model, Segmenter):
            points = given["points"]
            nothing = torch.zeros(points.shape[0], dtype=torch.int64, device=points.device)
            labels = given.get("categories", nothing)
            logits = self.model.answers(points, groups, labels, budget=self.budget)
            return (logits,)
        found: Tokens = inner.encode(groups, budget=self.budget)
        pooled = found.pooled()
        named = {
            "features": found.features,
            "centers": found.centers,
            "pooled": pooled,
            "assignment": found.assignment,
        }
        if isinstance(self.model, Classifier):
            named["logits"] = self.model.head(pooled)
        return tuple(value for name in self.outputs if (value := named[name]) is not None)


def inner_of(model: Model) -> Inner:
    """The backbone or student of a model, which may have a head."""
    return model.backbone if isinstance(model, Classifier | Segmenter) else model


def shape_of(inner: Inner) -> BackboneConfig:
    """Sizes of a model, with the groups that features are returned for."""
    return inner.backbone.shape if isinstance(inner, FPSStudent) else inner.shape


def check_coordinates(inner: Inner) -> None:
    """Requires a model of coordinates alone, the only input that exported files have.

    Raises:
        InputError: the model reads attributes.
    """
    if inner.shape.attributes:
        raise InputError(
            "exported files read coordinates alone, this model also "
            f"{', '.join(inner.shape.attributes)}; export one without them, e.g. distilled with "
            "--student.attributes []"
        )


def check_budget(inner: Inner, budget: Budget | None) -> None:
    """Requires that as many tokens are encoded of every cloud, as a static graph needs.

    Raises:
        InputError: the budget does not fit the model, or leaves the number of tokens open.
    """
    if not isinstance(inner, Student):
        if budget is not None and budget.asked():
            raise InputError(f"{budget}: budgets are for students with supertokens")
        return
    inner.compression.checked(budget, inner.shape.groups)
    fixed = budget is not None and (
        budget.token_budget is not None or isinstance(budget.merged, int)
    )
    if inner.gate is not None and not fixed:
        raise InputError(
            "this student has a gate, so how many tokens it encodes depends on the cloud; fix the "
            "number with --token_budget, e.g. 32"
        )
    if fixed and inner.config.soft_assignment:
        raise InputError("a gated student of soft assignment has no fixed number of tokens")


def example(network: Network, points: Tensor) -> tuple[Tensor, ...]:
    """The inputs of a network for points (B, N, 3), grouped where it takes groups.

    Categories, where it takes them, run through all that it knows.
    """
    values: dict[str, Tensor] = {"points": points}
    if network.geometry == "outside":
        groups = inner_of(network.model).group(points)
        values |= {"centers": groups.centers, "neighborhoods": groups.neighborhoods}
    if isinstance(network.model, Segmenter):
        values["categories"] = torch.arange(points.shape[0]) % network.model.head.categories
    return tuple(values[name] for name in network.inputs)


TRACED_CLOUDS = 3


def traced_points(network: Network) -> int:
    """N of the clouds that a network is recorded with; any other number of points may come."""
    return 2 * network.least + 5


def exported_program(
    network: Network, *, most_clouds: int = 2**16, most_points: int = 2**24
) -> torch.export.ExportedProgram:
    """The network recorded by `torch.export`, for any number of clouds and points.

    Sampling and neighbours stay single operators, `foundry3d::farthest_point_sample` and
    `foundry3d::nearest_neighbors`, which each writer replaces by what its format has.

    Args:
        network: in evaluation mode.
        most_clouds: upper limit of B, for runtimes that plan their memory.
        most_points: upper limit of N, likewise.
    """
    size = traced_points(network)
    points = torch.randn(TRACED_CLOUDS, size, 3, generator=torch.Generator().manual_seed(0))
    batch = torch.export.Dim("B", min=1, max=most_clouds)
    count = torch.export.Dim("N", min=network.least, max=max(most_points, size))
    shapes = {
        "points": {0: batch, 1: count},
        "centers": {0: batch},
        "neighborhoods": {0: batch},
        "categories": {0: batch},
    }
    dynamic = {"inputs": tuple(shapes[name] for name in network.inputs)}
    given = example(network, points)
    with torch.no_grad():
        merged = with_merged_tokenizers(network)
        return torch.export.export(merged, given, dynamic_shapes=dynamic, strict=False)
