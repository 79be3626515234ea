"""Folders to share: weights, sizes, provenance and a model card that a hub shows.

A shared folder is an ordinary checkpoint with a `README.md`, so `foundry3d.load` reads
it. Pushing and fetching need the optional `huggingface_hub`; folders need nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foundry3d.checkpoints.folder import Model, load, read_config, save
from foundry3d.checkpoints.foreign import load_foreign
from foundry3d.checkpoints.zoo import shipped
from foundry3d.config import ConvertConfig
from foundry3d.config.attributes import channels
from foundry3d.errors import InputError
from foundry3d.inference.cost import count
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.models.truncated import Truncated

HEAD = """---
library_name: foundry3d
license: {license}
tags: [point-cloud, 3d, self-supervised, distillation]
---

# {title}

{sentence}

```python
import foundry3d

model = foundry3d.load("{title}")
tokens = model(points)  # points (B, N, {columns}): tokens.features (B, {tokens}, {width})
```

"""


def section(heading: str, rows: dict[str, Any]) -> str:
    """A heading and a table of what is known; empty where nothing is."""
    lines = [f"| {key} | {value} |" for key, value in rows.items() if value not in (None, {}, [])]
    return "\n".join([f"## {heading}", "", "| | |", "|---|---|", *lines, "", ""]) if lines else ""


def sizes_of(model: Backbone | Student | Truncated) -> dict[str, str]:
    """Sizes of a model and its cost for one cloud, for a card."""
    cost, shape = count(model), model.shape
    return {
        "encoder": f"{shape.depth} blocks of width {shape.dim}, {shape.heads} heads",
        "tokens": f"{shape.groups} groups of {shape.group_size} points",
        "parameters": f"{cost.params / 1e6:.3f} M",
        "one cloud": f"{cost.macs / 1e9:.4f} GMACs, {cost.flops / 1e9:.4f} GFLOPs",
    }


def card(
    model: Backbone | Student | Truncated, *, title: str, provenance: dict[str, Any], license: str
) -> str:
    """The model card (Markdown): what it is, where it comes from, protocol, scores, cost.

    Args:
        model: its cost is stated for one cloud.
        title: the model's name.
        provenance: as saved with it; `metrics` and `scores` get tables of their own.
        license: of the weights, stated by whoever shares them.
    """
    shape = model.shape
    if isinstance(model, Student):
        sentence = (
            f"A student that compresses {shape.groups} tokens of a point cloud into "
            f"{model.config.supertokens} supertokens and returns all {shape.groups} features, "
            "distilled without labels."
        )
    elif isinstance(model, Truncated):
        sentence = (
            f"A student that predicts {shape.groups} token features of a larger point-cloud "
            f"transformer from its first {shape.depth} blocks, distilled without labels."
        )
    else:
        sentence = f"A point-cloud transformer that returns {shape.groups} token features."
    rest = dict(provenance)
    scores, metrics = rest.pop("scores", {}), rest.pop("metrics", {})
    rest.pop("card", None)  # of a model that ships; this is another card
    origin = {key.replace("_", " "): value for key, value in rest.items()}
    note = (
        f"## Licence\n\n{license}. Weights inherit what the data and the teacher they were made "
        "from allow; check both before use.\n"
    )
    head = HEAD.format(
        license=license,
        title=title,
        sentence=sentence,
        columns=" + ".join(["3", *(f"{channels(name)} {name}" for name in shape.attributes)]),
        tokens=shape.groups,
        width=model.output_dim,
    )
    return (
        head
        + section("Where it comes from", origin)
        + section("Scores", {k: f"{v}" for k, v in scores.items()})
        + section("Last training metrics", {k: f"{v:.4g}" for k, v in metrics.items()})
        + section("Size and cost", sizes_of(model))
        + note
    )


def save_pretrained(
    model: Backbone | Student | Truncated,
    folder: str | Path,
    *,
    provenance: dict[str, Any] | None = None,
    license: str = "other",
) -> Path:
    """Writes a checkpoint folder with a model card.

    Args:
        model: to save.
        folder: to write; its name becomes the model's.
        provenance: where the model comes from; JSON values.
        license: of the weights.

    Returns:
        The folder.

    Raises:
        InputError: the folder exists and was not written by this function or by `save`.
    """
    known = provenance or {}
    text = card(model, title=Path(folder).name, provenance=known, license=license)
    return save(model, folder, provenance=known, files={"README.md": text})


def from_pretrained(name: str | Path) -> Model:
    """The model in a folder, a shipped one, or one of a hub repository `owner/name`.

    It is in evaluation mode.

    Raises:
        InputError: no such folder and no hub library, or the repository cannot be fetched.
    """
    if Path(name).exists() or shipped(name):
        return load(name)
    hub = _hub_library(f"{name} is not a folder here")
    try:
        return load(hub.snapshot_download(str(name)))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{name}: neither a folder nor a repository in reach ({reason})") from None


def push(folder: str | Path, repository: str) -> str:
    """Uploads a checkpoint folder to a hub repository `owner/name`; returns its address.

    Raises:
        InputError: not a checkpoint folder, or the hub library is missing.
    """
    read_config(folder)
    hub = _hub_library("pushing to a hub")
    hub.create_repo(repository, exist_ok=True)
    return str(hub.upload_folder(repo_id=repository, folder_path=str(folder)))


def _hub_library(reason: str) -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise InputError(f'{reason}; a hub needs: pip install "foundry3d[hub]"') from None
    return huggingface_hub


def convert(config: ConvertConfig) -> Path:
    """Reads any checkpoint (another project's file, or a folder) and writes a shareable folder.

    Raises:
        InputError: a checkpoint that cannot be read, one of a model that is neither a backbone nor
            a student, or an output folder that exists.
    """
    source, out = Path(config.model), Path(config.out)
    if out.exists():
        raise InputError(f"{out} exists; choose another --out")
    model: Backbone | Student | Truncated
    if source.is_file():
        model, provenance = load_foreign(
            source,
            num_heads=config.num_heads,
            num_groups=config.num_groups,
            group_size=config.group_size,
            weights=config.weights,
        )
    else:
        provenance = read_config(source)["provenance"]
        found = load(source)
        if not isinstance(found, Backbone | Student | Truncated):
            raise InputError(
                f"{source}: expected a backbone or a student, got a {type(found).__name__}, for "
                "which there is no model card; share its folder as it is"
            )
        model = found
    save_pretrained(model, out, provenance=provenance, license=config.license)
    print(
        f"{out}: {type(model).__name__}, {sum(p.numel() for p in model.parameters()):,} parameters"
    )
    for key in ("source", "form", "weights"):
        if key in provenance:
            print(f"  {key}: {provenance[key]}")
    for kind in ("left_out", "notices"):
        for item in provenance.get(kind, []):
            print(f"  {kind.replace('_', ' ').rstrip('s')}: {item}")
    return out
