"""`foundry3d embed`: features of the clouds in files, in one archive or in parts.

A file or cloud that cannot be used is reported in one sentence, and the others go on.

Shapes: n clouds, c tokens, d width.
"""

from __future__ import annotations

from pathlib import Path

from foundry3d.checkpoints.folder import load_backbone
from foundry3d.config import EmbedConfig
from foundry3d.embed.archive import Archive, appearing, protocol
from foundry3d.embed.clouds import fewest, finite, in_batches
from foundry3d.embed.folder import embed_parts
from foundry3d.embed.form import in_form
from foundry3d.embed.reading import REPEATED, Reading, asked_budget, policy_of
from foundry3d.embed.scenes import embed_scenes
from foundry3d.errors import InputError
from foundry3d.models.student import Budgeted, Student


def embed(config: EmbedConfig) -> Path:
    """Writes the features of every cloud in the files: `foundry3d embed`.

    The archive holds `names` (n,), `pooled` (n, 2d), `features` (n, c, d), `centers` (n, c, 3)
    float64 in the coordinates of the file, `points_used` (n,), for students `assignment` (n, c),
    and `protocol`, JSON text. With `points_per_token` see `scenes.embed_scenes`; for a folder of
    parts see `folder.embed_parts`.

    Returns:
        Path of the archive.

    Raises:
        InputError: the model cannot be loaded, or none of the clouds can be used; nothing is
            written.
        PartialFailure: some clouds cannot be used; the archive holds the others.
    """
    if config.in_parts:
        return embed_parts(config)
    if config.points_per_token is not None:
        return embed_scenes(config)
    inner = in_form(load_backbone(config.model), config)
    budget = asked_budget(config, inner)
    model = Budgeted(inner, budget) if budget and isinstance(inner, Student) else inner
    least, out, archive = fewest(model), Path(config.out), Archive()
    if config.points is not None and config.points < least:
        raise InputError(f"points must be at least {least} for this model, got {config.points}")
    policy = policy_of(config)
    reading = Reading(config, policy, least, inner.shape)
    files = reading.files()
    with appearing(out) as stream:
        for cloud, tokens in in_batches(model, reading.clouds(files), config.batch_size):
            try:
                archive.add(cloud, finite(cloud, tokens))
            except InputError as error:
                reading.fail(cloud.source, error)
            if len(tokens.centers[0].unique(dim=0)) < model.shape.groups:
                reading.note(cloud.source, REPEATED)
        reading.require(len(archive.names))
        archive.write(stream, protocol(config, policy, budget))
    return reading.finish(out, len(archive.names))
