"""Pre-train a tiny teacher and distil it, from Python, in under a minute on a CPU."""

import tempfile
from dataclasses import replace
from pathlib import Path

from foundry3d.config import DistillConfig, PretrainConfig, StudentOptions, read_recipe
from foundry3d.training.distill import distill
from foundry3d.training.pretrain import pretrain


def main(epochs: int = 2, clouds: int = 256) -> None:
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        recipe = read_recipe(PretrainConfig, "cpu/demo-teacher")
        data = replace(recipe.data, train_clouds=clouds, test=None)
        train = replace(recipe.train, epochs=epochs, warmup_epochs=1)
        pretrain(replace(recipe, out=str(runs / "teacher"), data=data, train=train))
        student = distill(
            replace(
                read_recipe(DistillConfig, "cpu/demo-student"),
                teacher=str(runs / "teacher" / "model"),
                out=str(runs / "s4"),
                student=StudentOptions(supertokens=4),
                data=data,
                train=train,
            )
        )
        print("a student with", student.config.supertokens, "supertokens of", student.shape.groups)


if __name__ == "__main__":
    main()
