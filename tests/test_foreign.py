"""Checkpoints of other projects load to the bit, strictly, and without running what they hold."""

from __future__ import annotations

import argparse
import functools
import json
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from foundry3d.baselines import RandomSampling
from foundry3d.checkpoints import folder as checkpoint
from foundry3d.checkpoints import torch_files
from foundry3d.checkpoints.foreign import load_foreign
from foundry3d.checkpoints.torch_files import Inert, read_torch
from foundry3d.config import BackboneConfig
from foundry3d.errors import InputError
from foundry3d.inference import cost
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student

SIZES = BackboneConfig(
    groups=12, group_size=8, point_widths=(8, 16, 24), dim=24, depth=3, heads=4, position_dim=10
)
PLAIN = replace(SIZES, point_bias=True, qkv_bias=False)
GIVEN = {"num_heads": 4, "num_groups": 12, "group_size": 8}
Saved = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Form:
    """One layout, written out independently of the tables under test."""

    source: str
    form: str
    tokenizer: str
    position: str
    encoder: str
    blocks: str
    loose: str = ""
    config: BackboneConfig = SIZES
    container: str = "state_dict"
    module: str = ""
    others: tuple[str, ...] = ()
    left_out: set[str] = field(default_factory=set)

    @property
    def options(self) -> dict[str, int]:
        return {} if self.container == "state_dict" else GIVEN

    def key(self, ours: str) -> str:
        """Their name of a key of ours."""
        part, _, rest = ours.partition(".")
        if part == "tokenizer":
            layer, leaf = rest.split(".")
            convs = {"lift": "first_conv.0", "lift_norm": "first_conv.1", "widen": "first_conv.3"}
            convs |= {"mix": "second_conv.0", "mix_norm": "second_conv.1"}
            convs |= {"project": "second_conv.3"}
            name = self.tokenizer + convs[layer] if layer in convs else self.loose + "reduce_dim"
            return f"{self.module}{name}.{leaf}"
        if part == "position":
            return f"{self.module}{self.position}{rest}"
        if part == "encoder":
            _, number, layer, *leaf = rest.split(".") if "blocks" in rest else ("", "", "")
            if not number:
                return f"{self.module}{self.encoder}{rest}"
            layer = f"mlp.{layer}" if layer.startswith("fc") else layer
            return f"{self.module}{self.blocks}{number}.{layer}.{'.'.join(leaf)}"
        return self.module + self.loose + {"class_token": "cls_token"}.get(part, "cls_pos")


