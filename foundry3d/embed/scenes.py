"""`foundry3d embed --points_per_token 16`: large clouds, token by token and point by point.

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
from foundry3d.config import EmbedConfig
from foundry3d.data.progress import with_progress
from foundry3d.embed.clouds import Ready, finite, read_policy, stored_facts
from foundry3d.embed.reading import Reading, appearing, asked_budget, protocol, require_file
from foundry3d.errors import InputError
from foundry3d.inference.compiled import compile as fast_form
from foundry3d.models.backbone import Tokens
from foundry3d.models.budget import Budget
from foundry3d.models.student import Student
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
"""Scenes on a picture."""
BASIS_ROWS = 2**14
"""Tokens that the main directions of a picture are found from."""


@dataclass
class _Archive:
    """What goes into the archive, a list entry for each scene."""

    names: list[str] = field(default_factory=list)
    points_used: list[int] = field(default_factory=list)
    pooled: list[Tensor] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)
    centers: list[Tensor] = field(default_factory=list)
    assignment: list[Tensor] = field(default_factory=list)
    window: list[Tensor] = field(default_factory=list)
    zoom: list[float] = field(default_factory=list)

    def add(self, one: Ready, tokens: Tokens, way: Tensor | float) -> None:
        self.names.append(one.source)
        self.points_used.append(len(one.points))
        self.pooled.append(tokens.pooled())
        self.features.append(tokens.features[0])
        self.centers.append(one.own(tokens.centers)[0])
        self.assignment += [] if tokens.assignment is None else [tokens.assignment[0]]
        if isinstance(way, Tensor):
            self.window.append(way[0])
        else:
            self.zoom.append(way)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of the archive, the tokens of all scenes one after the other."""
        ends = np.cumsum([0, *(len(rows) for rows in self.features)])
        found = {
            "names": np.array(self.names),
            "points_used": np.array(self.points_used),
            "offsets": ends,
            "pooled": _rows(self.pooled),
            "features": _rows(self.features),
            "centers": _rows(self.centers),
        }
        more = {"assignment": self.assignment, "window": self.window}
        found |= {name: _rows(parts) for name, parts in more.items() if parts}
        return found | ({"zoom": np.array(self.zoom)} if self.zoom else {})


def _rows(parts: list[Tensor]) -> np.ndarray:
    """All rows; of a single part without a copy."""
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).numpy()


@dataclass
class _Picture:
    """What is seen of the first scenes; coloured when the directions of all are known."""

    up: int
    views: list[View] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    tokens: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def add(self, one: Ready, tokens: Tokens) -> None:
        if len(self.views) == MOST_VIEWS:
            return
        self.views.append(look(one.points.roll(2 - self.up, dims=-1).numpy()))
        count = tokens.features.shape[1]
        self.names.append(f"{Path(one.source).name}: {len(one.points):,} points, {count:,} tokens")
        self.tokens.append((tokens.centers.roll(2 - self.up, dims=-1), tokens.features))

    def draw(self, stream: BinaryIO, model: str) -> None:
        """Colours are linear in the features, so those of points are those of tokens between."""
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
        title = f"{model}: features in their three main directions"
        draw_views(stream, self.views, parts, names=self.names, title=title)


def _walk(source: str) -> Callable[[Sequence[Tensor], str], Iterator[Tensor]]:
    """Goes through the chunks of a scene's stages and tells how long they still take."""
    return lambda chunks, doing: with_progress(chunks, f"{source}: {doing}", "chunks")


def _need(model: SceneModel, config: EmbedConfig, points: int) -> SceneMemory:
    """Bytes that a scene takes; of a gated student without the tokens that its gate keeps."""
    assert config.points_per_token is not None
    student, inner = isinstance(model, Student), model.config
    return scene_memory(
        model.shape,
        points=points,
        tokens=points // config.points_per_token,
        supertokens=inner.supertokens * inner.assignment_heads if student else None,  # type: ignore[union-attr]
        encoded=config.token_budget,
        window=config.windows,
        output_dim=model.output_dim,
    )


