"""Points of every kind at the door of models and of `embed_clouds`."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import foundry3d
from foundry3d.embed.clouds import embed_clouds
from foundry3d.errors import InputError
from foundry3d.heads.classifier import Classifier
from foundry3d.heads.segmenter import Segmenter
from foundry3d.models.backbone import Backbone, Tokens
from foundry3d.models.student import Student

NAN = float("nan")


def models(teacher: Backbone) -> dict[str, Any]:
    student = Student.from_teacher(teacher, supertokens=4)
    return {
        "backbone": teacher,
        "student": student,
        "compiled": foundry3d.compile(student),
        "classifier": Classifier.from_model(teacher, classes=("a", "b")),
    }


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (Tensor.numpy, "got a ndarray; convert it"),
        (Tensor.tolist, "got a list; convert it"),
        (Tensor.long, "floating-point"),
        (Tensor.double, r"the points are torch.float64, the weights torch.float32"),
        (Tensor.half, r"the points are torch.float16, the weights torch.float32"),
        (lambda points: points.to("meta"), "the points are on meta, the model on cpu"),
        (lambda points: points[0], "shape"),
        (lambda points: points * 1e30, "scale the clouds"),
        (lambda points: points * NAN, "NaN"),
    ],
)
def test_models_refuse_points_of_another_kind(
    teacher: Backbone, points: Tensor, change: Any, says: str, training: bool
) -> None:
    for name, model in models(teacher).items():
        with pytest.raises(InputError, match=says):
            model.train(training and name != "compiled")(change(points))


def test_segmenters_refuse_points_of_another_kind(teacher: Backbone, points: Tensor) -> None:
    model = Segmenter.from_model(
        teacher, categories=("a",), parts=("x", "y"), owned=((0, 1),)
    ).eval()
    for bad in (points.numpy(), points.tolist(), points.double()):
        with pytest.raises(InputError, match="convert"):
            model(bad, torch.zeros(4, dtype=torch.int64))


def test_models_take_points_that_go_with_their_weights(teacher: Backbone, points: Tensor) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert teacher(points.bfloat16()).features.isfinite().all()
    assert teacher.double()(points.double()).features.dtype == torch.float64
    with pytest.raises(InputError, match=r"torch.float32, the weights torch.float64"):
        teacher(points)


@pytest.mark.parametrize(
    "change",
    [
        Tensor.numpy,
        Tensor.tolist,
        lambda cloud: cloud.clone().requires_grad_(),
        lambda cloud: cloud.T.contiguous().T,
        lambda cloud: np.ma.masked_array(cloud.numpy(), mask=False),
        Tensor.double,
    ],
)
def test_clouds_of_every_kind_are_embedded(teacher: Backbone, points: Tensor, change: Any) -> None:
    plain = embed_clouds(teacher, [points[0].numpy()])[0]
    (found,) = embed_clouds(teacher, [change(points[0])])
    torch.testing.assert_close(found.features, plain.features)
    assert not found.features.requires_grad


def test_short_types_are_embedded_as_what_they_hold(teacher: Backbone, points: Tensor) -> None:
    def of(cloud: Any) -> Tokens:
        return embed_clouds(teacher, [cloud])[0]

    for kind in (torch.bfloat16, torch.float16):
        short = points[0].to(kind)
        assert torch.equal(of(short).features, of(short.float().numpy()).features)


@pytest.mark.parametrize(
    ("cloud", "says"),
    [
        ([[0.0, 1.0, 2.0], [3.0, 4.0]], "a list that is none"),
        (np.ma.masked_array(np.eye(3).repeat(9, 0), mask=np.eye(3).repeat(9, 0)), "masked"),
        (torch.eye(3).to_sparse(), "sparse or nested"),
        ([["a", "b", "c"]] * 20, "real numbers"),
        (None, "real numbers"),
        (5, "real numbers"),
        ({"points": 1}, "real numbers"),
    ],
)
def test_what_is_no_cloud_is_named(
    teacher: Backbone, points: Tensor, cloud: Any, says: str
) -> None:
    with pytest.raises(InputError, match=f"cloud 1: .*{says}"):
        embed_clouds(teacher, [points[0].numpy(), cloud])
