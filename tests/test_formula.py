"""Each closed form equals the count of the real module where it should, else by the said amount."""

import pytest
import torch
from conftest import TINY

from foundry3d import cli
from foundry3d.config import BackboneConfig
from foundry3d.inference.cost import Cost, count, count_parts, encoder_cost
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student, student_config
from foundry3d.paper import formula
from foundry3d.paper.formula_table import part_rows, whole_rows
from foundry3d.report.rows import read_rows

SIZES = [TINY, BackboneConfig()]


def _parts(sizes: BackboneConfig, S: int, *, clouds: int = 1, **gated: int) -> dict[str, Cost]:
    with torch.device("meta"):
        student = Student(student_config(sizes, supertokens=S, gate=bool(gated)))
    return count_parts(student, clouds=clouds, **gated)


@pytest.mark.parametrize("sizes", SIZES)
def test_parts_add_up_to_the_whole(sizes: BackboneConfig) -> None:
    with torch.device("meta"):
        models = [Backbone(sizes), Student(student_config(sizes, supertokens=5))]
    for model in models:
        parts, whole = count_parts(model, clouds=3), count(model, clouds=3)
        assert sum(part.macs for part in parts.values()) == whole.macs
        assert sum(part.flops for part in parts.values()) == whole.flops
        assert sum(part.params for part in parts.values()) == whole.params


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("S", [1, 4, 12])
def test_linear_terms_equal_the_counts(sizes: BackboneConfig, S: int) -> None:
    N, D, L, nh = sizes.groups, sizes.dim, sizes.depth, sizes.heads
    parts = _parts(sizes, S)
    assert formula.transformer(L=L, N=S, D=D).linear == 2 * parts["encoder"].macs
    assert formula.dso(S=S, N=N, D=D).linear == 2 * parts["dso"].macs
    # the CAU of the formula has an MLP of ratio 4, the module ratio 1
    assert formula.cau(S=S, N=N, D=D, nh=nh).linear == 4 * 2 * parts["cau"].macs
    with torch.device("meta"):
        teacher = Backbone(sizes)
    whole = encoder_cost(teacher, clouds=1, tokens=N)
    assert formula.transformer(L=L, N=N, D=D).linear == 2 * whole.macs


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("clouds", [1, 5])
def test_forms_of_the_modules_are_exact(sizes: BackboneConfig, clouds: int) -> None:
    N, D, S, R = sizes.groups, sizes.dim, 4, 7
    hidden = sizes.position_dim
    parts = _parts(sizes, S, clouds=clouds)
    widths, k = sizes.point_widths, sizes.group_size
    tokenizer = formula.tokenizer_macs(N=N, k=k, widths=widths, D=D)
    assert parts["tokenizer"].macs == clouds * tokenizer
    assert parts["position"].macs == clouds * formula.position_macs(N=N, hidden=hidden, D=D)
    assert parts["encoder"].macs == clouds * formula.encoder_macs(L=sizes.depth, N=S, D=D)
    assert parts["dso"].macs == formula.dso_macs(S=S, N=N, D=D, B=clouds)
    assert parts["cau"].macs == clouds * formula.cau_macs(N=N, D=D)
    gated = _parts(sizes, S, clouds=clouds, merged=R, used=3)
    assert gated["gate"].macs == clouds * formula.gate_macs(N=N, D=D, d=128)
    assert gated["dso"].macs == formula.dso_macs(S=S, N=R, D=D, B=clouds)
    entering = 3 + N - R
    assert gated["encoder"].macs == clouds * formula.encoder_macs(L=sizes.depth, N=entering, D=D)
    # equation 12 applies W_Q once for every cloud, the module once
    apart = 2 * (clouds - 1) * S * D**2
    assert clouds * formula.dso(S=S, N=N, D=D).linear - 2 * parts["dso"].macs == apart


def test_printed_equations_and_their_slips() -> None:
    L, S, N, D, nh, d, R = 12, 16, 64, 384, 6, 128, 40
    U = N - R
    nineteen = 4 * D**2 * (S + 5 * N) + 2 * S * N * (3 * D + 2 * nh) + 4 * L * S * D * (S + 6 * D)
    assert formula.foundry(L=L, S=S, N=N, D=D, nh=nh).total == nineteen
    twenty_three = (
        4 * D**2 * (S + 5 * R)
        + 2 * S * R * (3 * D + 2 * nh)
        + 4 * N * D * d
        + 4 * L * D * (S + U) * (S + U + 6 * D)
    )
    assert formula.foundry_gate(L=L, S=S, N=N, D=D, nh=nh, d=d, R=R).total == twenty_three
    # equation 11 differs from 12 by the one letter; equation 15's sum by D against d
    slip = 2 * S * D * D - 2 * S * N * D
    assert formula.dso_as_summed(S=S, N=N, D=D) - formula.dso(S=S, N=N, D=D).total == slip
    assert formula.gate_as_summed(N=N, D=D, d=D) == formula.gate(N=N, D=D, d=D).total
    assert formula.gate(N=N, D=D, d=d).linear > 2 * formula.gate_macs(N=N, D=D, d=d)


def test_table_1_meets_appendix_c_in_its_leading_terms() -> None:
    """Twice the encoder's order is its formula's smallest multiple: 4 l c^2 d + 24 l c d^2."""
    for c in (16, 64, 1024):
        order = formula.order_transformer(L=12, c=c, D=384)
        assert 4 <= formula.transformer(L=12, N=c, D=384).total / order <= 24
    plain = formula.order_foundry(L=12, S=16, c=64, D=384)
    gated = formula.order_foundry_gate(L=12, S=16, c=64, D=384, r=1.0)
    assert gated - plain == 64 * 384  # only the gate
    worst = formula.order_foundry_gate(L=12, S=0, c=64, D=384, r=0.0)
    assert worst - formula.order_transformer(L=12, c=64, D=384) == 64 * 384 + 64 * 384**2


def test_rows_say_the_differences(capsys: pytest.CaptureFixture, tmp_path) -> None:
    rows = {(r["model"], r["part"]): r for r in part_rows(TINY, supertokens=4, merged=9)}
    assert rows["teacher", "encoder, 12 tokens"]["difference"] == 0
    assert rows["student", "DSO"]["difference"] == 0
    assert rows["student", "CAU"]["difference"] == pytest.approx(12 * 12 * 24**2 / 1e9)
    assert rows["gated", "encoder, 7 tokens"]["difference"] == 0
    assert rows["all", "tokenizer"]["difference"] is None
    whole = whole_rows(BackboneConfig(), supertokens=(16,), merged=64)
    assert round(whole[1]["by_whole"], 2) == 1.70
    written = tmp_path / "rows.jsonl"
    cli.main(["cost", "--formula", "--supertokens", "16", "1", "--results", str(written)])
    assert len(read_rows(written)) == 10 + 5
    assert "equation 14 counts an MLP of ratio 4" in capsys.readouterr().out
    for bad in (["--paper"], ["--merged", "65"]):
        with pytest.raises(SystemExit):
            cli.main(["cost", "--formula", *bad])
