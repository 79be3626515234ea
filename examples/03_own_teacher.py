"""Distil a model of one's own: any module that returns token features and their centers."""

import tempfile
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from foundry3d.config import BackboneConfig, DistillConfig, StudentConfig, read_recipe
from foundry3d.models.student import Student
from foundry3d.training.distill import distill


class Output(NamedTuple):
    features: Tensor  # (B, c, d)
    centers: Tensor  # (B, c, 3)


class MyModel(nn.Module):
    """Stands for a network trained elsewhere: 24 tokens of 40 features, nothing of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 40))

    def forward(self, points: Tensor) -> Output:
        centers = points[:, :24]
        context = points.amax(dim=1, keepdim=True).expand_as(centers)
        return Output(self.mlp(torch.cat([centers, context], dim=-1)), centers)


def main(epochs: int = 2, clouds: int = 256) -> None:
    teacher = MyModel()
    sizes = BackboneConfig(
        groups=24, group_size=16, point_widths=(16, 32, 64), dim=32, depth=2, heads=2
    )
    student = Student(StudentConfig(backbone=sizes, supertokens=4, output_dim=40))
    with tempfile.TemporaryDirectory() as folder:
        recipe = read_recipe(DistillConfig, "cpu/demo-student")
        config = replace(
            recipe,
            out=folder,
            frozen="none",  # the student shares no weights with the teacher
            data=replace(recipe.data, train_clouds=clouds, test=None),
            train=replace(recipe.train, epochs=epochs),
        )
        student = distill(config, teacher=teacher, student=student)
    tokens = student(torch.rand(2, 512, 3))
    print("student of a foreign model:", tuple(tokens.features.shape))


if __name__ == "__main__":
    main()