JEPA = Form(
    source="Point-JEPA",
    form="pre-trained",
    tokenizer="tokenizer.embedding.encoder.",
    position="positional_encoding.",
    encoder="student.",
    blocks="student.blocks.",
    others=(
        *("mask_token", "predictor.mask_token", "predictor.predictor.blocks.0.norm1.weight"),
        *("teacher.initted", "teacher.step", "teacher.online_model.norm.weight"),
    ),
    left_out={"mask_token", "predictor.", "teacher.initted", "teacher.step"}
    | {"teacher.online_model.", "teacher.ema_model."},
)
BERT = Form(
    source="Point-BERT",
    form="pre-trained",
    tokenizer="transformer_q.encoder.",
    position="transformer_q.pos_embed.",
    encoder="transformer_q.",
    blocks="transformer_q.blocks.blocks.",
    loose="transformer_q.",
    config=replace(PLAIN, tokenizer_dim=16, class_token=True),
    container="base_model",
    module="module.",
    others=(
        *("transformer_q.mask_token", "transformer_q.lm_head.weight", "queue", "queue_ptr"),
        *("transformer_q.cls_head.0.weight", "transformer_k.norm.weight", "dvae.codebook"),
    ),
    left_out={"transformer_q.mask_token", "transformer_q.lm_head.", "transformer_q.cls_head."}
    | {"transformer_k.", "queue", "queue_ptr", "dvae."},
)
MAE = Form(
    source="Point-MAE",
    form="pre-trained",
    tokenizer="MAE_encoder.encoder.",
    position="MAE_encoder.pos_embed.",
    encoder="MAE_encoder.",
    blocks="MAE_encoder.blocks.blocks.",
    loose="MAE_encoder.",
    config=PLAIN,
    container="base_model",
    module="module.",
    others=(
        *("mask_token", "MAE_decoder.norm.weight"),
        *("decoder_pos_embed.0.weight", "increase_dim.0.weight"),
    ),
    left_out={"mask_token", "MAE_decoder.", "decoder_pos_embed.", "increase_dim."},
)
LABELLED = {"encoder": "encoder.", "blocks": "encoder.blocks.", "form": "fine-tuned"}
BARE = {
    **{"tokenizer": "encoder.", "position": "pos_embed.", "encoder": "", "form": "fine-tuned"},
    **{"blocks": "blocks.blocks.", "loose": ""},
}
HEAD = {"others": ("cls_head.0.weight", "cls_head.1.running_mean"), "left_out": {"cls_head."}}
PARTS = {
    "others": ("label_embedding.0.weight", "upsampling.mlp_convs.0.weight", "seg_head.0.weight"),
    "left_out": {"label_embedding.", "upsampling.", "seg_head."},
}
TUNED = {"others": ("cls_head_finetune.0.weight",), "left_out": {"cls_head_finetune."}}
VEC = replace(
    JEPA,
    source="point2vec",
    tokenizer="tokenizer.embedding.",
    others=("mask_token", "decoder.norm.weight", "regressor.weight"),
    left_out={"mask_token", "decoder.", "regressor.", "teacher.ema_model."},
)
FORMS = {
    "jepa": JEPA,
    "jepa classes": replace(JEPA, **LABELLED, **HEAD),
    "jepa class token": replace(JEPA, **LABELLED, **HEAD, config=replace(SIZES, class_token=True)),
    "jepa parts": replace(JEPA, **LABELLED, **PARTS),
    "point2vec": VEC,
    "point2vec classes": replace(VEC, **LABELLED, **HEAD),
    "mae": MAE,
    "mae distributed": replace(MAE, module=""),
    "mae classes": replace(MAE, **BARE, **TUNED, config=replace(PLAIN, class_token=True)),
    "mae parts": replace(
        MAE,
        **BARE,
        container="model_state_dict",
        module="",
        others=("label_conv.0.weight", "propagation_0.mlp_convs.0.weight", "convs1.weight"),
        left_out={"label_conv.", "propagation_0.", "convs1."},
    ),
    "bert": BERT,
    "bert classes": replace(BERT, **BARE, **TUNED),
}


@functools.cache
def backbone(config: BackboneConfig, seed: int = 0) -> Backbone:
    """A backbone none of whose numbers are initial ones."""
    generator = torch.Generator().manual_seed(seed)
    model = Backbone(config, generator=generator)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
            else:
                tensor.fill_(7)
    return model.eval()


def their_state(form: Form) -> Saved:
    """The weights of `backbone(form.config)` as the source would save them, in its shapes."""
    state: Saved = OrderedDict()
    for ours, tensor in backbone(form.config).state_dict().items():
        if ours.startswith("tokenizer.") and tensor.ndim == 2 and "bridge" not in ours:
            tensor = tensor[..., None]
        if ours.startswith("class_") and form.container != "state_dict":
            tensor = tensor[None, None]
        state[form.key(ours)] = tensor.clone()
    for name in form.others:
        state[form.module + name] = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    return state


def content(form: Form) -> Saved:
    """What the file holds beside the weights."""
    state = their_state(form)
    if form.container == "state_dict":
        if form.form == "pre-trained":
            moved = backbone(form.config, seed=1).encoder.state_dict()
            for key, tensor in moved.items():
                ema = form.key(f"encoder.{key}").replace("student.", "teacher.ema_model.")
                state[ema] = tensor
        stored = {"encoder_heads": 4, "tokenizer_num_groups": 12, "tokenizer_group_size": 8}
        stored |= {"encoder_dim": 24, "encoder_depth": 3, "tokenizer_group_radius": None}
        return {"epoch": 3, "hyper_parameters": stored, "state_dict": state}
    return {form.container: state, "epoch": 3, "metrics": {"acc": 91.0}}


