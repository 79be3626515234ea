"""How the checkpoints of other projects name what a backbone holds: one table per source.

A table maps our modules and parameters to theirs. `{root}` is the prefix of the weights asked for
(online or moving average), `{n}` a block number; whatever follows (`.weight`, ...) is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


def _table(convolutions: str, position: str, root: str, blocks: str) -> dict[str, str]:
    """Our names to those of a source, by its prefixes of convolutions, class token and blocks."""
    return {
        "tokenizer.lift": f"{convolutions}first_conv.0",
        "tokenizer.lift_norm": f"{convolutions}first_conv.1",
        "tokenizer.widen": f"{convolutions}first_conv.3",
        "tokenizer.mix": f"{convolutions}second_conv.0",
        "tokenizer.mix_norm": f"{convolutions}second_conv.1",
        "tokenizer.project": f"{convolutions}second_conv.3",
        "position": position,
        "class_token": f"{root}cls_token",
        "class_position": f"{root}cls_pos",
        "encoder.blocks.{n}.norm1": f"{blocks}norm1",
        "encoder.blocks.{n}.attn": f"{blocks}attn",
        "encoder.blocks.{n}.norm2": f"{blocks}norm2",
        "encoder.blocks.{n}.fc1": f"{blocks}mlp.fc1",
        "encoder.blocks.{n}.fc2": f"{blocks}mlp.fc2",
        "encoder.norm": "{root}norm",
    }


_OF_LIGHTNING = {"position": "positional_encoding", "root": "", "blocks": "{root}blocks.{n}."}
POINT_JEPA = _table("tokenizer.embedding.encoder.", **_OF_LIGHTNING)
POINT2VEC = _table("tokenizer.embedding.", **_OF_LIGHTNING)
POINT_MAE = _table("{root}encoder.", "{root}pos_embed", "{root}", "{root}blocks.blocks.{n}.")
POINT_BERT = POINT_MAE | {"tokenizer.bridge": "{root}reduce_dim"}

LIGHTNING_HEADS = ("cls_head.", "label_embedding.", "upsampling.", "seg_head.")
EMA_STATE = ("teacher.initted", "teacher.step", "teacher.online_model.")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One form in which a source writes its checkpoints.

    Attributes:
        source: the project.
        form: pre-trained or fine-tuned.
        marks: prefixes; a file with keys under every one of them has this layout.
        roots: what `{root}` stands for, by the weights asked for.
        names: our names to theirs.
        left_out: keys of other parts; a prefix when it ends in a dot, else a whole key.
    """

    source: str
    form: str
    marks: tuple[str, ...]
    roots: dict[str, str]
    names: dict[str, str]
    left_out: tuple[str, ...]


LAYOUTS = (  # the first that fits is taken
    Layout(
        source="Point-JEPA",
        form="pre-trained",
        marks=("tokenizer.embedding.encoder.", "student."),
        roots={"online": "student.", "ema": "teacher.ema_model."},
        names=POINT_JEPA,
        left_out=("mask_token", "predictor.", *EMA_STATE),
    ),
    Layout(
        source="Point-JEPA",
        form="fine-tuned",
        marks=("tokenizer.embedding.encoder.", "encoder."),
        roots={"online": "encoder."},
        names=POINT_JEPA,
        left_out=LIGHTNING_HEADS,
    ),
    Layout(
        source="point2vec",
        form="pre-trained",
        marks=("tokenizer.embedding.first_conv.", "student."),
        roots={"online": "student.", "ema": "teacher.ema_model."},
        names=POINT2VEC,
        left_out=("mask_token", "decoder.", "regressor.", *EMA_STATE),
    ),
    Layout(
        source="point2vec",
        form="fine-tuned",
        marks=("tokenizer.embedding.first_conv.", "encoder."),
        roots={"online": "encoder."},
        names=POINT2VEC,
        left_out=LIGHTNING_HEADS,
    ),
    Layout(
        source="Point-MAE",
        form="pre-trained",
        marks=("MAE_encoder.",),
        roots={"online": "MAE_encoder."},
        names=POINT_MAE,
        left_out=("mask_token", "MAE_decoder.", "decoder_pos_embed.", "increase_dim."),
    ),
    Layout(
        source="Point-BERT",
        form="pre-trained",
        marks=("transformer_q.",),
        roots={"online": "transformer_q.", "ema": "transformer_k."},
        names=POINT_BERT,
        left_out=(
            *("{root}mask_token", "{root}lm_head.", "{root}cls_head."),
            *("dvae.", "queue", "queue_ptr"),
        ),
    ),
    Layout(
        source="Point-BERT",
        form="fine-tuned",
        marks=("encoder.first_conv.", "blocks.blocks.", "reduce_dim."),
        roots={"online": ""},
        names=POINT_BERT,
        left_out=(
            *("cls_head_finetune.", "label_conv.", "conv1.", "bn1.", "conv2."),
            *("propagation_0.", "propagation_1.", "propagation_2.", "dgcnn_pro_1.", "dgcnn_pro_2."),
        ),
    ),
    Layout(
        source="Point-MAE",
        form="fine-tuned",
        marks=("encoder.first_conv.", "blocks.blocks."),
        roots={"online": ""},
        names=POINT_MAE,
        left_out=(
            *("cls_head_finetune.", "label_conv.", "propagation_0."),
            *("convs1.", "convs2.", "convs3.", "bns1.", "bns2."),
        ),
    ),
)


def recognise(keys: Iterable[str]) -> Layout | None:
    """The first layout all of whose marks these keys show; None = of no known source."""
    keys = list(keys)
    for layout in LAYOUTS:
        if all(any(key.startswith(mark) for key in keys) for mark in layout.marks):
            return layout
    return None


def rename(key: str, names: dict[str, str]) -> str | None:
    """A key with the entry of `names` it lies under replaced; None where it lies under none."""
    for ours, theirs in names.items():
        pattern = re.escape(ours).replace(r"\{n\}", r"([0-9]+)") + r"((?:\..+)?)"
        if found := re.fullmatch(pattern, key):
            *number, rest = found.groups()
            return theirs.replace("{n}", "".join(number)) + rest
    return None


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The keys of a file, sorted by what becomes of them.

    Attributes:
        layout: of the file.
        weights: which of its roots was asked for.
        taken: our key to theirs.
        left_out: entries of the layout under which keys were found, which are not loaded.
        unknown: their keys that the layout does not explain.
    """

    layout: Layout
    weights: str
    taken: dict[str, str]
    left_out: list[str]
    unknown: list[str]

    def theirs(self, key: str) -> str:
        """What the source calls our key, whether the file has it or not."""
        root = self.layout.roots[self.weights]
        names = {k: v.replace("{root}", root) for k, v in self.layout.names.items()}
        return self.taken.get(key) or rename(key, names) or key


def sort_keys(layout: Layout, weights: str, keys: Iterable[str]) -> Keys:
    """Sorts keys by the layout's table; `weights` is one of its roots."""
    root = layout.roots[weights]
    others = [prefix for name, prefix in layout.roots.items() if name != weights]
    spare = [entry.replace("{root}", root) for entry in layout.left_out] + others
    names = {theirs.replace("{root}", root): ours for ours, theirs in layout.names.items()}
    result = Keys(layout=layout, weights=weights, taken={}, left_out=[], unknown=[])
    for key in keys:
        entry = next((e for e in spare if key == e or (e[-1] == "." and key.startswith(e))), None)
        if ours := rename(key, names):
            result.taken[ours] = key
        elif entry is None:
            result.unknown.append(key)
        elif entry not in result.left_out:
            result.left_out.append(entry)
    return result
