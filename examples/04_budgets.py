"""One student, any budget: tokens, a threshold, supertokens, or milliseconds."""

import torch

import foundry3d
from foundry3d.data import procedural
from foundry3d.transforms import normalise


def main(points: int = 1024) -> None:
    clouds = procedural.generate(4, points=points, seed=0)
    batch = normalise(torch.from_numpy(clouds.points))
    # foundry3d distill --data.train T.npz --student.gate --budgets.random_ratio --budgets.nested
    teacher = foundry3d.Backbone.preset("vit_t", dim=96, depth=4, heads=3)
    student = foundry3d.Student.from_teacher(teacher, supertokens=16, gate=True)
    with torch.inference_mode():
        for budget in (
            foundry3d.Budget(token_budget=64),  # nothing is merged: the teacher
            foundry3d.Budget(token_budget=32),  # exactly 32 tokens of every cloud enter the encoder
            foundry3d.Budget(ratio=0.5),  # tokens of a fusion probability above 0.5 are merged
            foundry3d.Budget(supertokens=4, ratio=0.0),  # all tokens in the first 4 supertokens
        ):
            tokens = student(batch, budget=budget)
            print(budget, "encoded", tokens.tokens_used.tolist(), tuple(tokens.features.shape))
        budget = student.budget_for(milliseconds=1000, points=points)
        print(
            "within a second, one cloud:",
            budget,
            tuple(student(batch[:1], budget=budget).features.shape),
        )


if __name__ == "__main__":
    main()
