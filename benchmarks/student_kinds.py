"""Costs and times of a preset's students of every kind, with random weights.

    python benchmarks/student_kinds.py --model vit_s --clouds 8 --threads 1

GMACs and parameters are those of `foundry3d cost` (tokenizer included, grouping not counted); the
times are medians of the compiled form on clouds of 1,024 points, grouping included, in each of
`--precisions`. All models take turns, so that a busy machine slows all of them alike.
"""

import argparse
from functools import partial
from typing import Any

import torch

import foundry3d
from foundry3d.bench.measure import interleaved, waiting
from foundry3d.config import DistillConfig, StudentOptions
from foundry3d.data import procedural
from foundry3d.inference.cost import count
from foundry3d.models.backbone import Backbone
from foundry3d.report.rows import table
from foundry3d.training.distill import student_of


def kinds(widths: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    """Options of students by name; `widths` are those of the narrow tokenizer."""
    plain: dict[str, dict[str, Any]] = {
        "s = 16": {"supertokens": 16},
        "s = 1": {"supertokens": 1},
        "s = 16 after 1 block": {"supertokens": 16, "supertokens_after": 1},
        "truncated, 0 blocks": {"kind": "truncated", "depth": 0},
        "truncated, 1 block": {"kind": "truncated", "depth": 1},
        "truncated, 2 blocks": {"kind": "truncated", "depth": 2},
        "truncated, 4 blocks": {"kind": "truncated", "depth": 4},
        "truncated, 5 blocks": {"kind": "truncated", "depth": 5},
    }
    light = ("s = 1", "s = 16 after 1 block", *(name for name in plain if "truncated" in name))
    return plain | {f"{name}, narrow": plain[name] | {"point_widths": widths} for name in light}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vit_s")
    parser.add_argument("--clouds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precisions", nargs="+", default=["fp32"], help="fp32, bf16 or both")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    teacher = Backbone.preset(args.model)
    widths = tuple(width // 2 for width in teacher.config.point_widths)
    models: dict[str, torch.nn.Module] = {"teacher": teacher}
    for name, options in kinds(widths).items():
        config = DistillConfig(student=StudentOptions(**options))
        models[name] = student_of(teacher, config).eval()
    models = {name: model.to(args.device) for name, model in models.items()}
    points = torch.from_numpy(procedural.generate(args.clouds, points=1024, seed=0).points).float()
    points = points.to(args.device)
    calls = {
        (name, precision): partial(foundry3d.compile(model, precision), points)
        for name, model in models.items()
        for precision in args.precisions
    }
    with torch.inference_mode():
        times = interleaved(calls, repeats=args.rounds, finish=waiting(args.device))
    whole = count(teacher)
    rows = []
    for name, model in models.items():
        cost = count(model)
        row = {
            "student": name,
            "parameters (M)": round(cost.params / 1e6, 2),
            "GMACs": round(cost.macs / 1e9, 3),
            "of the teacher (%)": round(100 * cost.macs / whole.macs, 1),
        }
        for precision in args.precisions:
            known = times[name, precision].median
            row[f"ms, {precision}"] = round(1e3 * known / args.clouds, 1)
            row[f"faster, {precision}"] = round(times["teacher", precision].median / known, 2)
        rows.append(row)
    print(table(rows, {name: name for name in rows[0]}))


if __name__ == "__main__":
    main()
