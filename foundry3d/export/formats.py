"""The formats that models are exported to, and what each of them needs and has."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from foundry3d.errors import InputError
from foundry3d.export.network import Network
from foundry3d.export.runners import (
    Arrays,
    Run,
    run_executorch,
    run_onnx,
    run_openvino,
    run_torch,
)


class Format(NamedTuple):
    """A format of exported files.

    Attributes:
        module: in this room, with `write(network, path, precision, samples)` and
            `describe(path, metadata)`.
        suffix: of the file.
        extra: the installation option of the package that brings what the module imports.
        refused: precisions that it does not have, and why.
        run: loads a file; see `runners`.
    """

    module: str
    suffix: str
    extra: str
    refused: dict[str, str]
    run: Callable[[Path, int], Run]


ONLY_FP32 = dict.fromkeys(("fp16", "int8"), "only fp32 is; choose onnx or openvino")

FORMATS = {
    "onnx": Format("onnx_file", ".onnx", "export", {}, run_onnx),
    "openvino": Format("openvino_file", ".xml", "export,openvino", {}, run_openvino),
    "executorch": Format("executorch_file", ".pte", "executorch", ONLY_FP32, run_executorch),
    "torch": Format("torch_file", ".pt2", "export", ONLY_FP32, run_torch),
}


class Writer(NamedTuple):
    """The functions of a format's module.

    Attributes:
        write: writes a network to a path in a precision, calibrated on samples where it is int8;
            files that belong to it are in the same folder.
        describe: writes metadata into the file, or beside it.
    """

    write: Callable[[Network, Path, str, Iterable[Arrays]], None]
    describe: Callable[[Path, dict[str, Any]], None]


def writer(name: str, precision: str) -> Writer:
    """What writes a format.

    Raises:
        InputError: the format does not have the precision, or a package is missing.
    """
    kind = FORMATS[name]
    if precision in kind.refused:
        raise InputError(f"{name} files are not written in {precision}: {kind.refused[precision]}")
    try:
        module = import_module(f"foundry3d.export.{kind.module}")
    except ModuleNotFoundError as error:
        raise InputError(
            f"{name} files need {error.name}, which is not installed; "
            f'run: pip install "foundry3d[{kind.extra}]"'
        ) from None
    return Writer(module.write, module.describe)
