"""The randomness of a training: a generator for each sample, seeded by what the sample is and by nothing else.

All random numbers are drawn on the CPU from these generators, so they are the same on every device, in however many
processes, and after an interruption.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def generator_for(*key: int) -> torch.Generator:
    """A CPU generator that depends on all of `key` (seed, update, sample, ...) and on nothing else."""
    state = np.random.SeedSequence(key).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


@dataclass(frozen=True)
class Draws:
    """The random numbers for the samples that one process has in a batch.

    Attributes:
        generators: one for each sample.
        places: the places of the samples in the batch of all processes together.
        total: the number of samples in that batch.
        batch: how many such batches came before in this training.
    """

    generators: tuple[torch.Generator, ...]
    places: tuple[int, ...]
    total: int
    batch: int = 0

    @classmethod
    def of(cls, *key: int, count: int, rank: int = 0, processes: int = 1, batch: int = 0) -> Draws:
        """The draws of one process.

        Args:
            key: what the numbers depend on beside the sample, such as the seed and the update.
            count: samples of each process.
            rank: the number of this process, from 0.
            processes: how many there are.
            batch: how many batches came before.
        """
        places = tuple(range(rank * count, (rank + 1) * count))
        return cls(tuple(generator_for(*key, place) for place in places), places, count * processes, batch)

    def only(self, chosen: Sequence[int]) -> Draws:
        """The draws of some of the samples.

        Args:
            chosen: their numbers in this process.
        """
        generators, places = (tuple(values[i] for i in chosen) for values in (self.generators, self.places))
        return Draws(generators, places, self.total, self.batch)

    def positions(self) -> list[int]:
        """The places of the samples among all samples that the training draws, first to last."""
        return [self.batch * self.total + place for place in self.places]

    def stack(self, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        """Calls `draw` for every sample and stacks the results along a new first dimension."""
        return torch.stack([draw(generator) for generator in self.generators])

    def randn(self, *shape: int) -> Tensor:
        """Unit normal numbers, `(count, *shape)`."""
        return self.stack(lambda generator: torch.randn(shape, generator=generator))

    def rand(self) -> Tensor:
        """A uniform number in [0, 1) for each sample, `(count,)`."""
        return self.stack(lambda generator: torch.rand((), generator=generator))

    def randint(self, high: int) -> Tensor:
        """A whole number from 0 to `high - 1` for each sample, `(count,)`."""
        return self.stack(lambda generator: torch.randint(high, (), generator=generator))

    def strata(self) -> Tensor:
        """Numbers in [0, 1), `(count,)`: over all processes there is one in each of `total` equal parts."""
        u = self.rand()
        return (torch.tensor(self.places) + u) / self.total
