"""Writes a tiny model in the form of `foundry3d export`, without any package for ONNX.

Its geometry is outside. A token's feature is the maximum of its neighborhood; the logits are the
pooled features. So all outputs are known in closed form.
"""

import json
from pathlib import Path
from typing import Any

GROUPS, GROUP_SIZE = 4, 3
FLOAT = 1


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def text(field: int, value: str | bytes) -> bytes:
    blob = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(blob)) + blob


def attribute(name: str, value: int | list[int]) -> bytes:
    if isinstance(value, int):
        return text(5, text(1, name) + number(3, value) + number(20, 2))
    return text(5, text(1, name) + b"".join(number(8, v) for v in value) + number(20, 7))


def node(kind: str, inputs: list[str], output: str, **attributes: int | list[int]) -> bytes:
    body = b"".join(text(1, name) for name in inputs) + text(2, output) + text(4, kind)
    return text(1, body + b"".join(attribute(k, v) for k, v in attributes.items()))


def value(field: int, name: str, *sizes: int | str) -> bytes:
    sides = b"".join(
        text(1, text(2, size) if isinstance(size, str) else number(1, size)) for size in sizes
    )
    return text(field, text(1, name) + text(2, text(1, number(1, FLOAT) + text(2, sides))))


def record(**changes: Any) -> dict[str, Any]:
    return {
        "format": "foundry3d-export",
        "version": 1,
        "kind": "classifier",
        "geometry": "outside",
        "precision": "fp32",
        "inputs": ["centers", "neighborhoods"],
        "outputs": ["features", "pooled", "logits"],
        "groups": GROUPS,
        "group_size": GROUP_SIZE,
        "radius": None,
        "preparation": {"normalise": True, "up": "z", "points": 64},
        "classes": ["a", "b", "c", "d", "e", "f é"],
    } | changes


def write(path: Path, **changes: Any) -> Path:
    """Writes the model with a record in which some entries are changed."""
    graph = (
        # features = max(neighborhoods) + 0 * centers, so that both inputs are read
        node("Sub", ["centers", "centers"], "zero")
        + node("ReduceMax", ["neighborhoods"], "most", axes=[2], keepdims=0)
        + node("Add", ["most", "zero"], "features")
        + node("ReduceMax", ["features"], "maximum", axes=[1], keepdims=0)
        + node("ReduceMean", ["features"], "mean", axes=[1], keepdims=0)
        + node("Concat", ["maximum", "mean"], "pooled", axis=1)
        + node("Identity", ["pooled"], "logits")
        + text(2, "tiny")
        + value(11, "centers", "B", GROUPS, 3)
        + value(11, "neighborhoods", "B", GROUPS, GROUP_SIZE, 3)
        + value(12, "features", "B", GROUPS, 3)
        + value(12, "pooled", "B", 6)
        + value(12, "logits", "B", 6)
    )
    entry = text(1, "foundry3d") + text(2, json.dumps(record(**changes)))
    path.write_bytes(number(1, 8) + text(8, number(2, 13)) + text(7, graph) + text(14, entry))
    return path