def written(folder: Path, form: Form, change: Callable[[Saved, Saved], Any] | None = None) -> Path:
    """A file of a form, after `change(content, weights)`."""
    whole = content(form)
    if change is not None:
        change(whole, whole[form.container])
    path = folder / "foreign.ckpt"
    torch.save(whole, path)
    return path


def refusal(path: Path, **options: Any) -> str:
    """The one sentence with which a file is refused."""
    with pytest.raises(InputError) as caught:
        load_foreign(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(a: Backbone, b: Backbone) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


# ---------------------------------------------------------------- what is loaded


@pytest.mark.parametrize("name", FORMS)
def test_every_form_loads_to_the_bit(name: str, tmp_path: Path, points: torch.Tensor) -> None:
    form = FORMS[name]
    model, provenance = load_foreign(written(tmp_path, form), **form.options)
    expected = backbone(form.config)
    assert model.config == form.config and not model.training
    assert same(model, expected)
    assert torch.equal(model(points).features, expected(points).features)
    assert (provenance["source"], provenance["form"]) == (form.source, form.form)
    assert provenance["weights"] == "online" and provenance["notices"] == []
    assert set(provenance["left_out"]) == form.left_out
    assert json.loads(json.dumps(provenance)) == provenance
    assert all(weight.requires_grad for weight in model.parameters())


COMPILED = ["_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module."]


@pytest.mark.parametrize("prefix", COMPILED)
@pytest.mark.parametrize("container", ["state_dict", "model", "base_model", None])
@pytest.mark.parametrize("name", ["jepa", "mae", "bert classes"])
def test_weights_of_compiled_models_load_from_every_container(
    name: str, container: str | None, prefix: str, tmp_path: Path
) -> None:
    form = FORMS[name]
    state = {key.removeprefix("module."): value for key, value in their_state(form).items()}
    state = {prefix + key: value for key, value in state.items()}
    torch.save({container: state, "epoch": 1} if container else state, tmp_path / "foreign.pth")
    model, provenance = load_foreign(tmp_path / "foreign.pth", **GIVEN)
    assert same(model, backbone(form.config))
    assert provenance["source"] == form.source


def test_parts_that_were_compiled_load_too(tmp_path: Path) -> None:
    def compile_part(_: Saved, state: Saved) -> None:
        for key in [key for key in state if key.startswith("student.")]:
            state[key.replace("student.", "student._orig_mod.", 1)] = state.pop(key)

    assert same(load_foreign(written(tmp_path, JEPA, compile_part))[0], backbone(SIZES))


def test_weights_that_are_there_twice_are_refused(tmp_path: Path) -> None:
    path = written(
        tmp_path, JEPA, lambda _, s: s.update({"student._orig_mod.norm.weight": torch.ones(24)})
    )
    assert "twice" in refusal(path)


@pytest.mark.parametrize("prefix", ["", *COMPILED])
@pytest.mark.parametrize("name", FORMS)
def test_weights_load_from_safetensors(name: str, prefix: str, tmp_path: Path) -> None:
    form = FORMS[name]
    state = {key.removeprefix("module."): value for key, value in their_state(form).items()}
    path = tmp_path / "foreign.safetensors"
    save_file({prefix + key: value for key, value in state.items()}, path)
    assert same(load_foreign(path, **GIVEN)[0], backbone(form.config))
    with pytest.raises(InputError, match="does not say its heads"):
        load_foreign(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="truncated"):
        load_foreign(path, **GIVEN)


@pytest.mark.parametrize("name", ["jepa", "mae classes", "bert"])
def test_the_own_format_keeps_a_foreign_backbone(name: str, tmp_path: Path) -> None:
    form = FORMS[name]
    model = checkpoint.load(written(tmp_path, form), **form.options)
    assert isinstance(model, Backbone)
    again = checkpoint.load(checkpoint.save(model, tmp_path / "own", provenance={}))
    assert isinstance(again, Backbone)
    assert again.config == model.config and same(again, model)
    with pytest.raises(InputError, match="num_heads"):
        checkpoint.load(tmp_path / "own", num_heads=4)


REFERENCES = {"pointjepa.ckpt": False, "point2vec.ckpt": False, "pointmae.pth": True}
REFERENCES |= {"pointbert.pth": True}


@pytest.mark.parametrize("name", REFERENCES)
def test_outputs_are_those_of_the_reference(name: str, parity: Path, sizes: dict[str, Any]) -> None:
    asked = {"num_heads": sizes["heads"], "num_groups": 16, "group_size": 8}
    given = asked if REFERENCES[name] else {}
    model, provenance = load_foreign(parity / name, **given)
    arrays = np.load((parity / name).with_suffix(".npz"))
    assert provenance["notices"] == []
    with torch.no_grad():
        groups = model.group(torch.from_numpy(arrays["points"]))
        tokens, positions = model.embed_groups(groups)
        results = {"tokens": tokens, "output": model.encode(groups).features}
        if "cls_output" in arrays:
            results["cls_output"] = model.encoder(*model.with_class(tokens, positions))[:, 0]
        if "hidden" in arrays:
            results["pos"], results["centers"] = positions, groups.centers
            results["hidden"] = torch.stack(model.encoder.states(tokens, positions))
    for key, value in results.items():
        torch.testing.assert_close(value, torch.from_numpy(arrays[key]), rtol=0, atol=1e-5)


def test_averaged_weights_of_the_reference_are_the_online_ones_times_1_01(parity: Path) -> None:
    path = parity / "pointjepa.ckpt"
    online, _ = load_foreign(path)
    averaged, _ = load_foreign(path, weights="ema")
    torch.testing.assert_close(averaged.encoder.norm.weight, online.encoder.norm.weight * 1.01)
    assert torch.equal(averaged.position[0].weight, online.position[0].weight)


@pytest.mark.parametrize("form", [JEPA, VEC])
def test_averaged_weights_replace_the_encoder_alone(form: Form, tmp_path: Path) -> None:
    model, provenance = load_foreign(written(tmp_path, form), weights="ema")
    online, averaged = backbone(form.config), backbone(form.config, seed=1)
    for key, tensor in model.state_dict().items():
        source = averaged if key.startswith("encoder.") else online
        assert torch.equal(tensor, source.state_dict()[key]), key
    assert provenance["weights"] == "ema" and "student." in provenance["left_out"]


def test_momentum_weights_of_point_bert_replace_everything(tmp_path: Path) -> None:
    def add(_: Saved, state: Saved) -> None:
        for key in [k for k in state if "transformer_q" in k and "head" not in k]:
            state[key.replace("transformer_q", "transformer_k")] = state[key] + 1

    model, _ = load_foreign(written(tmp_path, BERT, add), **GIVEN, weights="ema")
    expected = backbone(BERT.config).state_dict()
    assert all(torch.equal(t, expected[k] + 1) for k, t in model.state_dict().items())


def test_half_precision_and_foreign_depths_of_counters_are_brought_to_ours(tmp_path: Path) -> None:
    def halve(_: Saved, state: Saved) -> None:
        for key in list(state):
            state[key] = state[key].half()
        del state["tokenizer.embedding.encoder.first_conv.1.num_batches_tracked"]

    model, _ = load_foreign(written(tmp_path, JEPA, halve))
    assert {t.dtype for t in model.state_dict().values()} == {torch.float32, torch.int64}
    assert int(model.tokenizer.lift_norm.num_batches_tracked) == 0
    assert int(model.tokenizer.mix_norm.num_batches_tracked) == 7


# ---------------------------------------------------------------- sizes the tensors do not show


@pytest.mark.parametrize("name", GIVEN)
def test_a_size_that_the_file_does_not_say_is_asked_for(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, MAE)
    given = {k: v for k, v in GIVEN.items() if k != name}
    message = refusal(path, **given)
    assert name in message and str(path) in message


@pytest.mark.parametrize(
    ("form", "options", "words"),
    [
        (MAE, GIVEN | {"num_heads": 5}, ("num_heads", "24", "5")),
        (MAE, GIVEN | {"num_heads": 0}, ("num_heads", "0")),
        (MAE, GIVEN | {"num_groups": 12.5}, ("num_groups", "12.5")),
        (MAE, GIVEN | {"weights": "ema"}, ("online", "ema")),
        (JEPA, {"num_heads": 6}, ("encoder_heads", "4", "6")),
        (JEPA, {"num_groups": 64}, ("tokenizer_num_groups", "12", "64")),
        (JEPA, {"group_size": 32}, ("tokenizer_group_size", "8", "32")),
        (JEPA, {"radius": 0.2}, ("tokenizer_group_radius", "None", "0.2")),
        (JEPA, {"weights": "best"}, ("online", "ema", "best")),
    ],
)
def test_a_size_that_does_not_fit_is_refused(
    form: Form, options: dict[str, Any], words: tuple[str, ...], tmp_path: Path
) -> None:
    message = refusal(written(tmp_path, form), **options)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("stored", "word"),
    [
        ({"encoder_heads": 5}, "divide"),
        ({"encoder_heads": float("nan")}, "positive"),
        ({"encoder_depth": 12}, "encoder_depth"),
        ({"encoder_dim": 384}, "encoder_dim"),
        ({"encoder_add_pos_at_every_layer": False}, "positions"),
    ],
)
def test_stored_sizes_that_cannot_be_true_are_refused(
    stored: dict[str, Any], word: str, tmp_path: Path
) -> None:
    path = written(tmp_path, JEPA, lambda whole, _: whole["hyper_parameters"].update(stored))
    assert word in refusal(path)


