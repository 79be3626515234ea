"""Each closed form equals the count of the real module where it should, else by the said amount."""

import itertools

import pytest
import torch
from conftest import TINY

from foundry3d import cli
from foundry3d.config import BackboneConfig
from foundry3d.inference.cost import Cost, count, count_parts, encoder_cost
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student, student_config
from foundry3d.models.supertokens import CAU, DSO
from foundry3d.paper import formula
from foundry3d.paper.formula_table import part_rows, whole_rows
from foundry3d.report.rows import read_rows

SIZES = [TINY, BackboneConfig()]


def encoder_macs(L: int, N: int, D: int) -> int:
    """MLPs of ratio 4: L N D^2 (4 + 8)."""
    return 12 * L * N * D**2


def dso_macs(S: int, N: int, D: int, B: int) -> int:
    """Keys and values of all tokens, outputs of S, and queries once, not per cloud."""
    return B * (2 * N + S) * D**2 + S * D**2


def gate_macs(N: int, D: int, d: int) -> int:
    """D to d to 1."""
    return N * (D * d + d)


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
    first, second, third = widths
    tokenizer = N * k * (3 * first + first * second + 2 * second * third + third * D)
    assert parts["tokenizer"].macs == clouds * tokenizer
    assert parts["position"].macs == clouds * N * (3 * hidden + hidden * D)
    assert parts["encoder"].macs == clouds * encoder_macs(sizes.depth, S, D)
    assert parts["dso"].macs == dso_macs(S, N, D, clouds)
    assert parts["cau"].macs == clouds * 2 * N * D**2  # an MLP of ratio 1
    gated = _parts(sizes, S, clouds=clouds, merged=R, used=3)
    assert gated["gate"].macs == clouds * gate_macs(N, D, 128)
    assert gated["dso"].macs == dso_macs(S, R, D, clouds)
    assert gated["encoder"].macs == clouds * encoder_macs(sizes.depth, 3 + N - R, D)
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
    # equation 11 as printed differs from 12 by one letter: its fourth term has D instead of N
    eleven = (2 * S * D**2 + 4 * N * D**2) + 2 * S * N * D + 2 * S * D * D + 2 * S * D**2
    slip = 2 * S * D * D - 2 * S * N * D
    assert eleven - formula.dso(S=S, N=N, D=D).total == slip
    # the sum that equation 15 starts from is 4 N D d only where d = D
    assert formula.gate(N=N, D=D, d=D).total == 2 * N * D * D + 2 * N * D * D
    assert formula.gate(N=N, D=D, d=d).linear > 2 * gate_macs(N, D, d)


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


@pytest.mark.parametrize("sizes", SIZES)
def test_maps_of_every_attention_head_are_those_of_appendix_c(sizes: BackboneConfig) -> None:
    N, D, nh, S = sizes.groups, sizes.dim, sizes.heads, 4
    rows = {(r["model"], r["part"]): r for r in part_rows(sizes, supertokens=S, merged=N - 2)}
    with torch.device("meta"):
        student = Student(student_config(sizes, supertokens=S, assignment_heads=nh)).eval()
    tokens = torch.empty(2, N, D, device="meta")
    cam = student.dso(tokens, tokens).cam
    assert cam.shape == (2, nh, N, S)
    assert cam[0].numel() == formula.map_entries(S=S, N=N, nh=nh)
    assert formula.cau(S=S, N=N, D=D, nh=nh).other == 4 * cam[0].numel()
    for part in ("DSO", "CAU"):
        one, each = rows["student", part], rows[f"student, {nh} maps", part]
        assert one["maps"] == each["maps"] == each["counted_maps"] == nh * one["counted_maps"]
        assert one["counted"] == each["counted"]
        assert one["counted_products"] == each["counted_products"]
    found = rows["gated", f"CAU, {N - 2} of {N} merged"]
    assert (found["maps"], found["counted_maps"]) == (nh * S * (N - 2), S * (N - 2))


@pytest.mark.parametrize("sizes", SIZES)
def test_products_of_the_formulas_equal_the_counts(sizes: BackboneConfig) -> None:
    for row in part_rows(sizes, supertokens=4, merged=5):
        if row["counted_products"] is None:
            assert not row["products"]
        elif row["part"].startswith("DSO"):  # mean positions are a third product
            assert row["counted_products"] == pytest.approx(1.5 * row["products"])
        else:
            assert row["counted_products"] == pytest.approx(row["products"])


def test_a_slice_comes_from_the_supertoken_of_its_head(generator: torch.Generator) -> None:
    """DSO and CAU with a map for each head are nh of them with one map, each on its slice."""
    N, D, nh, S = 12, 24, 3, 4
    dso, cau = DSO(D, S, heads=nh).eval(), CAU(D, heads=nh).eval()
    tokens = torch.randn(2, N, D, generator=generator)
    found = dso(tokens, tokens)
    maps = found.cam
    assert torch.equal(maps.sum(dim=-1), torch.ones(2, nh, N))
    assert torch.equal(maps, maps.bool().to(maps.dtype))
    read, means, values = torch.zeros(2, N, D), torch.zeros(2, S, D), dso.value(dso.norm(tokens))
    for b, h, j in itertools.product(range(2), range(nh), range(N)):
        part, chosen = slice(h * D // nh, (h + 1) * D // nh), int(maps[b, h, j].argmax())
        read[b, j, part] = found.supertokens[b, chosen, part]
        means[b, chosen, part] += values[b, j, part] / maps[b, h, :, chosen].sum()
    assert torch.allclose(found.supertokens, dso.out(means), atol=1e-5)
    expected = cau.fc2(torch.nn.functional.gelu(cau.fc1(tokens + read)))
    assert torch.allclose(cau(tokens, maps, found.supertokens), expected, atol=1e-5)


def test_rows_say_the_differences(capsys: pytest.CaptureFixture, tmp_path) -> None:
    rows = {(r["model"], r["part"]): r for r in part_rows(TINY, supertokens=4, merged=9)}
    assert rows["teacher", "encoder, 12 tokens"]["difference"] == 0
    assert rows["student", "DSO"]["difference"] == 0
    assert rows["student", "CAU"]["difference"] == pytest.approx(12 * 12 * 24**2 / 1e9)
    assert rows["gated", "encoder, 7 tokens"]["difference"] == 0
    assert rows["all", "tokenizer"]["difference"] is None
    assert rows["student, 3 maps", "CAU"]["counted_maps"] == 3 * 4 * 12
    whole = whole_rows(BackboneConfig(), supertokens=(16,), merged=64)
    assert round(whole[1]["by_whole"], 2) == 1.70
    written = tmp_path / "rows.jsonl"
    cli.main(["cost", "--formula", "--supertokens", "16", "1", "--results", str(written)])
    assert len(read_rows(written)) == 13 + 5
    assert "equation 14 counts an MLP of ratio 4" in capsys.readouterr().out
    for bad in (["--paper"], ["--merged", "65"]):
        with pytest.raises(SystemExit):
            cli.main(["cost", "--formula", *bad])
