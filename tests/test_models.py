import numpy as np
import pytest
import torch
from conftest import TINY

import foundry3d
from foundry3d.baselines import RandomSampling
from foundry3d.config import BackboneConfig
from foundry3d.errors import InputError
from foundry3d.geometry import Groups, farthest_point_sample
from foundry3d.models.backbone import Backbone, untrained
from foundry3d.models.student import Student
from foundry3d.models.supertokens import DSO, key_bias
from foundry3d.models.tokenizer import GroupConv
from foundry3d.models.vit import Encoder

OPTIONS = [
    {},
    {"soft_assignment": True},
    {"dso_bias": True},
    {"cau_norm": True},
    {"supertoken_positions": True},
    {"dim": 12, "heads": 2},
]


def test_presets_have_the_published_sizes() -> None:
    count = {n: sum(p.numel() for p in Backbone.preset(n).parameters()) for n in ("vit_s", "vit_t")}
    assert round(count["vit_s"] / 1e6, 2) == 21.84
    assert count["vit_t"] < count["vit_s"] / 3
    with pytest.raises(InputError, match="vit_s"):
        Backbone.preset("vit_x")
    with pytest.raises(InputError, match="known are"):
        Backbone.preset("vit_s", width=3)


@pytest.mark.parametrize("options", OPTIONS)
def test_shapes_of_every_variant(teacher: Backbone, points: torch.Tensor, options: dict) -> None:
    student = Student.from_teacher(teacher, supertokens=5, **options)
    for mode in (True, False):
        out = student.train(mode)(points)
        assert out.features.shape == (4, 12, 24)
        assert out.centers.shape == (4, 12, 3)
        assert out.assignment is not None
        assert out.assignment.shape == (4, 12)
        assert int(out.assignment.min()) >= 0 and int(out.assignment.max()) < 5
        assert out.pooled().shape == (4, 48)
        used = out.tokens_used.tolist()
        chosen = [len(set(row)) for row in out.assignment.tolist()]
        assert used == ([5] * 4 if options.get("soft_assignment") else chosen)


def test_students_start_from_the_teacher(teacher: Backbone, points: torch.Tensor) -> None:
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    own = Student.from_teacher(teacher, supertokens=4).state_dict()
    for name, value in before.items():
        assert torch.equal(own[name], value)
    narrow = Student.from_teacher(teacher, supertokens=4, dim=12, heads=2).state_dict()
    assert torch.equal(narrow["tokenizer.mix.weight"], before["tokenizer.mix.weight"])
    assert narrow["token_bridge.weight"].shape == (12, 24)
    assert narrow["output.weight"].shape == (24, 12)
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())


def test_same_seed_same_student(teacher: Backbone) -> None:
    made = [
        Student.from_teacher(
            teacher, supertokens=4, generator=torch.Generator().manual_seed(seed)
        ).state_dict()
        for seed in (1, 1, 2)
    ]
    assert all(torch.equal(made[0][k], made[1][k]) for k in made[0])
    assert not torch.equal(made[0]["dso.supertokens"], made[2]["dso.supertokens"])


def test_masked_equals_dropped_supertokens(teacher: Backbone, points: torch.Tensor) -> None:
    student = Student.from_teacher(teacher, supertokens=9)
    tokens, positions = student.embed_groups(student.group(points))
    packed = student.dso(tokens, positions)
    assert not packed.used.all()
    masked = student.encoder(
        packed.supertokens, packed.positions, bias=key_bias(packed.used, tokens.dtype)
    )
    for i in range(len(points)):
        kept = packed.used[i]
        alone = student.encoder(
            packed.supertokens[i : i + 1, kept], packed.positions[i : i + 1, kept]
        )
        torch.testing.assert_close(masked[i, kept], alone[0], atol=1e-5, rtol=1e-5)
        full = student.cau(tokens[i : i + 1], packed.cam[i : i + 1], masked[i : i + 1])
        dropped = student.cau(tokens[i : i + 1], packed.cam[i : i + 1][..., kept], alone)
        torch.testing.assert_close(full, dropped, atol=1e-5, rtol=1e-5)


def test_dso_means_are_plain_means(generator: torch.Generator) -> None:
    dso = DSO(8, 4).eval()
    tokens, positions = torch.randn(2, 3, 10, 8, generator=generator).unbind(0)
    packed = dso(tokens, positions)
    values = dso.value(dso.norm(tokens))
    queries = dso.query(dso.supertokens)
    for b in range(3):
        keys = dso.key(dso.norm(tokens[b]))
        chosen = (keys @ queries.T / 8**0.5).argmax(dim=1)
        assert torch.equal(chosen, packed.assignment[b])
        for i in range(4):
            mine = chosen == i
            assert bool(packed.used[b, i]) == bool(mine.any())
            if mine.any():
                expected = dso.out(values[b, mine].mean(0))
                torch.testing.assert_close(packed.supertokens[b, i], expected)
                torch.testing.assert_close(packed.positions[b, i], positions[b, mine].mean(0))
    assert torch.equal(packed.cam.sum(-1), torch.ones(3, 10))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("heads", [1, 4])
