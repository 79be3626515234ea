"""What batches of clouds in memory and of shards have in common."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from foundry3d.errors import InputError


class Collection(Protocol):
    """Clouds with a name and a number."""

    @property
    def name(self) -> str:
        """Name of the collection in messages."""

    def __len__(self) -> int: ...


C = TypeVar("C", bound=Collection)


class EpochBatches(Generic[C]):
    """The number of batches in an epoch of one process, and which epoch it is.

    Args:
        clouds: to draw from.
        batch_size: B, of each process.
        seed: of the shuffling.
        rank: index of this process.
        world: number of processes; each reads its own share of every epoch.

    Raises:
        InputError: there are fewer clouds than one batch of all processes.
    """

    def __init__(
        self, clouds: C, batch_size: int, *, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        if len(clouds) < batch_size * world:
            raise InputError(
                f"{clouds.name} has {len(clouds)} training clouds, one step takes "
                f"{batch_size * world}; lower train.batch_size"
            )
        self.clouds, self.batch_size, self.seed = clouds, batch_size, seed
        self.rank, self.world, self.epoch = rank, world, 0
        self.sampler = self  # where Lightning looks for set_epoch

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the coming epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.clouds) // (self.batch_size * self.world)
