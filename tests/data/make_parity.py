"""Makes the small reference files of `tests/data/parity`, which a plain clone tests against.

    python tests/data/make_parity.py FOLDER_OF_REFERENCE_FILES

`merging`, `sequencer`, `miou` and `upsampling` hold what the reference implementations computed,
cut down to one cloud (upsampling: to 64 points of it; miou: whole, its scores are means over all).

The checkpoints are those of the references with the same keys and containers, but narrower: the
first two blocks, two heads and a part of every width. Their outputs are computed by the functions
below, which share no code with the package. Before anything is cut these functions are held, at
full size, against every output of the references (1e-5), so that what they compute of the narrow
ones stands for the references. Points, sampled indices and centers are the references' own.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

HERE = Path(__file__).parent / "parity"
ROOTS = {  # where each layout keeps tokenizer, positions, blocks and final norm
    "pointjepa.ckpt": ("tokenizer.embedding.encoder.", "positional_encoding.", "student."),
    "point2vec.ckpt": ("tokenizer.embedding.", "positional_encoding.", "student."),
    "pointmae.pth": ("encoder.", "pos_embed.", "blocks."),
    "pointbert.pth": ("encoder.", "pos_embed.", "blocks."),
}
PREFIX = {"pointmae.pth": "module.MAE_encoder.", "pointbert.pth": "module.transformer_q."}
KEPT = {  # of every width in the references' files, the channels that stay
    **{24: [0, 1, 2, 3, 8, 9, 10, 11], 48: [*range(8), *range(16, 24)], 96: [*range(32)]},
    **{128: [*range(8)], 192: [*range(64)], 256: [*range(16)]},
    512: [*range(16), *range(256, 272)],  # the maximum over a group, then the point itself
}
KEPT |= {3 * width: [i + width * j for j in range(3) for i in KEPT[width]] for width in (24, 48)}
META = {"dim": 16, "depth": 2, "heads": 2, "point_widths": [8, 16, 32], "position_dim": 8}
META |= {"predictor_dim": 8, "num_groups": 16, "group_size": 8, "points": 256, "clouds": 1}
HYPER = {"encoder_dim": 16, "encoder_depth": 2, "encoder_heads": 2, "target_layers": [1]}
HYPER |= {"predictor_embed_dim": 8, "predictor_heads": 2}


# ---------------------------------------------------------------- the references, once more


def sampled(cloud: np.ndarray, count: int) -> list[int]:
    """Farthest points of one cloud (N, 3), from index 0."""
    chosen, nearest = [0], np.full(len(cloud), np.inf)
    while len(chosen) < count:
        nearest = np.minimum(nearest, ((cloud - cloud[chosen[-1]]) ** 2).sum(1))
        chosen.append(int(nearest.argmax()))
    return chosen


def grouped(points: np.ndarray) -> tuple[np.ndarray, Tensor, Tensor]:
    """Indices (B, 16), centers (B, 16, 3) and relative neighbourhoods (B, 16, 8, 3)."""
    index = np.stack([sampled(cloud, 16) for cloud in points])
    centers = np.stack([cloud[i] for cloud, i in zip(points, index, strict=True)])
    distance = ((centers[:, :, None] - points[:, None]) ** 2).sum(-1)
    nearest = distance.argsort(-1, kind="stable")[..., :8]
    near = np.stack([cloud[i] for cloud, i in zip(points, nearest, strict=True)])
    return index, torch.from_numpy(centers), torch.from_numpy(near - centers[:, :, None])


def linear(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[name + ".weight"], w.get(name + ".bias"))


def normed(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[name + ".weight"], w[name + ".bias"])


def tokenized(w: dict[str, Tensor], root: str, groups: Tensor) -> Tensor:
    """Tokens (B, c, d): the mini-PointNet as the references write it, over (B*c, 3, k)."""
    x = groups.flatten(0, 1).transpose(1, 2)
    for stage in ("first_conv", "second_conv"):
        x = F.conv1d(x, w[f"{root}{stage}.0.weight"], w.get(f"{root}{stage}.0.bias"))
        names = ("running_mean", "running_var", "weight", "bias")
        x = F.relu(F.batch_norm(x, *(w[f"{root}{stage}.1.{n}"] for n in names)))
        x = F.conv1d(x, w[f"{root}{stage}.3.weight"], w[f"{root}{stage}.3.bias"])
        if stage == "first_conv":
            x = torch.cat([x.max(2, keepdim=True).values.expand_as(x), x], dim=1)
    return x.max(2).values.view(*groups.shape[:2], -1)


def placed(w: dict[str, Tensor], root: str, centers: Tensor) -> Tensor:
    return linear(w, root + "2", F.gelu(linear(w, root + "0", centers)))


def attended(w: dict[str, Tensor], root: str, x: Tensor, heads: int) -> Tensor:
    q, k, v = linear(w, root + "qkv", x).chunk(3, dim=-1)
    mixed = []
    for part in range(heads):
        width = x.shape[-1] // heads
        one = slice(part * width, (part + 1) * width)
        scores = (q[..., one] @ k[..., one].mT / width**0.5).softmax(-1)
        mixed.append(scores @ v[..., one])
    return linear(w, root + "proj", torch.cat(mixed, dim=-1))


def encoded(
    w: dict[str, Tensor], root: str, x: Tensor, positions: Tensor, heads: int
) -> list[Tensor]:
    """The output of every block; positions are added before each."""
    states = []
    while f"{root}blocks.{len(states)}.norm1.weight" in w:
        block = f"{root}blocks.{len(states)}."
        x = x + positions
        x = x + attended(w, block + "attn.", normed(w, block + "norm1", x), heads)
        hidden = F.gelu(linear(w, block + "mlp.fc1", normed(w, block + "norm2", x)))
        x = x + linear(w, block + "mlp.fc2", hidden)
        states.append(x)
    return states


def outputs(name: str, state: dict[str, Tensor], points: np.ndarray, heads: int) -> dict[str, Any]:
    """What the references' files hold for a checkpoint, of points (B, N, 3)."""
    cut = len(PREFIX.get(name, ""))
    w = {k[cut:]: v for k, v in state.items() if k.startswith(PREFIX.get(name, ""))}
    tokenizer, position, encoder = ROOTS[name]
    index, centers, groups = grouped(points)
    tokens, pos = tokenized(w, tokenizer, groups), placed(w, position, centers)
    if "reduce_dim.weight" in w:
        tokens = linear(w, "reduce_dim", tokens)
    x, at = tokens, pos
    if "cls_token" in w:
        x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x], dim=1)
        at = torch.cat([w["cls_pos"].expand(len(x), -1, -1), pos], dim=1)
    hidden = encoded(w, encoder, x, at, heads)
    final = normed(w, "norm" if name in PREFIX else encoder + "norm", hidden[-1])
    found: dict[str, Any] = {"points": points, "tokens": tokens, "output": final[:, -16:]}
    if "cls_token" in w:
        found["cls_output"] = final[:, 0]
    if name == "pointjepa.ckpt":
        found |= {"fps_index": index, "centers": centers, "pos": pos}
        found |= {"hidden": torch.stack(hidden)}
    return found