def test_dso_conserves_the_sum_of_all_values(
    generator: torch.Generator, heads: int, soft: bool
) -> None:
    """Means times counts, over all supertokens, are the values and positions of all tokens."""
    dso = DSO(8, 5, heads=heads, soft=soft).eval()
    with torch.no_grad():
        dso.out.weight.copy_(torch.eye(8))
        dso.out.bias.zero_()
    tokens, positions = torch.randn(2, 3, 10, 8, generator=generator).unbind(0)
    packed = dso(tokens, positions)
    maps = packed.cam if heads > 1 else packed.cam[:, None]
    counts = maps.sum(dim=2)  # of every head and supertoken
    torch.testing.assert_close(counts.sum(dim=2), torch.full((3, heads), 10.0))
    slices = packed.supertokens.unflatten(-1, (heads, -1)).transpose(1, 2)
    total = (counts[..., None] * slices).sum(dim=2).flatten(1)
    torch.testing.assert_close(total, dso.value(dso.norm(tokens)).sum(dim=1))
    placed = (counts.sum(dim=1)[..., None] * packed.positions).sum(dim=1)
    torch.testing.assert_close(placed, heads * positions.sum(dim=1))


def test_gumbel_draws_per_cloud_and_carries_gradients(generator: torch.Generator) -> None:
    dso = DSO(8, 4).train()
    tokens = torch.randn(1, 10, 8, generator=generator).expand(32, -1, -1).clone().requires_grad_()
    packed = dso(tokens, torch.zeros(32, 10, 8), generator)
    assert len(packed.assignment.unique(dim=0)) > 8
    torch.testing.assert_close(packed.cam.sum(-1), torch.ones(32, 10))
    packed.supertokens.square().sum().backward()
    assert dso.query.weight.grad is not None
    assert dso.query.weight.grad.abs().sum() > 0


def test_gumbel_choice_frequencies_follow_softmax() -> None:
    dso = DSO(8, 3).train()
    logits = torch.tensor([0.0, 1.0, 2.0]).expand(1, 40_000, 3)
    cam = dso.assign(logits, torch.Generator().manual_seed(0))
    torch.testing.assert_close(cam.mean(dim=(0, 1)), logits[0, 0].softmax(0), atol=0.01, rtol=0)


def test_order_of_points_does_not_matter(
    teacher: Backbone, points: torch.Tensor, generator: torch.Generator
) -> None:
    # Index 0 starts the sampling, so it stays; all else is shuffled.
    order = torch.cat(
        [torch.zeros(1, dtype=torch.long), 1 + torch.randperm(95, generator=generator)]
    )
    for model in (teacher, Student.from_teacher(teacher, supertokens=4)):
        torch.testing.assert_close(
            model(points).features, model(points[:, order]).features, atol=1e-5, rtol=1e-5
        )


def test_order_of_tokens_does_not_matter(
    teacher: Backbone, points: torch.Tensor, generator: torch.Generator
) -> None:
    groups = teacher.group(points)
    order = torch.randperm(12, generator=generator)
    shuffled = Groups(groups.centers[:, order], groups.neighborhoods[:, order])
    for model in (teacher, Student.from_teacher(teacher, supertokens=4)):
        torch.testing.assert_close(
            model.encode(groups).features[:, order],
            model.encode(shuffled).features,
            atol=1e-5,
            rtol=1e-5,
        )


def test_tokens_ignore_translation_and_assignment_follows(
    teacher: Backbone, points: torch.Tensor
) -> None:
    student = Student.from_teacher(teacher, supertokens=4)
    here, there = student.group(points), student.group(points + 0.5)
    torch.testing.assert_close(
        student.embed_groups(here)[0], student.embed_groups(there)[0], atol=1e-4, rtol=1e-4
    )
    assert torch.equal(student.encode(here).assignment, student.encode(there).assignment)
    assert not torch.allclose(student.encode(here).features, student.encode(there).features)


def test_batches_do_not_mix_clouds(teacher: Backbone, points: torch.Tensor) -> None:
    for model in (teacher, Student.from_teacher(teacher, supertokens=6)):
        together = model(points).features
        alone = torch.cat([model(cloud[None]).features for cloud in points])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_training_draws_a_start_for_each_cloud(teacher: Backbone, points: torch.Tensor) -> None:
    same = points[:1].expand(16, -1, -1)
    g = torch.Generator().manual_seed(0)
    assert len(teacher.train().group(same, generator=g).centers[:, 0].unique(dim=0)) > 8
    assert torch.equal(teacher.eval().group(same).centers[:, 0], same[:, 0])


def test_merged_group_convolution_is_the_plain_one(generator: torch.Generator) -> None:
    mix = GroupConv(10, 7)
    x = torch.randn(6, 4, 5, generator=generator)
    plain = torch.cat([x.amax(1, keepdim=True).expand_as(x), x], dim=-1)
    torch.testing.assert_close(mix(x), torch.nn.functional.linear(plain, mix.weight, mix.bias))


