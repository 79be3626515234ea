import numpy as np
import pytest
import torch

from foundry3d.models import upsample
from foundry3d.models.upsample import FeatureUpsampling, interpolate


def test_reference(parity) -> None:
    found = np.load(parity / "upsampling.npz")
    model = FeatureUpsampling(48, (48, 48)).eval()
    weights = {}
    for name in model.state_dict():
        theirs = "state." + name.replace("convs.", "mlp_convs.").replace("norms.", "mlp_bns.")
        value = torch.from_numpy(found[theirs])
        weights[name] = value.squeeze(-1) if value.ndim == 3 else value
    model.load_state_dict(weights)
    out = model(*(torch.from_numpy(found[n]) for n in ("points", "centers", "features")))
    np.testing.assert_allclose(out.detach().numpy(), found["output"], atol=1e-5)


def test_interpolation_keeps_constants_and_hits_the_centers(generator: torch.Generator) -> None:
    points = torch.randn(2, 40, 3, generator=generator)
    centers = torch.randn(2, 9, 3, generator=generator)
    features = torch.randn(2, 9, 5, generator=generator)
    same = interpolate(points, centers, torch.ones(2, 9, 5))
    torch.testing.assert_close(same, torch.ones(2, 40, 5))
    torch.testing.assert_close(
        interpolate(centers, centers, features), features, atol=1e-4, rtol=1e-4
    )
    low, high = features.amin(1, keepdim=True), features.amax(1, keepdim=True)
    between = interpolate(points, centers, features)
    assert ((between >= low - 1e-5) & (between <= high + 1e-5)).all()
    two = interpolate(points, centers[:, :2], features[:, :2])
    assert two.shape == (2, 40, 5)


def test_both_ways_to_interpolate_agree(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = torch.randn(2, 40, 3, generator=generator)
    centers = points[:, ::5].clone()
    features = torch.randn(2, 8, 5, generator=generator).requires_grad_(True)
    goal = torch.randn(2, 40, 5, generator=generator)
    found = []
    for most in (2**25, 0):
        monkeypatch.setattr(upsample, "MOST_SHARES", most)
        made = upsample.interpolate(points, centers, features)
        (gradient,) = torch.autograd.grad((made * goal).sum(), features)
        found.append((made, gradient))
    for product, gathered in zip(*found, strict=True):
        assert torch.allclose(product, gathered, atol=1e-5)
