"""A model that reads more attributes than before, with the same features until it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch

from foundry3d.config import BackboneConfig
from foundry3d.models.attributes import carried
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.models.truncated import Truncated

M = TypeVar("M", Backbone, Student, Truncated)
LIFT = "tokenizer.lift.weight"


def with_attributes(model: M, attributes: Sequence[str], *, attribute_dropout: float = 0.0) -> M:
    """A copy of a model that reads these attributes, with zero weights for new ones.

    Its features are those of the model, whatever the attributes are, until it is trained. This is
    how a checkpoint of coordinates alone, of this or another project, learns to read attributes.

    Args:
        model: not changed.
        attributes: of the copy, as in `BackboneConfig`; those that the model reads already keep
            their weights, those left out are no longer read.
        attribute_dropout: of the copy.

    Returns:
        The copy, in the mode and on the device of the model.

    Raises:
        InputError: attributes or a probability that `BackboneConfig` refuses.
    """
    old: Any = model.config
    read = {"attributes": tuple(attributes), "attribute_dropout": attribute_dropout}
    shape = replace(model.shape, **read)  # type: ignore[arg-type]
    config: Any = shape if isinstance(old, BackboneConfig) else replace(old, backbone=shape)
    copy = type(model)(config, generator=torch.Generator())
    weights = model.state_dict()
    weights[LIFT] = carried(weights[LIFT], model.shape.attributes, shape.attributes)
    copy.load_state_dict(weights)
    weight = model.some_weight
    return copy.to(weight.device, weight.dtype).train(model.training)
