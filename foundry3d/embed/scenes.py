"""`foundry3d embed --points_per_token 16`: features of the tokens and points of large clouds.

Shapes: n scenes, N points, c tokens of a scene, T tokens of all, d width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from foundry3d.checkpoints.folder import load_backbone
from foundry3d.config import EmbedConfig, StudentConfig, TruncatedConfig
from foundry3d.data.progress import with_progress
from foundry3d.embed.archive import Archive, appearing, protocol, require_file
from foundry3d.embed.clouds import PreparedCloud, finite, stored_facts
from foundry3d.embed.form import device_of, in_form, moved
from foundry3d.embed.reading import REPEATED, Reading, asked_budget, policy_of
from foundry3d.errors import InputError
from foundry3d.extras import require_extra
from foundry3d.models.backbone import Tokens
from foundry3d.models.budget import Budget
from foundry3d.models.upsample import interpolate
from foundry3d.report.figures import pca_basis, pca_colours
from foundry3d.report.scene_views import View, draw_views, look
from foundry3d.scenes.dense import dense_features
from foundry3d.scenes.memory import SceneMemory, in_bytes, scene_memory
from foundry3d.scenes.scene import Scene, SceneModel, encode_scene, group_scene, require_scene_model
from foundry3d.scenes.windows import encode_windows, zoom
from foundry3d.writing import npy_rows

log = logging.getLogger("foundry3d")

MOST_VIEWS = 6
"""Scenes in one picture."""
BASIS_ROWS = 2**14
"""Tokens of each scene, at most, that the principal directions are computed from."""


@dataclass
class _Picture:
    """Views of the first scenes, coloured once the principal directions of all are known."""

    up: int
    views: list[View] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    tokens: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def add(self, cloud: PreparedCloud, tokens: Tokens) -> None:
        if len(self.views) == MOST_VIEWS:
            return
        self.views.append(look(cloud.points[:, :3].roll(2 - self.up, dims=-1).numpy()))
        count = tokens.features.shape[1]
        self.names.append(
            f"{Path(cloud.source).name}: {len(cloud.points):,} points, {count:,} tokens"
        )
        self.tokens.append((tokens.centers.roll(2 - self.up, dims=-1), tokens.features))

    def draw(self, stream: BinaryIO, model: str) -> None:
        """Writes the PNG; colours are linear in the features, so points interpolate them."""
        rows = torch.cat([features[0, :: -(-features.shape[1] // BASIS_ROWS)]
                          for _, features in self.tokens]).numpy()  # fmt: skip
        mean, directions = pca_basis(rows)
        basis = [torch.from_numpy(part).float() for part in (mean, directions)]
        placed = []
        for view, (centers, features) in zip(self.views, self.tokens, strict=True):
            points = torch.from_numpy(view.points)[None]
            found = interpolate(points, centers, (features - basis[0]) @ basis[1].T)
            placed.append(found[0].numpy())
        colours = pca_colours(np.concatenate(placed), np.zeros(3), np.eye(3))
        parts = np.split(colours, np.cumsum([len(part) for part in placed])[:-1])
        title = f"{model}: features in their three principal directions"
        draw_views(stream, self.views, parts, names=self.names, title=title)


def _walk(source: str) -> Callable[[Sequence[Tensor], str], Iterator[Tensor]]:
    """Goes through the chunks of each stage of a scene and logs the time left."""
    return lambda chunks, doing: with_progress(chunks, f"{source}: {doing}", "chunks")


def _need(model: SceneModel, config: EmbedConfig, points: int) -> SceneMemory:
    """Bytes that a scene needs, without the tokens that a student's gate keeps."""
    assert config.points_per_token is not None
    inner, supertokens, first = model.config, None, 0
    if isinstance(inner, StudentConfig):
        supertokens = inner.supertokens * inner.assignment_heads
        first = inner.supertokens_after
    elif isinstance(inner, TruncatedConfig):
        supertokens, first = 0, inner.backbone.depth
    return scene_memory(
        model.shape,
        points=points,
        tokens=points // config.points_per_token,
        supertokens=supertokens,
        first_blocks=first,
        encoded=config.token_budget,
        window=config.windows,
        output_dim=model.output_dim,
    )