def test_stored_and_given_sizes_may_agree(tmp_path: Path) -> None:
    model, _ = load_foreign(written(tmp_path, JEPA), **GIVEN)
    assert model.config == SIZES


def test_sizes_are_given_where_nothing_is_stored(tmp_path: Path) -> None:
    path = written(tmp_path, JEPA, lambda whole, _: whole.pop("hyper_parameters"))
    assert "num_heads" in refusal(path)
    model, _ = load_foreign(path, **GIVEN)
    assert model.config == SIZES


# ---------------------------------------------------------------- keys


def test_every_key_of_the_backbone_is_needed(tmp_path: Path) -> None:
    for ours in backbone(BERT.config).state_dict():
        theirs = BERT.key(ours)
        if theirs.endswith("num_batches_tracked"):
            continue
        message = refusal(written(tmp_path, BERT, lambda _, s, k=theirs: s.pop(k)), **GIVEN)
        assert theirs.removeprefix("module.") in message, message


@pytest.mark.parametrize(
    "key",
    [
        *("student.blocks.0.attn.extra", "student.blocks.1.norm3.weight", "heads.weight"),
        *("mask_token2", "student.blocks.٣.norm1.weight", "tokenizer.embedding.encoder.x"),
    ],
)
def test_a_key_that_is_not_known_is_named(key: str, tmp_path: Path) -> None:
    path = written(tmp_path, JEPA, lambda _, state: state.update({key: torch.ones(2)}))
    assert key in refusal(path)