def predicted(w: dict[str, Tensor], arrays: dict[str, Any], heads: int) -> Tensor:
    """Point-JEPA's predictor of the context (B, n, d) and of the centers asked for."""
    root = "predictor."
    context, seen, asked = (
        torch.as_tensor(arrays[f"predictor_{n}"])
        for n in ("context", "context_centers", "target_centers")
    )
    tokens = linear(w, root + "predictor_embed", context)
    masks = w[root + "mask_token"].expand(len(asked), asked.shape[1], -1)
    at = placed(w, root + "positional_encoding.", torch.cat([seen, asked], dim=1))
    x = torch.cat([tokens, masks], dim=1) + at  # once, unlike in the encoder
    x = encoded(w, root + "predictor.", x, torch.zeros(()), heads)[-1]
    x = normed(w, root + "predictor.norm", x)
    return linear(w, root + "predictor_proj", x[:, -asked.shape[1] :])


# ---------------------------------------------------------------- cutting


def narrowed(tensor: Tensor) -> Tensor:
    for axis, size in enumerate(tensor.shape):
        if size in KEPT:
            tensor = tensor.index_select(axis, torch.tensor(KEPT[size]))
    return tensor.clone()


def small(content: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint with every width cut, and the encoders' third block left out."""
    box = "state_dict" if "state_dict" in content else "base_model"
    last = re.compile(r"(student|teacher\.ema_model|transformer_.\.blocks|MAE_encoder\.blocks)\.bl")
    state = {
        key: narrowed(value)
        for key, value in content[box].items()
        if not (last.search(key) and ".blocks.2." in key)
    }
    hyper = content.get("hyper_parameters", {})
    given = {k: HYPER.get(k, v) for k, v in hyper.items()}
    return content | {box: state} | ({"hyper_parameters": given} if hyper else {})


def agree(mine: dict[str, Any], theirs: Any, name: str) -> None:
    for key, value in mine.items():
        np.testing.assert_allclose(np.asarray(value), theirs[key], atol=1e-5, err_msg=name + key)


def write(name: str, arrays: dict[str, Any]) -> None:
    np.savez_compressed(HERE / name, **{k: np.asarray(v) for k, v in arrays.items()})


def make_checkpoint(name: str, folder: Path) -> None:
    content = torch.load(folder / name, weights_only=True)
    box = "state_dict" if "state_dict" in content else "base_model"
    stem = name.split(".")[0]
    theirs = np.load(folder / f"{stem}.npz")
    agree(outputs(name, content[box], theirs["points"], 3), theirs, stem)
    cut = small(content)
    arrays = outputs(name, cut[box], theirs["points"][:1], 2)
    if stem == "pointjepa":
        agree({"predictor_output": predicted(content[box], theirs, 3)}, theirs, stem)
        arrays["predictor_context"] = theirs["predictor_context"][:1, :, KEPT[48]]
        for key in ("predictor_context_centers", "predictor_target_centers"):
            arrays[key] = theirs[key][:1]
        arrays["predictor_output"] = predicted(cut[box], arrays, 2)
    torch.save(cut, HERE / name)
    write(stem, arrays)


def cut_arrays(folder: Path, name: str, keep: Callable[[str, np.ndarray], np.ndarray]) -> None:
    arrays = np.load(folder / f"{name}.npz")
    write(name, {key: keep(key, arrays[key]) for key in arrays})


def one_cloud(_: str, array: np.ndarray) -> np.ndarray:
    return array[:1] if array.ndim and len(array) == 3 else array


def few_points(key: str, array: np.ndarray) -> np.ndarray:
    return one_cloud(key, array)[:, :64] if key in ("points", "output") else one_cloud(key, array)


def main(folder: Path) -> None:
    HERE.mkdir(exist_ok=True)
    for name in ROOTS:
        make_checkpoint(name, folder)
    for name in ("merging", "sequencer"):
        cut_arrays(folder, name, one_cloud)
    cut_arrays(folder, "upsampling", few_points)
    cut_arrays(folder, "miou", lambda _, array: array)
    (HERE / "meta.json").write_text(json.dumps(META, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