def _encode(
    model: SceneModel, cloud: PreparedCloud, config: EmbedConfig, fit: bool, budget: Budget | None
) -> tuple[Tokens, dict[str, Tensor]]:
    """Tokens of a scene in the model's coordinates, with the `window` (1, c) of each or the `zoom`.

    Raises:
        InputError: attention that is too large, or a budget that cannot be met; names the scene.
    """
    assert config.points_per_token is not None
    walk, points = _walk(cloud.source), cloud.points[None]
    log.info(
        "%s: %d points, %d tokens: needs at most %s in addition to the model",
        *(cloud.source, len(cloud.points), len(cloud.points) // config.points_per_token),
        in_bytes(_need(model, config, len(cloud.points)).peak),
    )
    try:
        scene: Scene = group_scene(model, points, points_per_token=config.points_per_token)
        scene = moved(scene, device_of(config.device))
        if config.windows is not None:
            tokens, window = encode_windows(
                model, scene, config.windows, fit=fit, budget=budget, walk=walk
            )
            return moved(tokens, "cpu"), {"window": window.cpu()}
        larger = config.zoom or (zoom(scene.centers, model.shape.groups) if fit else 1.0)
        scene = replace(scene, scale=scene.scale * larger)
        tokens = encode_scene(model, scene, budget=budget, walk=walk)
        return moved(tokens, "cpu"), {"zoom": torch.tensor([larger], dtype=torch.float64)}
    except InputError as error:
        raise InputError(f"{cloud.source}: {error}") from None


def _write_dense(append: Callable[..., None], cloud: PreparedCloud, tokens: Tokens) -> None:
    walk = _walk(cloud.source)
    for rows in dense_features(
        cloud.points[None, :, :3], tokens.centers, tokens.features, walk=walk
    ):
        append(rows.half().numpy())


def embed_scenes(config: EmbedConfig) -> Path:
    """Writes the features of every token of large clouds: `foundry3d embed --points_per_token`.

    Scenes differ in c, so the archive holds their tokens one after the other: scene i has rows
    `offsets[i]` to `offsets[i + 1]` of `features` (T, d), `centers` (T, 3) float64 in the
    coordinates of the file, for students `assignment` (T,), and with windows `window` (T,),
    numbered within each scene. `names`, `points_used`, `pooled` (n, 2d) and, without windows,
    `zoom` have one row per scene; `protocol` is JSON text.

    With `dense`, a .npy of float16 (sum of points_used, d) holds one feature per point, scene
    after scene, in the order of the file (of a mesh: of the points drawn from it).

    Returns:
        Path of the archive.

    Raises:
        InputError: the model cannot be loaded or does not read scenes, or none of the clouds can
            be used; nothing is written.
        PartialFailure: some clouds cannot be used; the archive holds the others.
    """
    model = load_backbone(config.model)
    require_scene_model(model)
    assert isinstance(model, SceneModel) and config.points_per_token is not None
    budget = asked_budget(config, model)
    model = in_form(model, config)
    policy = policy_of(config)
    least = max(model.shape.group_size, config.points_per_token)
    reading, archive = Reading(config, policy, least, model.shape), Archive(ragged=True)
    out = Path(config.out)
    picture = _Picture("xyz".index(stored_facts(config.model).get("up") or "z"))
    files = reading.files()
    with ExitStack() as stack:
        stream = stack.enter_context(appearing(out))
        drawn = dense = None
        if config.picture is not None:
            require_extra("matplotlib")
            drawn = stack.enter_context(appearing(Path(config.picture), "picture"))
        if config.dense is not None:
            require_file(Path(config.dense), "dense")
            dense = stack.enter_context(npy_rows(config.dense, model.output_dim))
        for cloud in reading.clouds(files):
            try:
                tokens, more = _encode(model, cloud, config, policy.normalise, budget)
                finite(cloud, tokens)
            except InputError as error:
                reading.fail(cloud.source, error)
                continue
            if bool((tokens.centers[0, :-1] == tokens.centers[0, -1]).all(dim=-1).any()):
                reading.note(cloud.source, REPEATED)
            if dense is not None:
                _write_dense(dense, cloud, tokens)
            if drawn is not None:
                picture.add(cloud, tokens)
            archive.add(cloud, replace(tokens, centers=cloud.original(tokens.centers)), **more)
        reading.require(len(archive.names))
        archive.write(stream, protocol(config, policy, budget))
        if drawn is not None:
            picture.draw(drawn, Path(config.model).parent.name or config.model)
    return reading.finish(out, len(archive.names))
