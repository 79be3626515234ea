import itertools
from dataclasses import replace

import pytest
import torch
from conftest import TINY

from foundry3d.models.backbone import Backbone
from foundry3d.models.budget import Budget, draw_merged, draw_supertokens
from foundry3d.models.gate import (
    Gate,
    by_probability,
    fill_budget,
    listing_count,
    listing_merges,
    relative,
    selection,
)
from foundry3d.models.student import Student

C, S = TINY.groups, 4


@pytest.fixture
def student(teacher: Backbone, points: torch.Tensor, generator: torch.Generator) -> Student:
    """A gated student whose probabilities spread over (0, 1) and whose supertokens differ."""
    made = Student.from_teacher(teacher, supertokens=S, gate=True, generator=generator)
    with torch.no_grad():
        logits = made(points).probability.logit()
        made.gate.fc2.weight.div_(logits.std())
        made.gate.fc2.bias.sub_(logits.mean()).div_(logits.std())
        made.dso.query.weight.mul_(20)
        made.dso.key.weight.mul_(20)
    return made


def test_gate_by_hand(generator: torch.Generator) -> None:
    gate, tokens = Gate(6, hidden=5), torch.randn(2, 3, 6, generator=generator)
    hidden = torch.nn.functional.gelu(tokens @ gate.fc1.weight.T + gate.fc1.bias)
    expected = 1 / (1 + torch.exp(-(hidden @ gate.fc2.weight.T + gate.fc2.bias)))
    assert torch.allclose(gate(tokens), expected[..., 0])


def test_every_budget_is_met_exactly(student: Student, points: torch.Tensor) -> None:
    for budget in range(S, C + 1):
        output = student(points, budget=Budget(token_budget=budget))
        assert output.tokens_used.tolist() == [budget] * len(points)
        merged = (output.assignment >= 0).sum(dim=1)
        used = torch.tensor([len(set(row.tolist()) - {-1}) for row in output.assignment])
        assert torch.equal(used + C - merged, output.tokens_used)
        probability = output.probability
        lowest = probability.masked_fill(output.assignment < 0, 2).amin(dim=1)
        highest = probability.masked_fill(output.assignment >= 0, -1).amax(dim=1)
        assert (lowest >= highest).all()  # those of the largest probability are merged


def test_budget_is_the_fewest_merges_that_fit(generator: torch.Generator) -> None:
    """Against the obvious search over every number of merged tokens."""
    tokens, supertokens = 20, 5
    for budget in range(supertokens, tokens + 1):
        rows = tokens - budget + supertokens if budget < tokens else 0
        chosen = torch.randint(supertokens, (6, rows), generator=generator)
        merged = fill_budget(torch.nn.functional.one_hot(chosen, supertokens), tokens, budget)
        for row, found in zip(chosen.tolist(), merged.tolist(), strict=True):
            fits = [m for m in range(rows + 1) if len(set(row[:m])) + tokens - m <= budget]
            assert found == fits[0]
            assert len(set(row[:found])) + tokens - found == budget


def listing(probs: torch.Tensor, token_budget: int, num_supertokens: int) -> torch.Tensor:
    """The mask (B, c) of the paper's Listing 1 at inference, transcribed line by line."""
    probs = probs.unsqueeze(-1)
    B, T, _ = probs.shape
    if token_budget >= T:
        fusion_ratio = 1.0
    else:
        sorted_vals, _ = probs[:, :, 0].sort(dim=1, descending=True)
        num_to_select = T - token_budget + num_supertokens
        if num_to_select == T:
            fusion_ratio = probs.new_full((B,), -torch.finfo(probs.dtype).eps)
        else:
            fusion_ratio = sorted_vals[:, num_to_select + 1]
        fusion_ratio = fusion_ratio.reshape(B, 1, 1).repeat(1, T, 1)
    selection_hard = (probs > fusion_ratio).float()
    return (selection_hard > fusion_ratio).squeeze(-1)


