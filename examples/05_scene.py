"""One large cloud: a feature of every token and every point, in memory known beforehand."""

import numpy as np
import torch

import foundry3d
from foundry3d.data import procedural
from foundry3d.scenes.dense import dense_features
from foundry3d.scenes.memory import in_bytes, scene_memory
from foundry3d.scenes.scene import encode_scene, group_scene
from foundry3d.scenes.windows import encode_windows
from foundry3d.transforms import normalise


def compose(side: int = 5, points: int = 1024) -> torch.Tensor:
    """Built-in shapes on a square ground, (1, N, 3) in the unit sphere."""
    rng = np.random.default_rng(0)
    shapes = procedural.generate(side * side, points=points, seed=0).points.astype(np.float32)
    grid = np.stack(np.meshgrid(*[np.arange(side) * 3.0] * 2), axis=-1).reshape(-1, 1, 2)
    shapes[..., :2] += grid
    ground = rng.uniform((-2, -2, -1), (3 * side - 1, 3 * side - 1, -1), (8 * points, 3))
    cloud = np.concatenate([shapes.reshape(-1, 3), ground.astype(np.float32)])
    return normalise(torch.from_numpy(cloud)[None])


def main() -> None:
    points = compose()
    teacher = foundry3d.Backbone.preset("vit_t", dim=96, depth=4, heads=3)
    student = foundry3d.compile(foundry3d.Student.from_teacher(teacher, supertokens=16))
    scene = group_scene(student, points)  # a token for every 16 points
    size, count = points.shape[1], scene.centers.shape[1]
    need = scene_memory(student.shape, points=size, tokens=count, supertokens=16)
    print(f"{size} points, {count} tokens, at most {in_bytes(need.peak)} beside the model")
    tokens = encode_scene(student, scene)
    print(
        "student, whole scene  ", tuple(tokens.features.shape), "encoded", int(tokens.tokens_used)
    )
    windows, window = encode_windows(teacher, scene, size=64)
    print("teacher, windows of 64", tuple(windows.features.shape), "windows", int(window.max()) + 1)
    chunks = [len(rows) for rows in dense_features(points, tokens.centers, tokens.features)]
    print("a feature a point     ", sum(chunks), "in", len(chunks), "chunks")


if __name__ == "__main__":
    main()