def test_a_gap_between_blocks_is_named(tmp_path: Path) -> None:
    def drop(_: Saved, state: Saved) -> None:
        for key in [k for k in state if k.startswith("student.blocks.1.")]:
            del state[key]

    assert "student.blocks.1." in refusal(written(tmp_path, JEPA, drop))


@pytest.mark.parametrize("shape", [(), (0,), (25,), (24, 2)])
def test_a_tensor_of_another_shape_is_named(shape: tuple[int, ...], tmp_path: Path) -> None:
    for key in ("student.norm.weight", "student.blocks.2.norm1.bias"):
        path = written(tmp_path, VEC, lambda _, s, k=key: s.update({k: torch.ones(shape)}))
        message = refusal(path)
        assert "student." in message or "encoder_dim 24" in message


def test_widths_no_memory_could_hold_are_refused_before_they_are_made(tmp_path: Path) -> None:
    def widen(whole: Saved, state: Saved) -> None:
        del whole["hyper_parameters"]
        state["student.norm.weight"] = torch.ones(2**20)

    assert "dim must be at most" in refusal(written(tmp_path, JEPA, widen), **GIVEN)


@pytest.mark.parametrize(
    "value", [7, "text", torch.ones(24).to_sparse(), torch.ones(24, dtype=torch.complex64)]
)
def test_values_that_are_no_plain_tensors_are_named(value: Any, tmp_path: Path) -> None:
    path = written(tmp_path, JEPA, lambda _, state: state.update({"student.norm.weight": value}))
    assert "student.norm.weight" in refusal(path)