@pytest.mark.parametrize("equal", [False, True], ids=["all differ", "some equal"])
def test_rules_of_a_token_budget_against_the_listing(
    generator: torch.Generator, equal: bool
) -> None:
    tokens, supertokens = 20, 5
    probability = torch.rand(200, tokens, generator=generator)
    if equal:
        probability = (probability * 8).round() / 8
    for budget in range(supertokens, tokens + 1):
        found = listing_merges(probability, budget, supertokens)
        if budget == supertokens + 1:  # the listing reads past the last token
            with pytest.raises(IndexError):
                listing(probability, budget, supertokens)
            assert (found == tokens).all()
            continue
        mask = listing(probability, budget, supertokens)
        assert torch.equal(selection(probability, found) > 0.5, mask)
        count = listing_count(tokens, budget, supertokens)
        assert (found <= count).all()
        assert equal or (found == count).all()
        exact = tokens - budget + supertokens if budget < tokens else 0  # if all s are used
        assert count - exact == (1 if supertokens < budget < tokens else 0)


def test_students_keep_the_rule_of_the_listing(student: Student, points: torch.Tensor) -> None:
    for budget in (S, *range(S + 2, C + 1)):
        output = student(points, budget=Budget(token_budget=budget, rule="paper"))
        mask = listing(output.probability, budget, S)
        assert torch.equal(output.assignment >= 0, mask)
        for row, used in zip(output.assignment, output.tokens_used, strict=True):
            assert used == len(set(row.tolist()) - {-1}) + (row < 0).sum()
            assert used <= (budget - 1 if S < budget < C else budget)
        same = student(points, budget=Budget(merged=mask.sum(dim=1)))
        assert torch.equal(output.features, same.features)
    few = Budget(token_budget=6, rule="paper", supertokens=2)
    output = student(points, budget=few)
    assert torch.equal(output.assignment >= 0, listing(output.probability, 6, 2))
    alone = student(points[:1], budget=few)
    assert torch.allclose(alone.features, output.features[:1], atol=1e-5)


def test_fewer_tokens_merge_at_larger_budgets(student: Student, points: torch.Tensor) -> None:
    """The set of merged tokens only grows as the budget shrinks, and so with the threshold."""
    before = torch.zeros(len(points), C, dtype=torch.bool)
    for budget in [Budget(token_budget=b) for b in range(C, S - 1, -1)]:
        merged = student(points, budget=budget).assignment >= 0
        assert (merged | ~before).all()
        before = merged
    assert before.any()
    before = torch.zeros_like(before)
    for budget in [Budget(ratio=r) for r in (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)]:
        merged = student(points, budget=budget).assignment >= 0
        assert (merged | ~before).all()
        before = merged
    assert before.all()


def test_a_number_of_merges_is_a_number_for_each_cloud(
    student: Student, points: torch.Tensor
) -> None:
    for count in (0, 5, C):
        one = student(points, budget=Budget(merged=count))
        each = student(points, budget=Budget(merged=torch.full((len(points),), count)))
        assert torch.equal(one.features, each.features)
        assert ((one.assignment >= 0).sum(dim=1) == count).all()


def test_all_tokens_is_the_teacher(
    student: Student, teacher: Backbone, points: torch.Tensor
) -> None:
    output = student(points, budget=Budget(token_budget=C))
    assert (output.assignment == -1).all()
    assert torch.allclose(output.features, teacher(points).features, atol=1e-5)


def test_nothing_kept_is_the_gateless_student(student: Student, points: torch.Tensor) -> None:
    plain = Student.from_teacher(Backbone(TINY), supertokens=S).eval()
    weights = {k: v for k, v in student.state_dict().items() if not k.startswith("gate.")}
    plain.load_state_dict(weights)
    expected, output = plain(points), student(points, budget=Budget(ratio=0))
    assert torch.allclose(output.features, expected.features, atol=1e-5)
    assert torch.equal(output.assignment, expected.assignment)
    assert torch.equal(output.tokens_used, expected.tokens_used)
    nested = student(points, budget=Budget(ratio=0, supertokens=2))
    expected = plain(points, budget=Budget(supertokens=2))
    assert torch.allclose(nested.features, expected.features, atol=1e-5)
    assert nested.assignment.max() < 2


