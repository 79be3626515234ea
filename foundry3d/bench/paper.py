"""The speeds and memory that the paper printed (Tables 6, 7 and 14), next to ours."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from foundry3d.paper.cost import TOME_SCHEDULES

Key = tuple[str, int | None, int | None, float | None]
"""Method, supertokens, token budget, ratio."""

SIZES = {6: (1024, 64), 7: (2**18, 2**14)}
"""Points and tokens per cloud in Tables 6 (and 14) and 7."""
GPU = "NVIDIA RTX A3000 6GB Laptop"
CPU = "Intel Core i9-11950H (8 cores)"


def paper_speed() -> list[dict[str, Any]]:
    """Every measured row of Tables 6, 7 and 14, as printed.

    Returns:
        Rows with `table, method, supertokens, token_budget, ratio, device` (gpu or cpu),
        `memory_mib, runtime_s, clouds_s` (None where the table has no number) and `note`.
    """
    text = files("foundry3d.bench").joinpath("paper_speed.csv").read_text()
    kinds = {"table": int, "supertokens": int, "token_budget": int, "ratio": float}
    kinds |= dict.fromkeys(("memory_mib", "runtime_s", "clouds_s"), float)
    rows = []
    for line in csv.DictReader(text.splitlines()):
        numbers = {name: kind(line[name]) if line[name] else None for name, kind in kinds.items()}
        rows.append({**line, **numbers})
    return rows


def key_of(row: dict[str, Any]) -> Key | None:
    """The paper's key for the model of one of our rows; None for models that it does not have."""
    if row["light"]:
        return None
    if row["removed"]:
        names = {removed: name for name, removed in TOME_SCHEDULES.items()}
        return names[tuple(row["removed"])], None, None, None
    if row["supertokens"] is None:
        return "baseline", None, None, None
    if row["gate"]:
        return "foundry_gate", row["supertokens"], row["token_budget"], row["gate_ratio"]
    return f"foundry_vit_{'t' if row['dim'] == 192 else 's'}", row["supertokens"], None, None


def with_paper(rows: Iterable[dict[str, Any]], table: int) -> list[dict[str, Any]]:
    """Our rows joined with the paper's, one line per model.

    Rows of other sizes than the paper's are left out; the number of clouds may differ. Rows for
    which the paper ran out of memory are kept, with its note.

    Args:
        rows: of `objects` or `scene`.
        table: 6 (objects; CPU figures from Table 14) or 7 (scenes).

    Returns:
        Lines with `method, supertokens, token_budget`, the paper's `gpu_clouds_s, gpu_s, gpu_mib,
        cpu_clouds_s, cpu_s`, and ours as `plain_clouds_s, fp32_clouds_s, bf16_clouds_s` and so on
        with `_s` and `_mb`; `note` of rows without figures of the paper.
    """
    printed: dict[tuple[int, str, Key], dict[str, Any]] = {
        (r["table"], r["device"], (r["method"], r["supertokens"], r["token_budget"], r["ratio"])): r
        for r in paper_speed()
    }
    out_of_memory: dict[Key, dict[str, Any]] = {
        key: {"method": key[0], "note": row["note"]}
        for (of, _, key), row in printed.items()
        if of == table and row["clouds_s"] is None
    }
    found: dict[Key, dict[str, Any]] = {}
    for row in rows:
        key = key_of(row)
        if (row["points"], row["tokens"]) != SIZES[table] or row["width"] != 384:
            continue
        if key is None or key in out_of_memory or (table, "gpu", key) not in printed:
            continue
        if row["form"] in ("geometry", "windows", "dense"):
            continue  # not the same work as in the paper
        gpu = printed[table, "gpu", key]
        cpu = printed.get((14, "cpu", key), {}) if table == 6 else {}
        line = found.setdefault(
            key,
            {
                "method": key[0],
                "supertokens": key[1],
                "token_budget": key[2],
                "ratio": key[3],
                "encoded": row["encoded"],
                "gpu_clouds_s": gpu["clouds_s"],
                "gpu_s": gpu["runtime_s"],
                "gpu_mib": gpu["memory_mib"],
                "cpu_clouds_s": cpu.get("clouds_s"),
                "cpu_s": cpu.get("runtime_s"),
            },
        )
        kind = row["precision"] if row["form"] in ("compiled", "streamed") else "plain"
        if f"{kind}_s" in line and line[f"{kind}_s"] <= row["median_s"]:
            continue  # only the fastest of several plain forms counts
        line |= {
            f"{kind}_clouds_s": row["clouds_s"],
            f"{kind}_s": row["median_s"],
            f"{kind}_mb": row["peak_mb"],
        }
    return list((out_of_memory | found).values()) if found else []