@pytest.mark.parametrize(
    "whole", [{}, {"state_dict": {}}, {"state_dict": 3}, {"model": torch.ones(2)}, [1, 2], {1: 2}]
)
def test_files_of_no_known_source_are_refused(whole: Any, tmp_path: Path) -> None:
    torch.save(whole, tmp_path / "foreign.ckpt")
    refusal(tmp_path / "foreign.ckpt")


def test_statistics_that_are_not_finite_are_reset_and_told(tmp_path: Path) -> None:
    def spoil(_: Saved, state: Saved) -> None:
        for name in ("running_mean", "running_var"):
            state[f"tokenizer.embedding.encoder.first_conv.1.{name}"][2] = float("nan")

    path = written(tmp_path, JEPA, spoil)
    model, provenance = load_foreign(path)
    assert len(provenance["notices"]) == 2
    assert torch.equal(model.tokenizer.lift_norm.running_mean, torch.zeros(8))
    assert torch.equal(model.tokenizer.lift_norm.running_var, torch.ones(8))
    with pytest.warns(UserWarning, match="has been reset") as told:
        checkpoint.load(path)
    assert len(told) == 2


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, JEPA, lambda _, s: s["student.norm.weight"].fill_(float("inf")))
    assert "finite" in refusal(path)


def test_a_radius_is_kept_and_its_difference_told(tmp_path: Path) -> None:
    stored = {"tokenizer_group_radius": 0.25}
    path = written(tmp_path, JEPA, lambda whole, _: whole["hyper_parameters"].update(stored))
    model, provenance = load_foreign(path)
    assert model.config.radius == 0.25
    assert "within" in provenance["notices"][0]


# ---------------------------------------------------------------- files


class AttributeDict(dict[str, Any]):
    """A dictionary of a class that no reader knows."""


def gone(name: str, base: type) -> type:
    """A class of a module that cannot be imported when the file is read."""
    module = types.ModuleType("project_that_is_gone")
    kind = type(name, (base,), {"__module__": module.__name__})
    setattr(module, name, kind)
    sys.modules[module.__name__] = module
    return kind


def test_objects_of_other_projects_are_set_aside(tmp_path: Path) -> None:
    callback = gone("Callback", object)()
    callback.best = {"score": 1.0}

    def add(whole: Saved, _: Saved) -> None:
        whole["hyper_parameters"] = AttributeDict(whole["hyper_parameters"])
        whole["hyper_parameters"]["loss"] = functools.partial(torch.nn.functional.mse_loss)
        whole["arguments"] = argparse.Namespace(data=Path("somewhere"), rate=np.float64(0.1))
        whole["callbacks"] = {"gone": callback, "kind": type(callback), "array": np.ones(3)}

    path = written(tmp_path, JEPA, add)
    del sys.modules["project_that_is_gone"]
    modules, allowed = set(sys.modules), set(torch.serialization.get_safe_globals())
    model, _ = load_foreign(path)
    assert same(model, backbone(SIZES))
    assert not [name for name in sys.modules.keys() - modules if "encodings" not in name]
    assert set(torch.serialization.get_safe_globals()) == allowed
    held = read_torch(path)
    assert type(held["callbacks"]["gone"]) is Inert
    assert held["callbacks"]["gone"].state == {"best": {"score": 1.0}}


