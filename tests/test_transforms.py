import torch

from foundry3d import transforms
from foundry3d.config import AugmentConfig

EVERYTHING = AugmentConfig(scale=(0.5, 2.0), flip=True, rotate=True, translate=0.2)


def test_nothing_is_changed_in_place(points: torch.Tensor, generator: torch.Generator) -> None:
    before = points.clone()
    transforms.augment(points, EVERYTHING, up="z", generator=generator)
    transforms.normalise(points)
    transforms.subsample(points, 10, how="random", generator=generator)
    assert torch.equal(points, before)


def test_every_cloud_draws_its_own(points: torch.Tensor, generator: torch.Generator) -> None:
    same = points[:1].expand(6, -1, -1)
    for config in (
        AugmentConfig(rotate=False, normalise=False),
        AugmentConfig(scale=(1, 1)),
        EVERYTHING,
    ):
        out = transforms.augment(same, config, up="y", generator=generator)
        assert len(out.flatten(1).unique(dim=0)) == 6
    for how in ("random", "fps"):
        out = transforms.subsample(same, 20, how=how, generator=generator)
        assert len(out.flatten(1).unique(dim=0)) > 3


def test_flip_mirrors_some_clouds_exactly(points: torch.Tensor) -> None:
    g = torch.Generator().manual_seed(0)
    config = AugmentConfig(scale=(1, 1), flip=True, rotate=False, normalise=False)
    many = points[:1].expand(64, -1, -1)
    out = transforms.augment(many, config, up="z", generator=g)
    mirrored = many * torch.tensor([-1.0, 1.0, 1.0])
    is_same, is_mirror = (out == many).all((1, 2)), (out == mirrored).all((1, 2))
    assert (is_same | is_mirror).all()
    assert 16 < int(is_mirror.sum()) < 48


def test_rotation_keeps_heights_and_lengths(points: torch.Tensor) -> None:
    angle = torch.tensor([0.3, -2.0, 3.0, 1.0])
    for axis, name in enumerate("xyz"):
        turned = transforms.rotate_about(points, angle, name)
        assert torch.equal(turned[..., axis], points[..., axis])
        torch.testing.assert_close(turned.norm(dim=-1), points.norm(dim=-1))
        torch.testing.assert_close(transforms.rotate_about(turned, -angle, name), points)


def test_normalised_clouds_fill_the_unit_sphere(points: torch.Tensor) -> None:
    out = transforms.normalise(points * 7 + 100)
    torch.testing.assert_close(out.mean(1), torch.zeros(4, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.norm(dim=-1).amax(1), torch.ones(4))
    torch.testing.assert_close(out, transforms.normalise(points), atol=1e-4, rtol=0)
    assert torch.equal(transforms.normalise(torch.ones(1, 5, 3)), torch.zeros(1, 5, 3))


def test_subsampling_keeps_distinct_points(points: torch.Tensor, generator) -> None:
    for how in ("random", "fps"):
        out = transforms.subsample(points, 50, how=how, generator=generator)
        for cloud, source in zip(out, points, strict=True):
            assert len(cloud.unique(dim=0)) == 50
            assert (cloud[:, None] == source[None]).all(-1).any(1).all()
    assert transforms.subsample(points, 96, how="random", generator=generator) is points
