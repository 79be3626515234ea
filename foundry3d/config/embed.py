"""Options of `foundry3d embed`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from foundry3d.config.cluster import ClusterConfig
from foundry3d.config.data import MOST_POINTS
from foundry3d.config.reading import check_normals, check_reading
from foundry3d.config.records import not_negative, positive, positive_or_null, require


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """`foundry3d embed`: features of point clouds and meshes in files.

    Attributes:
        files: point-cloud and mesh files, folders of them, globs, or shards of `data pack`.
        model: a shipped model (its name), a saved one (its folder), or a checkpoint file of another
            project.
        out: the .npz archive to write, which replaces an earlier one when it is complete; or, with
            a / at its end, a folder of Parquet parts, in which a stopped command goes on.
        format: npz (everything is in memory until the end) or parquet (in parts); null = parquet
            for a folder and for shards, else npz.
        block: parquet: files of one part, of which a shard is one; and clouds whose features are in
            memory at a time.
        tokens: parquet: also each cloud's token features and centers, as float16.
        points: a random subset of each cloud; null = all of its points.
        samples: points drawn from the surface of each mesh.
        columns: of text tables, the columns that hold coordinates: x=NAME,y=NAME,z=NAME, with
            names of the header or numbers from 1; null = as the header says.
        invalid: points with NaN or infinite coordinates are left out (drop), or their cloud is
            (refuse); null = drop in files as depth cameras write them (pcd, ply without faces).
        normals: estimate = normals are estimated where the model reads them and a file has none.
        seed: of the subsets and of the draws from meshes.
        up: the axis that points up in the files; null = the same as in the model's training.
        normalise: centre each cloud and scale it into the unit sphere; null = as in the model's
            training, and yes where that is not recorded.
        batch_size: clouds of equal size that go through the model together.
        token_budget: exactly this many tokens enter the encoder (students with a gate).
        ratio: tokens whose fusion probability is higher are merged (students with a gate).
        supertokens: use only this many of the student's supertokens.
        points_per_token: treat every cloud as a scene, streamed in chunks, with one token per this
            many points (16 is the ratio of 1024 points and 64 tokens); null = the model's number
            of tokens.
        windows: encode a scene in windows of at most this many neighbouring tokens, independently;
            the model's `groups` is what it was trained on.
        zoom: multiply the neighbourhoods of a scene by this; null = bring them to the size that
            the model knows, where it was trained on clouds in the unit sphere, else 1. Not with
            windows.
        device: where the model runs: cpu, cuda, or auto for cuda where there is one.
        compile: the inference form of the model (`foundry3d.compile`), which is faster; its
            features agree with the plain ones to 1e-5.
        precision: of the inference form: fp32 or bf16.
        dense: a .npy file to write, with one float16 feature per point of every scene.
        picture: a .png file to draw, with the scenes coloured by the main directions of their
            features.
        cluster: parquet: parts are made by processes or by the jobs of a cluster.
    """

    files: tuple[str, ...] = ()
    model: str = "mini"
    out: str = "features.npz"
    format: Literal["npz", "parquet"] | None = None
    block: int = 1024
    tokens: bool = False
    points: int | None = None
    samples: int = 16384
    columns: str | None = None
    invalid: Literal["drop", "refuse"] | None = None
    normals: Literal["estimate"] | None = None
    seed: int = 0
    up: Literal["x", "y", "z"] | None = None
    normalise: bool | None = None
    batch_size: int = 16
    token_budget: int | None = None
    ratio: float | None = None
    supertokens: int | None = None
    points_per_token: int | None = None
    windows: int | None = None
    zoom: float | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = True
    precision: Literal["fp32", "bf16"] = "fp32"
    dense: str | None = None
    picture: str | None = None
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        require(len(self.files) > 0, "name files to embed: foundry3d embed FILES")
        require(bool(self.model), "name a model with --model, or leave it out for mini")
        positive(self, "batch_size", "block")
        positive(self, "samples", most=MOST_POINTS)
        positive_or_null(self, "points", "token_budget", "supertokens")
        not_negative(self, "seed")
        require(
            self.ratio is None or 0 <= self.ratio <= 1,
            f"ratio must lie in [0, 1] or be null, got {self.ratio}",
        )
        require(self.up in (None, "x", "y", "z"), f"up is one of x, y, z; got {self.up!r}")
        check_reading(self.columns, self.invalid)
        self._check_form()
        check_normals(self.normals)
        self._check_scene()
        self._check_parts()

    @property
    def in_parts(self) -> bool:
        """Whether the options ask for a folder of parts."""
        return self.format == "parquet" or (self.format is None and self.out.endswith("/"))

    def _check_parts(self) -> None:
        require(
            self.format in (None, "npz", "parquet"),
            f"format is one of npz, parquet; got {self.format!r}",
        )
        if self.in_parts:
            require(
                self.points_per_token is None,
                "scenes (--points_per_token) are written to one .npz; name a file with --out",
            )
            return
        require(not self.tokens, "tokens are always in an .npz; for parts end --out with a /")
        require(
            self.cluster.engine is None,
            "--cluster shares parts among tasks; end --out with a / for a folder of parts",
        )

    def _check_form(self) -> None:
        for name, known in (("device", ("auto", "cpu", "cuda")), ("precision", ("fp32", "bf16"))):
            value = getattr(self, name)
            require(value in known, f"{name} is one of {', '.join(known)}; got {value!r}")
        require(
            self.compile or self.precision == "fp32",
            "bf16 is a precision of the inference form; leave --compile false out",
        )

    def _check_scene(self) -> None:
        positive_or_null(self, "points_per_token", "windows", "zoom")
        for name in ("windows", "zoom", "dense", "picture"):
            require(
                self.points_per_token is not None or getattr(self, name) is None,
                f"{name} is for scenes; add --points_per_token, e.g. 16",
            )
        require(
            self.windows is None or self.zoom is None,
            "give windows or zoom, not both: windows are brought to the size that the model knows",
        )
        require(
            self.dense is None or self.points is None,
            "dense writes one feature per point of the file; leave --points out",
        )
