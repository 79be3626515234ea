"""The form and the device in which `foundry3d embed` runs a model."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from foundry3d.config import EmbedConfig
from foundry3d.errors import InputError
from foundry3d.inference.compiled import compile as fast_form
from foundry3d.models.backbone import Tokens
from foundry3d.scenes.scene import Scene

Model = TypeVar("Model", bound=nn.Module)
Record = TypeVar("Record", Scene, Tokens)


def device_of(asked: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`; auto is cuda where torch finds it.

    Raises:
        InputError: cuda is asked for, and torch finds none.
    """
    found = torch.cuda.is_available()
    if asked == "cuda" and not found:
        raise InputError("--device cuda: torch finds no such device; leave it out")
    return torch.device("cuda" if found and asked != "cpu" else "cpu")


def in_form(model: Model, config: EmbedConfig, kernel: str | None = None) -> Model:
    """The model on the device that the command asks for, compiled unless it asks for the plain one.

    Args:
        model: to place and compile.
        config: of the command.
        kernel: of the compiled form; None = the fastest one here.

    Raises:
        InputError: the device is missing.
    """
    placed = model.to(device_of(config.device))
    return fast_form(placed, config.precision, kernel=kernel) if config.compile else placed


def moved(record: Record, device: torch.device | str) -> Record:
    """The record with its tensors on a device."""
    held = {field.name: getattr(record, field.name) for field in fields(record)}
    tensors: dict[str, Any] = {k: v.to(device) for k, v in held.items() if isinstance(v, Tensor)}
    return replace(record, **tensors)
