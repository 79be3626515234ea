"""What students a search chooses from, and the rivals that every search tries first."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

from optuna import Trial

from foundry3d.config import BackboneConfig, StudentOptions

MOST_SUPERTOKENS = 32
MOST_AFTER = 3
"""The most blocks on all tokens before the supertokens."""
LEAST_POINTS = 4
"""The smallest groups that are tried."""

Parameters = dict[str, Any]
"""A candidate as the study keeps it; see `suggest`."""


class Space(NamedTuple):
    """The values of each parameter for a teacher, the teacher's own first.

    Attributes:
        teacher: its sizes.
        dims: encoder widths, with the teacher's width of a head.
        widths: of the tokenizer, as text such as `32-64-128`.
        group_sizes: points per group.
        supertokens: powers of two.
    """

    teacher: BackboneConfig
    dims: tuple[int, ...]
    widths: tuple[str, ...]
    group_sizes: tuple[int, ...]
    supertokens: tuple[int, ...]


def space_of(teacher: BackboneConfig) -> Space:
    """The candidates for a teacher of these sizes."""
    head, shares = teacher.dim // teacher.heads, (1, 2 / 3, 1 / 2, 1 / 3)
    heads = dict.fromkeys(max(1, int(teacher.heads * share)) for share in shares)
    whole = teacher.point_widths
    widths = [tuple(max(1, width // share) for width in whole) for share in (1, 2, 4)]
    if len(whole) == 3:  # the single-stage form, which pools the points of a group once
        widths += [(width[0], width[2]) for width in widths[:2]]
    sizes = [max(min(LEAST_POINTS, teacher.group_size), teacher.group_size // n) for n in (1, 2, 4)]
    most = min(teacher.groups, MOST_SUPERTOKENS)
    return Space(
        teacher,
        tuple(head * count for count in heads),
        tuple(dict.fromkeys("-".join(map(str, width)) for width in widths)),
        tuple(dict.fromkeys(sizes)),
        tuple(2**i for i in range(most.bit_length()) if 2**i <= most),
    )


def suggest(trial: Trial, space: Space) -> Parameters:
    """Draws a candidate, or reads the one that was put in the queue."""
    kind = trial.suggest_categorical("kind", ("supertokens", "truncated"))
    found: Parameters = {"kind": kind}
    found["dim"] = trial.suggest_categorical("dim", space.dims)
    found["widths"] = trial.suggest_categorical("widths", space.widths)
    found["group_size"] = trial.suggest_categorical("group_size", space.group_sizes)
    if kind == "truncated":
        return found | {"blocks": trial.suggest_int("blocks", 0, most_blocks(space))}
    found["supertokens"] = trial.suggest_categorical("supertokens", space.supertokens)
    depth = found["depth"] = trial.suggest_int("depth", 1, space.teacher.depth)
    most = min(MOST_AFTER, depth - 1)
    return found | {"supertokens_after": trial.suggest_int("supertokens_after", 0, most)}


def most_blocks(space: Space) -> int:
    """The blocks of the deepest truncated student: one fewer than the teacher has."""
    return max(0, space.teacher.depth - 1)


def options_of(space: Space, parameters: Parameters) -> StudentOptions:
    """The student of a candidate; sizes that are the teacher's own are left out."""
    sizes, teacher = parameters, space.teacher
    widths = tuple(map(int, sizes["widths"].split("-")))
    shared: dict[str, Any] = {
        "kind": sizes["kind"],
        "dim": None if sizes["dim"] == teacher.dim else sizes["dim"],
        "point_widths": None if widths == teacher.point_widths else widths,
        "group_size": None if sizes["group_size"] == teacher.group_size else sizes["group_size"],
    }
    if sizes["kind"] == "truncated":
        return StudentOptions(**shared, depth=sizes["blocks"])
    return StudentOptions(
        **shared,
        depth=None if sizes["depth"] == teacher.depth else sizes["depth"],
        supertokens=sizes["supertokens"],
        supertokens_after=sizes["supertokens_after"],
    )


def name_of(parameters: Parameters) -> str:
    """A name that no other candidate has, fit for a folder."""
    sizes = parameters
    start = f"truncated-{sizes.get('blocks')}"
    if sizes["kind"] == "supertokens":
        start = f"s{sizes['supertokens']}-after-{sizes['supertokens_after']}-of-{sizes['depth']}"
    return f"{start}-d{sizes['dim']}-t{sizes['widths']}-k{sizes['group_size']}"


def rivals(space: Space) -> dict[str, Parameters]:
    """The candidates that every search tries, by what pictures call them.

    The teacher's first blocks alone (none, one and two), the paper's students of 16 supertokens
    and of one, and 16 supertokens after one block; all with the teacher's other sizes.
    """
    own = {
        "dim": space.dims[0],
        "widths": space.widths[0],
        "group_size": space.group_sizes[0],
    }
    found: dict[str, Parameters] = {}
    for blocks in range(min(2, most_blocks(space)) + 1):
        title = f"truncated, {blocks} block{'' if blocks == 1 else 's'}"
        found[title] = own | {"kind": "truncated", "blocks": blocks}
    packed = own | {"kind": "supertokens", "depth": space.teacher.depth, "supertokens_after": 0}
    many = min(16, space.supertokens[-1])
    for count in dict.fromkeys((many, 1)):
        found[f"the paper's, s = {count}"] = packed | {"supertokens": count}
    if space.teacher.depth > 1:
        found[f"s = {many} after 1 block"] = packed | {"supertokens": many, "supertokens_after": 1}
    return found


def smallest(space: Space) -> Iterator[Parameters]:
    """Candidates of which one is the cheapest of all: no block, the smallest other sizes.

    A narrower encoder needs layers that bring tokens and features to its width, so every width is
    among them.
    """
    ends = space.widths, (space.group_sizes[-1],), space.dims
    for widths, size, dim in product(*ends):
        yield {"kind": "truncated", "blocks": 0, "dim": dim, "widths": widths, "group_size": size}
