"""Teachers of other projects: Point-JEPA, point2vec, Point-MAE and Point-BERT checkpoints.

The keys of a file go through one table for its source, and every size is taken from its tensors.
What neither the tensors nor the file state (heads, groups, group size of some sources) must be
given; nothing is guessed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

from foundry3d.checkpoints.layouts import LAYOUTS, Keys, recognise, sort_keys
from foundry3d.checkpoints.sizes import read_header
from foundry3d.checkpoints.torch_files import (
    check_tensors,
    hyper_parameters,
    read_torch,
    state_dict,
)
from foundry3d.config import BackboneConfig
from foundry3d.errors import InputError
from foundry3d.models.backbone import Backbone

STORED = {  # our sizes, as Lightning checkpoints store them and as `load_foreign` is given them
    "heads": ("encoder_heads", "num_heads"),
    "groups": ("tokenizer_num_groups", "num_groups"),
    "group_size": ("tokenizer_group_size", "group_size"),
    "radius": ("tokenizer_group_radius", "radius"),
}


def _plain(key: str, tensor: Tensor) -> Tensor:
    """A copy of a tensor in the shape our modules have: 1x1 convolutions are linear layers."""
    if key.startswith("tokenizer.") and tensor.ndim == 3 and tensor.shape[-1] == 1:
        tensor = tensor.squeeze(-1)
    if key in ("class_token", "class_position"):
        tensor = tensor.flatten()
    dtype = torch.int64 if key.endswith("num_batches_tracked") else torch.float32
    return tensor.detach().to(dtype).clone(memory_format=torch.contiguous_format)


def _repair(tensors: dict[str, Tensor], path: Path) -> list[str]:
    """Resets BatchNorm statistics that are not finite, as the sources do; returns notices."""
    notices = []
    for key, tensor in tensors.items():
        if tensor.isfinite().all():
            continue
        if not key.endswith(("running_mean", "running_var")):
            raise InputError(f"{path}: the weights of {key} are not finite numbers")
        tensor.fill_(1.0 if key.endswith("running_var") else 0.0)
        notices.append(f"{key} was not finite and has been reset")
    return notices


def _sizes(tensors: dict[str, Tensor], keys: Keys, path: Path) -> dict[str, Any]:
    """The fields of `BackboneConfig` that the tensors show."""

    def width(key: str) -> int:
        if key not in tensors:
            raise InputError(f"{path}: key {keys.theirs(key)!r} is missing")
        if tensors[key].numel() == 0 or tensors[key].ndim == 0:
            raise InputError(f"{path}: key {keys.theirs(key)!r} is {tuple(tensors[key].shape)}")
        return tensors[key].shape[0]

    depth = len({key.split(".")[2] for key in tensors if key.startswith("encoder.blocks.")})
    for block in range(max(depth, 1)):
        width(f"encoder.blocks.{block}.norm1.weight")
    dim, hidden = width("encoder.norm.weight"), width("encoder.blocks.0.fc1.weight")
    exact = int(dim * (hidden / dim)) == hidden
    bridged = any(key.startswith("tokenizer.bridge.") for key in tensors)
    return {
        "dim": dim,
        "depth": depth,
        "mlp_ratio": hidden / dim if exact else (hidden + 0.5) / dim,
        "qkv_bias": any(key.endswith("attn.qkv.bias") for key in tensors),
        "point_widths": tuple(width(f"tokenizer.{k}.weight") for k in ("lift", "widen", "mix")),
        "point_bias": not tensors.keys().isdisjoint(("tokenizer.lift.bias", "tokenizer.mix.bias")),
        "tokenizer_dim": width("tokenizer.project.weight") if bridged else None,
        "position_dim": width("position.0.weight"),
        "class_token": not tensors.keys().isdisjoint(("class_token", "class_position")),
    }


def _settled(name: str, given: float | None, stored: dict[str, Any], path: Path) -> float | None:
    """A size that tensors do not show: as stored or as given; where it is both, they must agree."""
    key, option = STORED[name]
    value = stored.get(key, given)
    if given is not None and value != given:
        raise InputError(f"{path} was made with {key} {value}, got {option} {given}; leave it out")
    if name == "radius" and value is None:
        return None
    if value is None:
        raise InputError(f"{path} does not say its {name.replace('_', ' ')}; give {option}")
    if not value > 0 or (name != "radius" and not isinstance(value, int)):
        raise InputError(f"{path}: {option} must be a positive number, got {value}")
    return value


def _config(
    sizes: dict[str, Any], given: dict[str, float | None], stored: dict[str, Any], path: Path
) -> BackboneConfig:
    """Sizes from the tensors, and those that are stored or given, once all agree."""
    for key in ("dim", "depth"):
        value = stored.get(f"encoder_{key}", sizes[key])
        if value != sizes[key]:
            raise InputError(f"{path} says encoder_{key} {value}, its tensors {sizes[key]}")
    if stored.get("encoder_add_pos_at_every_layer") is False:
        raise InputError(f"{path} adds positions before its first block only; not supported")
    settled: dict[str, Any] = {k: _settled(k, value, stored, path) for k, value in given.items()}
    if sizes["dim"] % settled["heads"]:
        raise InputError(
            f"{path}: num_heads must divide the width {sizes['dim']}, got {settled['heads']}"
        )
    return BackboneConfig(**sizes, **settled)


def _fill(model: Backbone, tensors: dict[str, Tensor], keys: Keys, path: Path) -> None:
    """Loads the weights of a model on the meta device: every one, and no other."""
    own = model.state_dict()
    for key in [key for key in own if key not in tensors]:
        if not key.endswith("num_batches_tracked"):
            raise InputError(f"{path}: key {keys.theirs(key)!r} is missing")
        tensors[key] = torch.zeros((), dtype=torch.int64)
    for key, tensor in tensors.items():
        if key not in own:
            raise InputError(f"{path}: key {keys.theirs(key)!r} is not known for its source")
        if own[key].shape != tensor.shape:
            raise InputError(
                f"{path}: key {keys.theirs(key)!r} is {tuple(tensor.shape)}, expected "
                f"{tuple(own[key].shape)} from the other sizes"
            )
    model.load_state_dict(tensors, assign=True)


def _sorted_keys(state: dict[str, Any], weights: str, path: Path) -> Keys:
    """The keys of a file by the table of its source, every one explained."""
    layout = recognise(state)
    if layout is None:
        known = ", ".join(dict.fromkeys(entry.source for entry in LAYOUTS))
        raise InputError(f"{path} has keys {sorted(state)[:3]}...; known sources are {known}")
    if weights not in layout.roots:
        raise InputError(
            f"{path}: weights of a {layout.form} {layout.source} file are "
            f"{' or '.join(layout.roots)}, got {weights!r}"
        )
    keys = sort_keys(layout, weights, state)
    if keys.unknown:
        raise InputError(f"{path}: key {keys.unknown[0]!r} is not known for {layout.source}")
    return keys


def load_foreign(
    path: str | Path,
    *,
    num_heads: int | None = None,
    num_groups: int | None = None,
    group_size: int | None = None,
    radius: float | None = None,
    weights: Literal["online", "ema"] = "online",
) -> tuple[Backbone, dict[str, Any]]:
    """The backbone in a checkpoint of another project, in evaluation mode, on the CPU.

    Args:
        path: a Lightning `.ckpt` (Point-JEPA, point2vec) or a `.pth` (Point-MAE, Point-BERT),
            pre-trained or fine-tuned, or their weights as `.safetensors`. Prefixes of data
            parallelism (`module.`) and compilation (`_orig_mod.`) are left out.
        num_heads: attention heads; needed where the file does not store them (`.pth` and
            `.safetensors`).
        num_groups: tokens of each cloud; needed likewise.
        group_size: points per group; needed likewise.
        radius: divides group coordinates; None = as stored, else not at all.
        weights: online, or the moving average that pre-trained files hold as well.

    Returns:
        The backbone, and its provenance: `source`, `form` (pre-trained or fine-tuned), `file`,
        `weights`, `left_out` (keys and key prefixes of other parts) and `notices`.

    Raises:
        InputError: not such a file, a key that is missing or not known, or a size that is
            missing, contradicts the file, or does not fit.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        read_header(path)
        content = load_file(path)
    else:
        content = read_torch(path)
    state = state_dict(content, path)
    keys = _sorted_keys(state, weights, path)
    check_tensors({key: state[key] for key in keys.taken.values()}, path)
    tensors = {ours: _plain(ours, state[theirs]) for ours, theirs in keys.taken.items()}
    notices = _repair(tensors, path)
    given = {"heads": num_heads, "groups": num_groups, "group_size": group_size, "radius": radius}
    config = _config(_sizes(tensors, keys, path), given, hyper_parameters(content), path)
    if config.radius is not None:
        notices.append("groups are the nearest points over the radius, not the points within it")
    with torch.device("meta"):
        model = Backbone(config)
    _fill(model, tensors, keys, path)
    return model.eval(), {
        "source": keys.layout.source,
        "form": keys.layout.form,
        "file": path.name,
        "weights": weights,
        "left_out": keys.left_out,
        "notices": notices,
    }
