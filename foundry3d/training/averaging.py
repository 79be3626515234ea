"""A moving average of a model's weights over the steps of its training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of a model, to be updated after every step.

    Buffers with a fraction, such as BatchNorm statistics, are averaged like weights, because those
    of the last step do not fit averaged weights; counters are copied.

    Args:
        model: copied; not changed.
        decay: of the average; see `share_of_old`.
    """

    def mixed(old: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
        if not old.is_floating_point():
            return new
        steps = torch.as_tensor(count, device=old.device)
        return old.lerp(new, (1 - share_of_old(steps, decay)).to(old.dtype))

    average = AveragedModel(model, avg_fn=mixed, use_buffers=True)
    average.requires_grad_(False)
    return average


def share_of_old(count: Tensor, decay: float) -> Tensor:
    """The weight of the average after `count` steps in the next one: `decay`, less at first.

    (1 + count) / (10 + count) where that is smaller, so that initial weights are soon forgotten.
    """
    return ((1 + count) / (10 + count)).clamp_max(decay)
