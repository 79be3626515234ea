"""Commands that read and show: probe, cost, doctor."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from foundry3d import config as configs
from foundry3d.backbone import Backbone, require_teacher
from foundry3d.checkpoint import load_backbone
from foundry3d.config import CostConfig, DataConfig, DoctorConfig, ProbeConfig
from foundry3d.config.downstream import encoded
from foundry3d.cost import count, paper_rows
from foundry3d.data.loading import Splits, load_splits
from foundry3d.errors import InputError
from foundry3d.formula_table import REMARKS, part_rows, whole_rows
from foundry3d.heads import Inner
from foundry3d.reduce import LargerGroups, RandomSampling
from foundry3d.reduce.wrapped import Wrapped
from foundry3d.results import append, code_version, table
from foundry3d.student import Student, student_config
from foundry3d.tasks.engine import retain_memory
from foundry3d.tasks.probe import describe, probe, untrained_like
from foundry3d.writing import replacing

PROBE_COLUMNS = {
    "model": "model",
    "tokens": "tokens",
    "encoded": "encoded",
    "params_m": "params (M)",
    "gmacs": "GMACs",
    "svm": "SVM",
    "knn": "20-NN",
    "svm_c012": "SVM C=0.012",
}


def probe_row(
    name: str, model: Any, splits: Splits, data: DataConfig, *, seed: int
) -> dict[str, Any]:
    """One result row of a model on labelled splits, with its protocol."""
    began = time.monotonic()
    scores = probe(model, splits, points=data.points)
    row: dict[str, Any] = {"model": name} | describe(model)
    if isinstance(model, Backbone | Student | Wrapped):
        row["gmacs"] = round(count(model).macs / 1e9, 4)
    if isinstance(model, RandomSampling | LargerGroups):
        row["encoded"] = model.shape.groups
    elif isinstance(model, Backbone | Student | Wrapped):
        sizes: Any = model.config
        row["encoded"] = encoded(sizes)
    row |= {key: round(value, 2) for key, value in scores._asdict().items()}
    assert splits.test is not None
    assert splits.validation is not None
    return row | {
        "task": "linear probe",
        "protocol": "svm: standardised, C chosen on held-out train; svm_c012: C 0.012, raw; "
        "knn: 20 neighbours, standardised; nothing selected on test",
        "data": f"{splits.train.name} / {splits.test.name}",
        "sizes": [len(splits.train), len(splits.validation), len(splits.test)],
        "points": data.points,
        "seed": seed,
        "code": code_version(),
        "seconds": round(time.monotonic() - began, 1),
    }


def probe_rows(
    subjects: Sequence[tuple[str, Any]],
    splits: Splits,
    data: DataConfig,
    *,
    seed: int,
    out: str | Path | None,
) -> list[dict[str, Any]]:
    """A result row for every named model, each added to the file `out` as soon as it is there."""
    rows = []
    for name, model in subjects:
        rows.append(probe_row(name, model, splits, data, seed=seed))
        if out is not None:
            append(out, rows[-1:])
    return rows


def probe_models(config: ProbeConfig) -> list[dict[str, Any]]:
    """Probes saved models and, first of all, their untrained network; prints the table.

    Raises:
        InputError: a model or data that cannot be used.
    """
    retain_memory()
    loaded = [(name, load_backbone(name)) for name in config.models]
    splits = load_splits(config.data, seed=config.seed)
    first = loaded[0][1]
    subjects: list[tuple[str, Any]] = [
        ("untrained", untrained_like(first, splits, points=config.data.points, seed=config.seed))
    ]
    for name, model in loaded:
        subjects.append((short_name(name), model))
        if isinstance(model, Backbone):
            subjects += [
                (
                    f"{short_name(name)}, {n} random tokens",
                    RandomSampling(model, n, seed=config.seed),
                )
                for n in config.random_tokens
            ]
    rows = probe_rows(subjects, splits, config.data, seed=config.seed, out=config.out)
    print(table(rows, PROBE_COLUMNS))
    return rows


def short_name(path: str) -> str:
    """What a table calls the model of a folder: the run's name rather than `model`."""
    folder = Path(path)
    return folder.parent.name if folder.name == "model" else folder.name


COST_COLUMNS = {"model": "model", "params_m": "params (M)", "macs_g": "GMACs", "flops_g": "GFLOPs"}


PART_COLUMNS = {
    "model": "model",
    "part": "part",
    "linear": "formula: linear layers",
    "products": "products",
    "other": "other",
    "counted": "counted, linear layers",
    "difference": "difference",
}
WHOLE_COLUMNS = {
    "model": "model",
    "formula": "Appendix C",
    "counted": "counted",
    "whole": "with tokenizer",
    "by_order": "saves: Table 1",
    "by_formula": "Appendix C",
    "by_counted": "counted",
    "by_whole": "with tokenizer",
}