@pytest.mark.parametrize(
    "budget",
    [Budget(ratio=0.4), Budget(ratio=0.6), Budget(token_budget=7), Budget(merged=5), Budget()],
    ids=str,
)
def test_packed_padded_and_one_by_one_agree(
    student: Student, points: torch.Tensor, budget: Budget
) -> None:
    padded, packed = (student(points, budget=replace(budget, packed=p)) for p in (False, True))
    assert torch.allclose(padded.features, packed.features, atol=1e-5)
    for i in range(len(points)):
        alone = student(points[i : i + 1], budget=budget)
        assert torch.allclose(alone.features[0], padded.features[i], atol=1e-5)
        assert alone.tokens_used[0] == padded.tokens_used[i]


def test_ratios_leave_ragged_batches(student: Student, points: torch.Tensor) -> None:
    """The test above is only about raggedness if the clouds really differ."""
    used = [student(points, budget=Budget(ratio=r)).tokens_used for r in (0.4, 0.5, 0.6)]
    assert max(clouds.unique().numel() for clouds in used) > 1


def test_threshold_is_strict(student: Student, points: torch.Tensor) -> None:
    probability = student(points).probability
    threshold = float(probability[0].sort().values[5].detach())
    output = student(points, budget=Budget(ratio=threshold))
    assert torch.equal(output.assignment >= 0, probability > threshold)


@pytest.mark.parametrize("ratio", [0.0, 0.4, 0.5, 0.7, 1.0])
def test_training_form_agrees_with_inference(
    student: Student, points: torch.Tensor, ratio: float
) -> None:
    """Without noise the dense form with its straight-through weights is the same function."""
    tokens, positions = student.embed_groups(student.group(points))
    compression = student.compression
    plan = compression.plan_training(tokens, Budget(ratio=ratio), None)
    entered = compression.enter(tokens, positions, plan)
    assert entered.tokens.shape[1] == S + C  # nothing is left out
    encoded = entered.encode(student.encoder)
    residual = student.residual(tokens, positions)
    dense = student.output(compression.restore(residual, plan, entered, encoded))
    sparse = student(points, budget=Budget(ratio=ratio))
    assert torch.allclose(dense, sparse.features, atol=1e-5)
    assert torch.equal(entered.used, sparse.tokens_used)
    assert torch.equal(plan.assignment, sparse.assignment)


def test_blocks_end_where_encode_does(student: Student, points: torch.Tensor) -> None:
    """The CAU of the normed last block is what encode returns; earlier blocks differ."""
    groups = student.group(points)
    for budget in (None, Budget(token_budget=6), Budget(ratio=0.5)):
        blocks = student.block_features(groups, range(TINY.depth), budget=budget)
        assert [tuple(b.shape) for b in blocks] == [(4, C, TINY.dim)] * TINY.depth
        student.encoder.norm, norm = torch.nn.Identity(), student.encoder.norm
        encoded = student.encode(groups, budget=budget)
        assert torch.allclose(encoded.features, blocks[-1], atol=1e-6)
        student.encoder.norm = norm


def test_selection_is_straight_through(generator: torch.Generator) -> None:
    probability = torch.rand(3, 8, generator=generator).requires_grad_(True)
    merged = torch.tensor([0, 3, 8])
    chosen = selection(probability, merged)
    assert torch.equal((chosen > 0.5).sum(dim=1), merged)
    assert torch.allclose(chosen, (chosen > 0.5).float(), atol=1e-6)
    weight = torch.randn(3, 8, generator=generator)
    (chosen * weight).sum().backward()
    assert torch.equal(probability.grad, weight)
    order = by_probability(probability)
    assert torch.equal(chosen.gather(1, order)[1] > 0.5, torch.arange(8) < 3)