def _encode(
    model: SceneModel, one: Ready, config: EmbedConfig, fit: bool, budget: Budget | None
) -> tuple[Tokens, Tensor | float]:
    """Tokens of a scene in the model's coordinates, and the window of each or the zoom of all.

    Raises:
        InputError: attention that is too large, or a budget that cannot be kept; names the scene.
    """
    assert config.points_per_token is not None
    walk, points = _walk(one.source), one.points[None]
    log.info(
        "%s: %d points, %d tokens: at most %s beside the model",
        *(one.source, len(one.points), len(one.points) // config.points_per_token),
        in_bytes(_need(model, config, len(one.points)).peak),
    )
    try:
        scene: Scene = group_scene(model, points, points_per_token=config.points_per_token)
        if config.windows is not None:
            return encode_windows(model, scene, config.windows, fit=fit, budget=budget, walk=walk)
        larger = config.zoom or (zoom(scene.centers, model.shape.groups) if fit else 1.0)
        scene = replace(scene, scale=scene.scale * larger)
        return encode_scene(model, scene, budget=budget, walk=walk), larger
    except InputError as error:
        raise InputError(f"{one.source}: {error}") from None


def _write_dense(append: Callable[..., None], one: Ready, tokens: Tokens) -> None:
    walk = _walk(one.source)
    for rows in dense_features(one.points[None], tokens.centers, tokens.features, walk=walk):
        append(rows.half().numpy())


def embed_scenes(config: EmbedConfig) -> Path:
    """Writes the features of every token of large clouds: `foundry3d embed --points_per_token`.

    Scenes differ in c, so the archive holds their tokens one after the other: scene i has rows
    `offsets[i]` to `offsets[i + 1]` of `features` (T, d), `centers` (T, 3) float64 in the file's
    own coordinates, for students `assignment` (T,), with windows `window` (T,), numbered in each
    scene. A row a scene have `names`, `points_used`, `pooled` (n, 2d) and, without windows, `zoom`;
    `protocol` is JSON text.

    With `dense` a .npy of float16 (sum of points_used, d) holds a feature for every point, scene
    after scene, in the order of the file (of a mesh: of the points drawn from it).

    Returns:
        The archive.

    Raises:
        InputError: a model that cannot be loaded or read scenes, or not one cloud that can be
            used; nothing is written.
        PartialFailure: some clouds cannot be used; the archive holds the others.
    """
    model = load_backbone(config.model)
    require_scene_model(model)
    assert isinstance(model, SceneModel) and config.points_per_token is not None
    budget = asked_budget(config, model)
    model = fast_form(model, config.precision)
    policy, notice = read_policy(config.model, up=config.up, normalise=config.normalise)
    policy = replace(policy, points=config.points, seed=config.seed)
    if notice is not None:
        log.warning("%s", notice)
    least = max(model.shape.group_size, config.points_per_token)
    reading, archive, out = Reading(config, policy, least), _Archive(), Path(config.out)
    picture = _Picture("xyz".index(stored_facts(config.model).get("up") or "z"))
    files = reading.files()
    with ExitStack() as stack:
        stream = stack.enter_context(appearing(out))
        drawn = dense = None
        if config.picture is not None:
            drawn = stack.enter_context(appearing(Path(config.picture), "picture"))
        if config.dense is not None:
            require_file(Path(config.dense), "dense")
            dense = stack.enter_context(npy_rows(config.dense, model.output_dim))
        for one in reading.clouds(files):
            try:
                tokens, way = _encode(model, one, config, policy.normalise, budget)
                finite(one, tokens)
            except InputError as error:
                reading.fail(one.source, error)
                continue
            if bool((tokens.centers[0, :-1] == tokens.centers[0, -1]).all(dim=-1).any()):
                reading.note(one.source, "fewer different points than tokens, so tokens repeat")
            if dense is not None:
                _write_dense(dense, one, tokens)
            if drawn is not None:
                picture.add(one, tokens)
            archive.add(one, tokens, way)
        reading.require(len(archive.names))
        facts = protocol(config, policy, budget)
        np.savez(stream, **archive.arrays(), protocol=facts)  # type: ignore[arg-type]
        if drawn is not None:
            picture.draw(drawn, Path(config.model).parent.name or config.model)
    return reading.finish(out, len(archive.names))
