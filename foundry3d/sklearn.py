"""Features as a transformer of scikit-learn, for pipelines and grid searches.

    from foundry3d.sklearn import Features

    pipeline = make_pipeline(Features("runs/s16/model"), StandardScaler(), LinearSVC())
    pipeline.fit(clouds, labels)

Shapes: n clouds, N points of a cloud, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from foundry3d.checkpoints.folder import load_backbone
from foundry3d.checkpoints.policy import Policy, read_policy
from foundry3d.checkpoints.zoo import shipped
from foundry3d.embed.clouds import embed_clouds
from foundry3d.errors import InputError
from foundry3d.extras import explained
from foundry3d.heads.classifier import Inner

with explained():
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils.validation import check_is_fitted

MODEL = "mini"


class Features(TransformerMixin, BaseEstimator):
    """Clouds to one feature vector each: the maximum and the mean over their tokens.

    Nothing is learned: `fit` only loads the model. Clouds may differ in size, and are arrays
    (N, 3), tensors, or objects of Open3D and trimesh, as `foundry3d.embed_clouds` takes them.

    Args:
        model: a saved model, the name of one that ships, or a model.
        up: the axis that points up in the clouds; None = as in the model's training.
        normalise: centre and scale each cloud; None = as in the model's training.
        points: size of a random subset of each cloud; None = all points.
        seed: of the subsets, and of the points that are drawn from meshes.
        batch: how many clouds of equal size go through the model at once.
        device: where a saved model runs; a model that is given stays where it is.

    Attributes:
        model_: the model, once fitted.
        n_features_out_: 2d.
    """

    def __init__(
        self,
        model: Any = MODEL,
        *,
        up: str | None = None,
        normalise: bool | None = None,
        points: int | None = None,
        seed: int = 0,
        batch: int = 16,
        device: str = "cpu",
    ) -> None:
        self.model = model
        self.up = up
        self.normalise = normalise
        self.points = points
        self.seed = seed
        self.batch = batch
        self.device = device

    def fit(self, X: Sequence[Any], y: Any = None) -> Features:
        """Loads the model; the clouds and labels are not looked at.

        Raises:
            InputError: the model cannot be loaded, or returns no token features.
        """
        policy = Policy(normalise=self.normalise is not False)
        model: Any = self.model
        if not isinstance(model, torch.nn.Module):
            path = shipped(model) or model
            model = load_backbone(path)
            policy, _ = read_policy(path, up=self.up, normalise=self.normalise)
        elif self.up is not None:
            raise InputError("up is for saved models, which record the axis of their training")
        if not isinstance(model, Inner):
            raise InputError(f"expected a backbone or a student, got a {type(model).__name__}")
        self.policy_ = replace(policy, points=self.points, seed=self.seed)
        self.model_ = model if model is self.model else model.to(self.device)
        self.n_features_out_ = 2 * self.model_.output_dim
        return self

    def transform(self, X: Sequence[Any]) -> np.ndarray:
        """Features (n, 2d) float32 of n clouds.

        Raises:
            InputError: a cloud that cannot be used, named by its index.
        """
        check_is_fitted(self, "model_")
        if not len(X):
            return np.zeros((0, self.n_features_out_), np.float32)
        found = embed_clouds(self.model_, X, policy=self.policy_, batch=self.batch)
        return torch.cat([tokens.pooled() for tokens in found]).float().numpy()

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the features: `max0` to the width of the model, then `mean0` and so on."""
        check_is_fitted(self, "model_")
        width = self.n_features_out_ // 2
        return np.array([f"{kind}{i}" for kind in ("max", "mean") for i in range(width)], object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.two_d_array = False
        tags.no_validation = True
        return tags