def test_relative_probabilities_have_no_level(generator: torch.Generator) -> None:
    logits = torch.randn(3, 8, generator=generator).requires_grad_(True)
    (relative(logits.sigmoid()) * torch.randn(3, 8, generator=generator)).sum().backward()
    assert logits.grad.abs().max() > 1e-3
    assert torch.allclose(logits.grad.sum(dim=1), torch.zeros(3), atol=1e-6)


@pytest.mark.parametrize("through", [True, False])
def test_loss_reaches_the_gate_only_if_asked(
    teacher: Backbone, points: torch.Tensor, generator: torch.Generator, through: bool
) -> None:
    student = Student.from_teacher(teacher, supertokens=S, gate=True, gate_through=through)
    student.train()
    merged = torch.tensor([0, 5, 9, 12])
    output = student(points, budget=Budget(merged=merged), generator=generator)
    assert torch.equal((output.assignment >= 0).sum(dim=1), merged)
    (output.features**2).mean().backward()
    gradient = student.gate.fc1.weight.grad
    assert (gradient is not None and float(gradient.abs().max()) > 0) == through
    assert float(student.dso.value.weight.grad.abs().max()) > 0


def test_draws_cover_every_ratio_and_count(generator: torch.Generator) -> None:
    drawn = draw_merged(20000, 8, all_merged=0.25, generator=generator)
    shares = drawn.bincount(minlength=9) / 20000
    assert torch.allclose(shares[:8], torch.full((8,), 0.75 / 9), atol=0.01)
    assert abs(shares[8] - (0.25 + 0.75 / 9)) < 0.01
    counts = [draw_supertokens(12, whole=0.5, generator=generator) for _ in range(4000)]
    assert set(counts) == {1, 2, 4, 8, 12}
    assert abs(counts.count(12) / 4000 - 0.5) < 0.03
    assert abs(counts.count(2) / 4000 - 0.125) < 0.02
    assert draw_supertokens(1, whole=0.5, generator=generator) == 1


BAD = [
    {"ratio": float("nan")},
    {"ratio": -0.1},
    {"ratio": 1.5},
    {"ratio": "half"},
    {"token_budget": 0},
    {"token_budget": -3},
    {"token_budget": C + 1},
    {"token_budget": S - 1},
    {"token_budget": 5.0},
    {"token_budget": True},
    {"supertokens": 0},
    {"supertokens": S + 1},
    {"merged": -1},
    {"merged": C + 1},
    {"ratio": 0.5, "token_budget": 6},
    {"token_budget": 6, "merged": 3},
    {"token_budget": 6, "rule": "listing"},
    {"ratio": 0.5, "rule": "paper"},
]


@pytest.mark.parametrize("budget", BAD, ids=str)
def test_bad_budgets(student: Student, points: torch.Tensor, budget: dict) -> None:
    with pytest.raises(ValueError, match=r"must|give one") as found:
        student(points, budget=Budget(**budget))
    assert "\n" not in str(found.value)


def test_budgets_need_a_gate(teacher: Backbone, points: torch.Tensor) -> None:
    plain = Student.from_teacher(teacher, supertokens=S)
    for budget in (Budget(ratio=0.5), Budget(token_budget=8), Budget(merged=3)):
        with pytest.raises(ValueError, match="gate"):
            plain(points, budget=budget)
        with pytest.raises(ValueError, match="teacher"):
            teacher(points, budget=budget)
    assert plain(points, budget=Budget(supertokens=2)).assignment.max() < 2
    assert torch.equal(teacher(points, budget=Budget()).features, teacher(points).features)


def test_order_of_clouds_does_not_matter(student: Student, points: torch.Tensor) -> None:
    for order in itertools.islice(itertools.permutations(range(4)), 1, 6, 2):
        mixed = student(points[list(order)], budget=Budget(ratio=0.5))
        expected = student(points, budget=Budget(ratio=0.5)).features[list(order)]
        assert torch.allclose(mixed.features, expected, atol=1e-5)
