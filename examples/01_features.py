"""Features of point clouds from an untrained backbone and a student of it, on the CPU."""

import foundry3d
from foundry3d.data import procedural


def main() -> None:
    import torch

    clouds = procedural.generate(4, points=1024, seed=0)
    points = torch.from_numpy(clouds.points)  # (4, 1024, 3)
    teacher = foundry3d.Backbone.preset("vit_t")  # or foundry3d.load("runs/teacher/model")
    student = foundry3d.Student.from_teacher(teacher, supertokens=16)
    with torch.inference_mode():
        tokens = student(points)
    print("features   ", tuple(tokens.features.shape))
    print("centers    ", tuple(tokens.centers.shape))
    print("assignment ", tuple(tokens.assignment.shape))
    print("encoded    ", tokens.tokens_used.tolist(), "of", tokens.centers.shape[1], "tokens")


if __name__ == "__main__":
    main()
