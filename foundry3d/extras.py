"""Optional packages: which installation option brings each, named wherever one is missing.

The base installation loads models and computes features. Everything else imports its packages
inside `explained`, or asks for them with `require_extra` before it starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from foundry3d.errors import InputError

EXTRAS = {
    "train": ("lightning", "tensorboard", "optuna", "sklearn", "scipy", "h5py", "tqdm"),
    "figures": ("matplotlib",),
    "las": ("laspy", "lazrs"),
    "mesh": ("mapbox_earcut",),
    "hub": ("huggingface_hub",),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino",),
    "executorch": ("executorch",),
    "parquet": ("pyarrow",),
    "cluster": ("submitit",),
}
"""The modules that each extra of the package brings; `pyproject.toml` names their versions."""


class MissingExtra(InputError, ImportError):
    """An optional package is not installed; the message has the command that installs it."""


def missing(error: ModuleNotFoundError) -> MissingExtra | None:
    """What to raise instead of the error; None if no extra brings the module."""
    module = (error.name or "").split(".")[0]
    extra = next((name for name, modules in EXTRAS.items() if module in modules), None)
    if extra is None:
        return None
    return MissingExtra(
        f'this needs {module}, which is not installed; run: pip install "foundry3d[{extra}]"'
    )


@contextmanager
def explained() -> Iterator[None]:
    """Around imports of optional packages.

    Raises:
        MissingExtra: one of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing(error) or error from None


def require_extra(*modules: str) -> None:
    """Looks for optional packages without importing them.

    Raises:
        MissingExtra: one of them is not installed.
    """
    with explained():
        for module in modules:
            if find_spec(module) is None:
                raise ModuleNotFoundError(f"no module {module}", name=module)
