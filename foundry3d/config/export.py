"""Options of `foundry3d export` and `foundry3d bench export`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from foundry3d.config.records import (
    DEEPEST,
    WIDEST,
    all_positive,
    not_negative,
    positive,
    positive_or_null,
    require,
)

FormatName = Literal["onnx", "openvino", "executorch", "torch"]
PrecisionName = Literal["fp32", "fp16", "int8"]
GeometryName = Literal["inside", "outside"]
FORMAT_NAMES: tuple[FormatName, ...] = get_args(FormatName)
PRECISION_NAMES: tuple[PrecisionName, ...] = get_args(PrecisionName)


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """`foundry3d export`: a saved model as a file for another runtime, verified against torch.

    Attributes:
        model: a saved model (folder), or a checkpoint file of another project.
        to: onnx, openvino (an .xml with a .bin), executorch, or torch (`torch.export`).
        geometry: inside = points in, the file samples and groups them; outside = centers and
            neighborhoods in, for devices whose runtime groups them.
        precision: fp32, fp16 (weights only), or int8 (linear layers), which needs calibration.
        token_budget: exactly this many tokens enter the encoder (students with a gate).
        supertokens: use only this many of the student's supertokens.
        calibration: clouds whose activations set the ranges of int8: an archive or a folder, as
            data.train takes.
        clouds: how many of them are read.
        data: training and test clouds with labels; a linear probe then scores the file's pooled
            features and torch's.
        out: the file to write; null = the model's name with the suffix of the format.
        seed: of the clouds that the file is verified on.
    """

    model: str = ""
    to: FormatName = "onnx"
    geometry: GeometryName = "inside"
    precision: PrecisionName = "fp32"
    token_budget: int | None = None
    supertokens: int | None = None
    calibration: str | None = None
    clouds: int = 64
    data: tuple[str, ...] = ()
    out: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require(bool(self.model), "name a saved model: foundry3d export MODEL --to onnx")
        for name, known in (
            ("to", FORMAT_NAMES),
            ("geometry", get_args(GeometryName)),
            ("precision", PRECISION_NAMES),
        ):
            value = getattr(self, name)
            require(value in known, f"{name} is one of {', '.join(known)}; got {value!r}")
        positive(self, "clouds")
        positive_or_null(self, "token_budget", "supertokens")
        not_negative(self, "seed")
        require(
            self.precision != "int8" or self.calibration is not None,
            "int8 needs clouds like those it will read; name them with --calibration",
        )
        require(
            len(self.data) in (0, 2),
            f"data takes two collections, training and test clouds; got {len(self.data)}",
        )


@dataclass(frozen=True, kw_only=True)
class BenchExportConfig:
    """`foundry3d bench export`: size, speed, memory and error of a model's exported files.

    Attributes:
        model: a saved model (folder).
        formats: which formats are measured; those whose packages are missing are left out.
        precisions: of each format that has them.
        geometry: inside or outside, as in `foundry3d export`.
        token_budget: exactly this many tokens enter the encoder (students with a gate).
        supertokens: use only this many of the student's supertokens.
        calibration: clouds for int8, which is left out without them.
        data: training and test clouds with labels; adds a linear probe's score.
        batches: clouds per call.
        points: points per cloud.
        threads: numbers of threads.
        repeats: measured calls; fewer where they take long.
        limit: seconds after which a file is not called again.
        results: JSON-lines file that the rows are added to; null = only shown.
        seed: of the points.
    """

    model: str = ""
    formats: tuple[FormatName, ...] = FORMAT_NAMES
    precisions: tuple[PrecisionName, ...] = PRECISION_NAMES
    geometry: GeometryName = "inside"
    token_budget: int | None = None
    supertokens: int | None = None
    calibration: str | None = None
    data: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1, 64)
    points: int = 1024
    threads: tuple[int, ...] = (1, 2)
    repeats: int = 50
    limit: float = 20.0
    results: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require(bool(self.model), "name a saved model: foundry3d bench export MODEL")
        for name in ("batches", "threads", "formats", "precisions"):
            require(len(getattr(self, name)) > 0, f"name at least one of {name}")
        positive(self, "points", "repeats", "limit")
        all_positive(self, "batches", most=WIDEST)
        all_positive(self, "threads", most=DEEPEST)
        positive_or_null(self, "token_budget", "supertokens")
        not_negative(self, "seed")
        require(
            len(self.data) in (0, 2),
            f"data takes two collections, training and test clouds; got {len(self.data)}",
        )