def test_hidden_keys_do_not_influence(generator: torch.Generator) -> None:
    encoder = Encoder(16, 2, 2).eval()
    x, p = torch.randn(2, 3, 9, 16, generator=generator).unbind(0)
    real = torch.ones(3, 9, dtype=torch.bool)
    real[:, 6:] = False
    out = encoder(x, p, bias=key_bias(real, x.dtype))
    torch.testing.assert_close(out[:, :6], encoder(x[:, :6], p[:, :6]), atol=1e-5, rtol=1e-5)


def test_explicit_attention_is_the_fused_one(generator: torch.Generator) -> None:
    encoder = Encoder(16, 2, 2, attention_dropout=1e-12)
    x, p = torch.randn(2, 3, 9, 16, generator=generator).unbind(0)
    bias = torch.randn(3, 9, generator=generator)
    torch.testing.assert_close(
        encoder.train()(x, p, bias=bias), encoder.eval()(x, p, bias=bias), atol=1e-5, rtol=1e-5
    )


def test_dropping_whole_paths_leaves_the_input(generator: torch.Generator) -> None:
    encoder = Encoder(16, 3, 2, drop_path=1 - 1e-9, constant_drop_path=True).train()
    x, p = torch.randn(2, 3, 9, 16, generator=generator).unbind(0)
    out = encoder.states(x, p, generator=generator)[-1]
    torch.testing.assert_close(out, x + 3 * p)


def test_untrained_statistics_are_those_of_the_data(points: torch.Tensor) -> None:
    model = untrained(Backbone(TINY).eval(), points)
    lifted = model.tokenizer.lift(model.group(points).neighborhoods.reshape(-1, 3))
    torch.testing.assert_close(model.tokenizer.lift_norm.running_mean, lifted.mean(0))
    assert not any(part.training for part in model.modules())


def test_random_sampling_of_all_tokens_is_the_teacher(teacher: Backbone, points) -> None:
    everything = RandomSampling(teacher, 12)(points)
    torch.testing.assert_close(everything.pooled(), teacher(points).pooled(), atol=1e-5, rtol=1e-5)
    few = RandomSampling(teacher, 3)
    assert torch.equal(few(points).features, few(points).features)
    assert few(points).features.shape == (4, 3, 24)
    with pytest.raises(InputError):
        RandomSampling(teacher, 13)


def test_bad_sizes_are_refused(teacher: Backbone) -> None:
    for call in (
        lambda: Student.from_teacher(teacher, supertokens=0),
        lambda: Student.from_teacher(teacher, supertokens=13),
        lambda: Student.from_teacher(teacher, supertokens=4, temperature=0.0),
        lambda: Student.from_teacher(teacher, supertokens=4, nonsense=1),
        lambda: BackboneConfig(dim=100, heads=3),
        lambda: BackboneConfig(groups=0),
        lambda: BackboneConfig(drop_path=1.0),
    ):
        with pytest.raises(InputError):
            call()


def test_point_jepa_reference(parity, sizes) -> None:
    found = np.load(parity / "pointjepa.npz")
    names = torch.load(parity / "pointjepa.ckpt", weights_only=True)["state_dict"]
    same = ("group_size", "dim", "depth", "heads", "point_widths", "position_dim")
    given = {name: sizes[name] for name in same} | {"groups": sizes["num_groups"]}
    model = Backbone(BackboneConfig(**given)).eval()
    weights = {}
    for name in model.state_dict():
        theirs = name.replace("encoder.", "student.", 1).replace(
            "position.", "positional_encoding."
        )
        theirs = theirs.replace(".fc", ".mlp.fc")
        for ours, layer in {
            "lift_norm": "first_conv.1",
            "lift": "first_conv.0",
            "widen": "first_conv.3",
            "mix_norm": "second_conv.1",
            "mix": "second_conv.0",
            "project": "second_conv.3",
        }.items():
            theirs = theirs.replace(f"tokenizer.{ours}.", f"tokenizer.embedding.encoder.{layer}.")
        value = names[theirs]
        weights[name] = value.squeeze(-1) if value.ndim == 3 else value
    model.load_state_dict(weights)
    points = torch.from_numpy(found["points"])
    groups = model.group(points)
    assert np.array_equal(farthest_point_sample(points, 16).numpy(), found["fps_index"])
    assert np.array_equal(groups.centers.numpy(), found["centers"])
    tokens, positions = model.embed_groups(groups)
    states = model.encoder.states(tokens, positions)
    for ours, name in ((tokens, "tokens"), (positions, "pos"), (model(points).features, "output")):
        np.testing.assert_allclose(ours.detach().numpy(), found[name], atol=1e-5)
    for ours, theirs in zip(states, found["hidden"], strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs, atol=1e-5)


def test_public_names_exist() -> None:
    for name in foundry3d.__all__:
        assert getattr(foundry3d, name).__doc__
    with pytest.raises(AttributeError):
        _ = foundry3d.nonsense
