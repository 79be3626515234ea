"""`foundry3d teacher-features`: a model's features, stored one file per cloud for distillation.

Shapes: N points of a cloud, c tokens, d width.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from foundry3d.checkpoints.folder import load_backbone
from foundry3d.checkpoints.policy import stored_facts as model_facts
from foundry3d.config import EmbedConfig, TeacherFeaturesConfig
from foundry3d.config.crops import crop_of
from foundry3d.data import procedural
from foundry3d.data.crops import Up, draw_crop, tree_for
from foundry3d.data.files import Points
from foundry3d.data.stored import FACTS, stored_facts, write_facts, write_stored
from foundry3d.embed.clouds import PreparedCloud, fewest, finite, in_batches, prepare
from foundry3d.embed.reading import Reading, policy_of
from foundry3d.errors import InputError
from foundry3d.extras import require_extra
from foundry3d.inference.compiled import compile as fast_form
from foundry3d.models.backbone import Tokens
from foundry3d.scenes.dense import dense_features
from foundry3d.scenes.scene import SceneModel, encode_scene, group_scene, require_scene_model
from foundry3d.scenes.windows import encode_windows, reach, zoom

log = logging.getLogger("foundry3d")

AXES: tuple[Up, ...] = ("x", "y", "z")
SHAPE_POINTS = 1024
"""Points of a built-in shape where none are asked for."""


def teacher_features(config: TeacherFeaturesConfig) -> Path:
    """Writes what `foundry3d distill --teacher_features` reads; `data.stored` has the layout.

    Points and centers have the coordinates of the files. Names of files begin with the number of
    the cloud, so that their order is that of the data. A folder that was left unfinished is
    continued: files that it holds are kept.

    Returns:
        The folder.

    Raises:
        InputError: the model cannot be loaded or does not read scenes, the folder holds features
            that were made otherwise, or none of the clouds can be used.
        PartialFailure: some clouds cannot be used; the folder holds the others.
    """
    model, out = load_backbone(config.model), Path(config.out)
    if config.points_per_token is not None:
        require_scene_model(model)
    if config.format == "parquet":
        require_extra("pyarrow")
    asked = EmbedConfig(
        files=(config.data,),
        model=config.model,
        out=config.out,
        **{name: getattr(config, name) for name in SHARED},
    )
    if config.crop is not None:
        asked = replace(asked, points=None)
    policy = policy_of(asked)
    per_token = config.points_per_token
    least = fewest(model) if per_token is None else max(model.shape.group_size, per_token)
    reading = Reading(asked, policy, least, model.shape)
    shapes = config.data == "procedural"
    clouds = (
        (prepare(cloud, policy, least, model.shape) for cloud in built_in(config))
        if shapes
        else reading.clouds(reading.files())
    )
    begin(config, out)
    if config.crop is not None:
        reading.trained = None  # of crops, not of whole clouds
        clouds = random_parts(clouds, config, least, reading, fit=policy.normalise)
    used = 0
    names: deque[Path] = deque()

    def missing() -> Iterator[PreparedCloud]:
        nonlocal used
        for i, cloud in enumerate(clouds):
            target = out / f"{i:06d}-{plain(cloud.source)}.{config.format}"
            if target.exists():
                used += 1
                continue
            names.append(target)
            yield cloud

    encoded = (
        in_batches(model, missing(), config.batch_size)
        if per_token is None
        else in_windows(model, missing(), config, fit=policy.normalise)
    )
    for cloud, tokens in encoded:
        target = names.popleft()
        try:
            write(target, cloud, finite(cloud, tokens), config)
            used += 1
        except InputError as error:
            reading.fail(cloud.source, error)
    reading.require(used)
    return reading.finish(out, used)


SHARED = (
    *("points", "samples", "columns", "invalid", "seed", "up", "normalise", "batch_size"),
    *("points_per_token", "windows"),
)
"""Options with the names and meanings of `foundry3d embed`."""


def begin(config: TeacherFeaturesConfig, out: Path) -> None:
    """Makes the folder, or sees that it holds features of the same command.

    Raises:
        InputError: it holds others.
    """
    facts = {"model": config.model, "data": config.data, "format": config.format}
    names = ("per_point", "half", "clouds", "crop", "crops", *SHARED)
    facts |= {name: getattr(config, name) for name in names}
    facts.pop("batch_size")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; --out names a folder")
    before = stored_facts(out)
    if before not in ({}, facts) or (not before and out.exists() and any(out.iterdir())):
        raise InputError(
            f"{out}: expected an empty folder or one of the same command, got another in its "
            f"{FACTS}; name another folder with --out"
        )
    write_facts(out, facts)


def built_in(config: TeacherFeaturesConfig) -> Iterator[Points]:
    """The built-in shapes of the command."""
    size = config.points or SHAPE_POINTS
    clouds = procedural.generate(config.clouds, points=size, seed=2 * config.seed)
    for i, points in enumerate(clouds.points):
        yield Points(points=points, source=f"shape {i}")


def random_parts(
    clouds: Iterable[PreparedCloud],
    config: TeacherFeaturesConfig,
    least: int,
    reading: Reading,
    *,
    fit: bool,
) -> Iterator[PreparedCloud]:
    """Random crops of clouds, each prepared as a cloud; the draws depend on nothing but numbers."""
    assert config.crop is not None
    up, size = config.up or model_facts(config.model).get("up") or "z", config.points
    for i, cloud in enumerate(clouds):
        xyz, crop = cloud.points[:, :3].contiguous().numpy(), crop_of(config.crop)
        if crop.kind != "count":
            crop = replace(crop, size=crop.size / cloud.scale)
        axis, tree = AXES[("xyz".index(up) + cloud.turn) % 3], tree_for(xyz)
        for k in range(config.crops):
            rng = np.random.default_rng([config.seed, i, k])
            try:
                found = draw_crop(
                    xyz, crop, rng, at_least=max(least, size or 1), up=axis, tree=tree
                )
            except InputError as error:
                reading.fail(cloud.source, InputError(f"{cloud.source}: {error}"))
                break
            rows = found.rows
            if size is not None and len(rows) > size:
                rows = rng.choice(rows, size, replace=False)
            yield part_of(cloud, rows, fit=fit)


def part_of(cloud: PreparedCloud, rows: np.ndarray, *, fit: bool) -> PreparedCloud:
    """The points at rows (n,) as a cloud; with `fit` in the unit sphere."""
    points = cloud.points[torch.from_numpy(rows)]
    if not fit:
        return replace(cloud, points=points)
    exact = points[:, :3].double()
    mean, radius = (found[0, 0] for found in reach(exact[None]))
    points[:, :3] = ((exact - mean) / radius).float()
    shift, scale = cloud.shift + mean * cloud.scale, cloud.scale * float(radius)
    return replace(cloud, points=points, shift=shift, scale=scale)


def plain(source: str) -> str:
    """The name of a cloud as part of a file name."""
    return re.sub(r"[^\w.-]+", "_", Path(source).name)[:60].strip("_.") or "cloud"


def in_windows(
    model: object, clouds: Iterable[PreparedCloud], config: TeacherFeaturesConfig, *, fit: bool
) -> Iterator[tuple[PreparedCloud, Tokens]]:
    """Each cloud as a scene with its tokens, centers in the coordinates of the file."""
    assert isinstance(model, SceneModel) and config.points_per_token is not None
    model = fast_form(model)
    for cloud in clouds:
        points = cloud.points[None]
        scene = group_scene(model, points, points_per_token=config.points_per_token)
        if config.windows is not None:
            tokens, _ = encode_windows(model, scene, config.windows, fit=fit)
        else:
            larger = zoom(scene.centers, model.shape.groups) if fit else 1.0
            tokens = encode_scene(model, replace(scene, scale=scene.scale * larger))
        yield cloud, replace(tokens, centers=cloud.original(tokens.centers))


def write(
    target: Path, cloud: PreparedCloud, tokens: Tokens, config: TeacherFeaturesConfig
) -> None:
    """Writes the features of one cloud."""
    kind = np.float16 if config.half else np.float32
    points, centers = cloud.original(cloud.points[None])[0], tokens.centers[0]
    if not config.per_point:
        features = tokens.features[0].numpy().astype(kind)
        write_stored(target, points=narrow(points), features=features, centers=narrow(centers))
        return
    low = points.amin(dim=0)  # near zero, float32 has the details
    places, around = ((part - low).float()[None] for part in (points, centers))
    found = dense_features(places, around, tokens.features)
    rows = [part.numpy().astype(kind) for part in found]
    write_stored(target, points=narrow(points), features=np.concatenate(rows))


def narrow(places: torch.Tensor) -> np.ndarray:
    """Coordinates (n, 3) in float32, or float64 where float32 would change them visibly."""
    exact = places.numpy()
    single = exact.astype(np.float32)
    size = float((exact.max(axis=0) - exact.min(axis=0)).max())
    return single if np.abs(single - exact).max() <= 1e-6 * size else exact