def test_a_file_loads_while_another_thread_ends_its_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second thread lists unknown classes while those of the first count as safe."""

    def wrap(whole: Saved, _: Saved) -> None:
        whole["hyper_parameters"] = argparse.Namespace(**whole["hyper_parameters"])

    path = written(tmp_path, JEPA, wrap)
    list_unknown, load = torch_files.get_unsafe_globals_in_checkpoint, torch.load
    loading, listed, loaded = Event(), Event(), Event()

    def listing(*args: Any) -> list[str]:
        names = list_unknown(*args)
        if loading.is_set():
            listed.set()
        return names

    def loads(*args: Any, **options: Any) -> Any:
        if loading.is_set():
            loaded.wait(10)
            return load(*args, **options)
        loading.set()
        listed.wait(0.5)  # times out if the second thread has to wait for this one
        return load(*args, **options)

    def first() -> Backbone:
        model, _ = load_foreign(path)
        loaded.set()
        return model

    def second() -> Backbone:
        loading.wait(10)
        return load_foreign(path)[0]

    monkeypatch.setattr(torch_files, "get_unsafe_globals_in_checkpoint", listing)
    monkeypatch.setattr(torch, "load", loads)
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(first), pool.submit(second)]
        models = [future.result() for future in running]
    assert all(same(model, backbone(SIZES)) for model in models)


def test_sizes_are_read_from_a_namespace(tmp_path: Path) -> None:
    def wrap(whole: Saved, _: Saved) -> None:
        whole["hyper_parameters"] = argparse.Namespace(**whole["hyper_parameters"])

    model, _ = load_foreign(written(tmp_path, JEPA, wrap))
    assert model.config == SIZES


class Runs:
    """Runs a call when it is unpickled plainly."""

    def __init__(self, call: Callable[..., Any], *values: Any) -> None:
        self.call, self.values = call, values

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call, self.values


@pytest.mark.parametrize("place", ["hyper_parameters", "state_dict"])
@pytest.mark.parametrize("call", [os.system, exec, eval, os.mkdir, open])
def test_a_file_made_to_run_something_runs_nothing(
    call: Callable[..., Any], place: str, tmp_path: Path
) -> None:
    mark = tmp_path / "it ran"
    order = {
        os.system: f"mkdir '{mark}'",
        os.mkdir: str(mark),
        exec: f"import os; os.mkdir({str(mark)!r})",
        eval: f"__import__('os').mkdir({str(mark)!r})",
    }
    values = (str(mark), "w") if call is open else (order[call],)
    path = written(
        tmp_path, JEPA, lambda whole, _: whole[place].update({"student.x": Runs(call, *values)})
    )
    assert "would run" in refusal(path)
    assert not mark.exists()


def test_a_call_that_is_not_known_as_hostile_is_not_made_either(tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    load_foreign(written(tmp_path, JEPA, lambda w, _: w.update(x=Runs(np.save, str(mark), 1))))
    assert not mark.exists()


def test_an_object_that_cannot_be_set_aside_is_told(tmp_path: Path) -> None:
    message = refusal(written(tmp_path, JEPA, lambda whole, _: whole.update(x=deque([1]))))
    assert "list" in message


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(keep: float, tmp_path: Path) -> None:
    path = written(tmp_path, JEPA)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    assert str(path) in refusal(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    bare = tmp_path / "bare.pth"
    bare.write_bytes(pickle.dumps(Runs(os.mkdir, str(tmp_path / "it ran"))))
    old = tmp_path / "old.pth"
    torch.save({"x": torch.ones(2)}, old, _use_new_zipfile_serialization=False)
    text = tmp_path / "text.pth"
    text.write_text("not a checkpoint")
    archive = tmp_path / "archive.pth"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("readme.txt", "nothing here")
    for path in (bare, old, text, archive, tmp_path / "absent.pth", tmp_path):
        assert str(path) in refusal(path)
    assert not (tmp_path / "it ran").exists()


def test_a_file_that_unpacks_to_more_than_it_is_is_refused(tmp_path: Path) -> None:
    source, bomb = written(tmp_path, JEPA), tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
        new.writestr("archive/data/zeros", bytes(20_000_000))
    assert "its own size" in refusal(bomb)


def test_a_tensor_that_unfolds_to_more_than_the_file_is_refused(tmp_path: Path) -> None:
    endless = {"student.norm.weight": torch.zeros(1).expand(10**12)}
    path = written(tmp_path, JEPA, lambda _, state: state.update(endless))
    assert "its own size" in refusal(path)


def test_an_endless_pickle_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, JEPA, lambda whole, _: whole.update(x="a" * 17 * 2**20))
    assert "not tensors" in refusal(path)


def test_damaged_bytes_end_in_a_refusal_or_in_a_model(tmp_path: Path) -> None:
    path = written(tmp_path, JEPA)
    data = path.read_bytes()
    generator = np.random.default_rng(5)
    with zipfile.ZipFile(path) as archive:
        member = next(m for m in archive.infolist() if m.filename.endswith("data.pkl"))
    spots = member.header_offset + generator.integers(0, 64 + member.file_size, size=60)
    for spot in spots:
        damaged = bytearray(data)
        damaged[spot] ^= int(generator.integers(1, 256))
        path.write_bytes(damaged)
        try:
            load_foreign(path)
        except InputError as error:
            assert str(path) in str(error)


# ---------------------------------------------------------------- class token and bridge


def test_the_class_token_takes_part_and_is_not_returned(points: torch.Tensor) -> None:
    model = backbone(BERT.config)
    output = model(points)
    assert output.features.shape == (4, 12, 24)
    assert output.tokens_used.tolist() == [13] * 4
    groups = model.group(points)
    assert not torch.allclose(output.features, model.encoder(*model.embed_groups(groups)))


def test_the_class_token_stays_when_tokens_are_dropped(points: torch.Tensor) -> None:
    model = backbone(BERT.config)
    whole, some = model(points), RandomSampling(model, keep=12)(points)
    order = torch.cdist(some.centers, whole.centers).argmin(dim=-1)
    expected = whole.features.gather(1, order[..., None].expand(-1, -1, 24))
    torch.testing.assert_close(some.features, expected, rtol=1e-5, atol=1e-5)


def test_a_student_keeps_the_tokens_of_its_teacher_without_the_class_token(
    points: torch.Tensor,
) -> None:
    teacher = backbone(BERT.config)
    for dim in (24, 12):
        student = Student.from_teacher(teacher, supertokens=3, dim=dim)
        assert not student.config.backbone.class_token
        assert not [key for key in student.state_dict() if key.startswith("class")]
        near = teacher.group(points).neighborhoods
        assert torch.equal(student.tokenizer(near), teacher.tokenizer(near))
        assert student(points).features.shape == (4, 12, 24)
    with pytest.raises(InputError, match="class token"):
        replace(student.config, backbone=teacher.config)


def test_class_token_and_bridge_are_counted() -> None:
    plain = cost.count(backbone(PLAIN))
    bridged = cost.count(backbone(replace(PLAIN, tokenizer_dim=16)))
    assert bridged.macs - plain.macs == 12 * (16 * 24 - 8 * 24 * 24 + 8 * 24 * 16)
    with_class = cost.count(backbone(replace(PLAIN, class_token=True)))
    alone = cost.encoder_cost(backbone(PLAIN), clouds=1, tokens=1)
    assert with_class.macs - plain.macs == alone.macs
    assert with_class.params - plain.params == 2 * 24
