"""Specialists: students of a fine-tuned model's outputs, to compare with general ones."""

from __future__ import annotations

from dataclasses import dataclass, fields

from foundry3d.config.downstream import FinetuneConfig
from foundry3d.config.records import positive, require

OF_THE_TEACHER = (
    "protocol",
    "scratch",
    "groups",
    "group_size",
    "dropout",
    "attention_dropout",
    "drop_path",
)


@dataclass(frozen=True, kw_only=True)
class SpecialistConfig(FinetuneConfig):
    """`foundry3d specialize`: a student of a fine-tuned model's outputs, without labels.

    The paper's Table 2 and appendix B.2: Kullback-Leibler divergence alone; tokenizer, position
    and encoder frozen, supertokens and head trained. The paper names no other setting.

    Attributes:
        model: the teacher, a saved classifier or segmenter (folder); its sizes are the student's.
        supertokens: s.
        assignment_heads: as in `StudentConfig`.
        gate: the student gets a gate; with budgets.random_ratio it learns which tokens to merge.
        temperature: divides the logits of both before the divergence, which is multiplied by its
            square.
        without: parts left out of the second mean of data-set IoU (segmenters).
    """

    model: str = "runs/classify/model"
    out: str = "runs/specialist"
    supertokens: int = 16
    assignment_heads: int = 1
    gate: bool = False
    temperature: float = 1.0
    without: tuple[str, ...] = ()
    unfreeze_tokenizer: int | None = None
    unfreeze_position: int | None = None
    unfreeze_encoder: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "supertokens", "assignment_heads", "temperature")
        defaults = {field.name: field.default for field in fields(FinetuneConfig)}
        changed = [name for name in OF_THE_TEACHER if getattr(self, name) != defaults[name]]
        require(
            not changed, f"a specialist takes {', '.join(changed)} from its teacher; leave them out"
        )
        require(
            self.gate or not self.budgets.random_ratio,
            "budgets.random_ratio needs the gate; add --gate",
        )