def _show_formula(config: CostConfig) -> list[dict[str, Any]]:
    """Prints the closed forms beside the counts of a preset's or a saved backbone's sizes."""
    if config.model in configs.PRESETS:
        sizes = configs.preset(config.model)
    else:
        sizes = require_teacher(load_backbone(config.model)).config
    sizes = replace(sizes, class_token=False)
    merged = sizes.groups // 2 if config.merged is None else config.merged
    if merged > sizes.groups or not config.supertokens:
        raise InputError(
            f"formulas need at least one of --supertokens and merged at most the {sizes.groups} "
            f"tokens, got {config.supertokens} and {merged}"
        )
    parts = part_rows(sizes, supertokens=config.supertokens[0], merged=merged)
    whole = whole_rows(sizes, supertokens=config.supertokens, merged=merged)
    print(f"GFLOPs of one cloud, parts at S={config.supertokens[0]}\n")
    print(table(_digits(parts), PART_COLUMNS))
    print(f"\n{table(_digits(whole), WHOLE_COLUMNS)}\n{REMARKS}")
    return parts + whole


def _model_rows(config: CostConfig) -> list[dict[str, Any]]:
    if config.model in configs.PRESETS:
        sizes = configs.preset(config.model)
        with torch.device("meta"):
            models: list[tuple[str, Inner]] = [(config.model, Backbone(sizes))]
            models += [
                (f"{config.model}, s={s}", Student(student_config(sizes, supertokens=s)))
                for s in config.supertokens
            ]
    elif Path(config.model).exists():
        models = [(short_name(config.model), load_backbone(config.model))]
    else:
        raise InputError(
            f"{config.model} is neither a saved model nor one of {', '.join(configs.PRESETS)}"
        )
    rows = []
    for name, model in models:
        cost = count(model, clouds=config.clouds)
        figures = {"params_m": cost.params / 1e6, "macs_g": cost.macs / 1e9}
        rows.append(
            {"model": name, "clouds": config.clouds} | figures | {"flops_g": cost.flops / 1e9}
        )
    return rows


def _digits(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows]


def show_cost(config: CostConfig) -> list[dict[str, Any]]:
    """Prints what models cost, every cost row of the paper, or its formulas, beside our count.

    Raises:
        InputError: an unknown model.
    """
    if config.formula:
        rows = _show_formula(config)
    elif config.paper:
        rows = paper_rows()
        shown = _digits(rows)
        for row, source in zip(shown, rows, strict=True):
            row["percent"] = f"{100 * source['deviation']:.5f}"
        columns = {
            "table": "table",
            "method": "method",
            "supertokens": "s",
            "params_m": "params (M)",
            "macs_g": "GMACs, one pass",
            "passes": "passes in paper",
            "macs_g_as_counted": "GMACs so counted",
            "paper_macs_g": "paper",
            "flops_g": "GFLOPs, one pass",
            "flops_g_as_counted": "GFLOPs so counted",
            "paper_flops_g": "paper",
            "percent": "deviation %",
        }
        print(table(shown, columns))
        print(
            "\nThe paper's baseline and ToMe rows count the encoder twice; one pass is the truth, "
            "so 16 supertokens save "
            f"{rows[0]['macs_g'] / rows[6]['macs_g']:.2f}x in MACs, not "
            f"{rows[0]['paper_macs_g'] / rows[6]['paper_macs_g']:.2f}x."
        )
        for row in rows:
            if row["note"] and row["passes"] == 1:
                print(f"Table {row['table']}, {row['method']}: {row['note']}.")
    else:
        rows = _model_rows(config)
        print(table(_digits(rows), COST_COLUMNS | {"macs_g": f"GMACs, {config.clouds} clouds"}))
    if config.json is not None:
        with replacing(config.json) as partial:
            partial.write_text(json.dumps(rows, indent=2) + "\n")
    return rows


def doctor(config: DoctorConfig) -> None:
    """Prints versions, threads, devices and the backends that would be used."""
    import lightning
    import numba
    import sklearn

    from foundry3d import geometry
    from foundry3d.kernels import PROBE, fastest

    points = torch.rand(1, 2048, 3)
    same = torch.equal(
        geometry.farthest_point_sample(points, 64, backend="torch"),
        geometry.farthest_point_sample(points, 64),
    )
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    rows, inputs, outputs = PROBE
    rates = {
        name: f"{kernel} ({2e-9 * rows * inputs * outputs / seconds:.0f} GFLOP/s)"
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
        for kernel, seconds in [fastest(dtype)]
    }
    allocator = platform.libc_ver()[0] == "glibc"
    facts = {
        "foundry3d": code_version(),
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "torch": f"{torch.__version__}, lightning {lightning.__version__}, numba "
        f"{numba.__version__}, scikit-learn {sklearn.__version__}",
        "threads": f"{torch.get_num_threads()} (of {os.cpu_count()} processors); "
        "OMP_NUM_THREADS changes it",
        "processor": torch.backends.cpu.get_cpu_capability(),
        "GPUs": ", ".join(gpus) or "none; training and inference run on the CPU",
        "sampling and neighbours": "compiled on the CPU, torch on other devices; "
        + ("both agree here" if same else "THEY DISAGREE HERE, please report it"),
        "linear layers, compiled": ", ".join(f"{name} {text}" for name, text in rates.items()),
        "memory": "freed memory is kept (glibc)" if allocator else "the system's allocator",
        "bf16 on the GPU": "yes" if gpus and torch.cuda.is_bf16_supported() else "no",
    }
    width = max(map(len, facts))
    for name, text in facts.items():
        print(f"{name.ljust(width)}  {text}")
