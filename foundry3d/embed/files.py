"""`foundry3d embed`: the clouds of files through a model into one archive.

A file, or a cloud of it, that cannot be used is named in one sentence and the others go on.

Shapes: n clouds, c tokens, d width.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from foundry3d.checkpoints.folder import load_backbone
from foundry3d.config import EmbedConfig
from foundry3d.embed.clouds import (
    Ready,
    fewest,
    finite,
    in_batches,
    read_policy,
)
from foundry3d.embed.reading import Reading, appearing, asked_budget, protocol
from foundry3d.embed.scenes import embed_scenes
from foundry3d.errors import InputError
from foundry3d.models.backbone import Tokens
from foundry3d.models.student import Budgeted, Student

log = logging.getLogger("foundry3d")


@dataclass
class _Archive:
    """What goes into the archive, a list entry for each cloud."""

    names: list[str] = field(default_factory=list)
    points_used: list[int] = field(default_factory=list)
    tokens: list[Tokens] = field(default_factory=list)

    def add(self, one: Ready, tokens: Tokens) -> None:
        self.names.append(one.source)
        self.points_used.append(len(one.points))
        self.tokens.append(tokens)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of the archive, one row a cloud; see `embed`."""
        found = {
            "names": np.array(self.names),
            "pooled": torch.cat([t.pooled() for t in self.tokens]).numpy(),
            "features": torch.cat([t.features for t in self.tokens]).numpy(),
            "centers": torch.cat([t.centers for t in self.tokens]).numpy(),
            "points_used": np.array(self.points_used),
        }
        assigned = [t.assignment for t in self.tokens if t.assignment is not None]
        return found | {"assignment": torch.cat(assigned).numpy()} if assigned else found


def embed(config: EmbedConfig) -> Path:
    """Writes the features of every cloud in the files: `foundry3d embed`.

    The archive holds `names` (n,), `pooled` (n, 2d), `features` (n, c, d), `centers` (n, c, 3)
    float64 in the file's own coordinates, `points_used` (n,), for students `assignment` (n, c),
    and `protocol`, JSON text. With `points_per_token` see `embed_scene.embed_scenes`.

    Returns:
        The archive.

    Raises:
        InputError: a model that cannot be loaded, or not one cloud that can be used; nothing is
            written.
        PartialFailure: some clouds cannot be used; the archive holds the others.
    """
    if config.points_per_token is not None:
        return embed_scenes(config)
    inner = load_backbone(config.model)
    budget = asked_budget(config, inner)
    model = Budgeted(inner, budget) if budget and isinstance(inner, Student) else inner
    policy, notice = read_policy(config.model, up=config.up, normalise=config.normalise)
    policy = replace(policy, points=config.points, seed=config.seed)
    least, out, archive = fewest(model), Path(config.out), _Archive()
    if config.points is not None and config.points < least:
        raise InputError(f"points must be at least {least} for this model, got {config.points}")
    if notice is not None:
        log.warning("%s", notice)
    reading = Reading(config, policy, least)
    files = reading.files()
    with appearing(out) as stream:
        for one, tokens in in_batches(model, reading.clouds(files), config.batch_size):
            try:
                archive.add(one, finite(one, tokens))
            except InputError as error:
                reading.fail(one.source, error)
            if len(tokens.centers[0].unique(dim=0)) < model.shape.groups:
                reading.note(one.source, "fewer different points than tokens, so tokens repeat")
        reading.require(len(archive.names))
        facts = protocol(config, policy, budget)
        np.savez(stream, **archive.arrays(), protocol=facts)  # type: ignore[arg-type]
    return reading.finish(out, len(archive.names))
