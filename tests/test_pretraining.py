import numpy as np
import pytest
import torch
from conftest import TINY

from foundry3d.config import JepaConfig, MaskedConfig
from foundry3d.errors import InputError
from foundry3d.models.backbone import Backbone
from foundry3d.training.jepa import Jepa, Predictor, context_mask, padded, target_masks
from foundry3d.training.mae import MaskedReconstruction, chamfer, random_mask

CPU = torch.device("cpu")
SMALL = JepaConfig(predictor_dim=12, predictor_depth=2, predictor_heads=3)


def runs(mask: torch.Tensor) -> torch.Tensor:
    """How many separate runs of true there are along the last axis."""
    edges = torch.nn.functional.pad(mask.int(), (1, 0)).diff(dim=-1)
    return (edges == 1).sum(-1)


def test_targets_are_runs_of_the_stated_length(generator: torch.Generator) -> None:
    masks = target_masks(200, 64, JepaConfig(), device=CPU, generator=generator)
    assert masks.shape == (200, 4, 64)
    assert (runs(masks) == 1).all()
    lengths = masks.sum(-1)
    assert (lengths == lengths[:, :1]).all()
    assert set(lengths.flatten().tolist()) == {9, 10, 11, 12}
    starts = masks.int().argmax(-1)
    assert int(starts.min()) == 0
    assert len(starts.unique(dim=0)) > 190


def test_context_is_a_run_of_uncovered_tokens(generator: torch.Generator) -> None:
    targets = target_masks(200, 64, JepaConfig(), device=CPU, generator=generator)
    context = context_mask(targets, JepaConfig(), generator=generator)
    free = ~targets.any(dim=1)
    assert not (context & ~free).any()
    share = context.sum(-1) / free.sum(-1)
    assert float(share.min()) > 0.3
    assert float(share.max()) <= 0.75
    for row, open_ in zip(context, free, strict=True):
        assert int(runs(row[open_])) == 1
    everywhere = torch.ones(3, 2, 10, dtype=torch.bool)
    assert (context_mask(everywhere, JepaConfig(), generator=generator).sum(-1) >= 1).all()


def test_padding_finds_every_true_entry(generator: torch.Generator) -> None:
    mask = torch.rand(7, 20, generator=generator) < 0.4
    index, real = padded(mask)
    for row, places, valid in zip(mask, index, real, strict=True):
        assert torch.equal(places[valid], row.nonzero()[:, 0])
        assert len(places.unique()) == len(places)


def test_padded_predictions_equal_single_ones(generator: torch.Generator) -> None:
    predictor = Predictor(24, SMALL, 16).eval()
    context = torch.randn(2, 6, 24, generator=generator)
    seen, asked = torch.randn(2, 2, 6, 3, generator=generator).unbind(0)
    real = torch.ones(2, 12, dtype=torch.bool)
    real[1, 4:6] = False
    real[1, 9:] = False
    both = predictor(context, seen, asked, real=real)
    alone = predictor(context[1:, :4], seen[1:, :4], asked[1:, :3])
    torch.testing.assert_close(both[1:, :3], alone, atol=1e-5, rtol=1e-5)


def test_jepa_targets_and_gradients(teacher: Backbone, points, generator) -> None:
    jepa = Jepa(teacher.train(), SMALL, generator=generator)
    loss, monitors = jepa(teacher.group(points, generator=generator), generator=generator)
    loss.backward()
    assert loss > 0
    assert float(monitors["target_std"]) > 0
    assert all(p.grad is None for p in jepa.target_encoder.parameters())
    assert teacher.tokenizer.lift.weight.grad is not None
    assert jepa.predictor.mask_token.grad is not None
    tokens, positions = teacher.embed_groups(teacher.group(points))
    goal = jepa.target_features(tokens, positions)
    torch.testing.assert_close(goal.mean(-1), torch.zeros(4, 12), atol=1e-5, rtol=0)
    torch.testing.assert_close(goal.var(-1, correction=0), torch.ones(4, 12), atol=1e-3, rtol=0)


def test_ema_moves_by_its_decay(teacher: Backbone) -> None:
    jepa = Jepa(teacher, JepaConfig(predictor_dim=12, predictor_heads=3, ema_start=0.9, ema_end=1))
    with torch.no_grad():
        teacher.encoder.norm.weight.add_(1.0)
    before = jepa.target_encoder.norm.weight.clone()
    assert jepa.update_target(0.5) == pytest.approx(0.95)
    torch.testing.assert_close(jepa.target_encoder.norm.weight, before + 0.05)
    jepa.update_target(0.5, copy_weights=True)
    assert torch.equal(jepa.target_encoder.norm.weight, teacher.encoder.norm.weight)


def test_predictor_reference(parity, sizes) -> None:
    found = np.load(parity / "pointjepa.npz")
    state = torch.load(parity / "pointjepa.ckpt", weights_only=True)["state_dict"]
    config = JepaConfig(
        predictor_dim=sizes["predictor_dim"], predictor_depth=2, predictor_heads=sizes["heads"]
    )
    predictor = Predictor(sizes["dim"], config, sizes["position_dim"])
    renamed = {}
    for name in predictor.state_dict():
        theirs = "predictor." + (
            name.replace("embed.", "predictor_embed.")
            .replace("position.", "positional_encoding.")
            .replace("project.", "predictor_proj.")
            .replace("encoder.", "predictor.")
            .replace(".fc", ".mlp.fc")
        )
        renamed[name] = state[theirs].reshape(predictor.state_dict()[name].shape)
    predictor.load_state_dict(renamed)
    context, seen, asked = (
        torch.from_numpy(found[f"predictor_{n}"])
        for n in ("context", "context_centers", "target_centers")
    )
    out = predictor.eval()(context, seen, asked)
    np.testing.assert_allclose(out.detach().numpy(), found["predictor_output"], atol=1e-5)


def test_masks_split_the_tokens_per_cloud(generator: torch.Generator) -> None:
    seen, hidden = random_mask(50, 10, 6, device=CPU, generator=generator)
    both = torch.cat([seen, hidden], dim=1).sort(dim=1).values
    assert torch.equal(both, torch.arange(10).expand(50, 10))
    assert len(hidden.sort(dim=1).values.unique(dim=0)) > 20


def test_chamfer_is_the_slow_double_loop(generator: torch.Generator) -> None:
    a, b = torch.randn(5, 3, generator=generator), torch.randn(7, 3, generator=generator)
    there = torch.stack([min((p - q).square().sum() for q in b) for p in a]).mean()
    back = torch.stack([min((p - q).square().sum() for p in a) for q in b]).mean()
    torch.testing.assert_close(chamfer(a, b), there + back)
    assert chamfer(a, a[torch.randperm(5, generator=generator)]) == 0


def test_reconstruction_learns_and_hides(teacher: Backbone, points, generator) -> None:
    config = MaskedConfig(decoder_depth=1, decoder_heads=3)
    model = MaskedReconstruction(teacher.train(), config, generator=generator)
    assert model.masked == 7
    groups = teacher.group(points, generator=generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = model(groups, generator=generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])
    with pytest.raises(InputError, match="at least one"):
        MaskedReconstruction(Backbone(TINY), MaskedConfig(mask_ratio=0.05, decoder_heads=3))
