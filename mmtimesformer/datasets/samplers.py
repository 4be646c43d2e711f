"""Samplers: keep the two videos of a pair in one batch; draw all classes equally often."""

import math
from collections.abc import Iterator, Sized
from functools import cached_property
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from mmengine.dataset import DefaultSampler

from mmtimesformer.datasets.class_counts import classes_of
from mmtimesformer.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class PairedSampler(DefaultSampler):
    """Shuffles pairs of neighbours: videos ``2k`` and ``2k + 1`` follow each other.

    For data whose neighbours differ in exactly what is to be learned. *Moving Shapes* lists each
    clip next to its time-reversed twin. While a model cannot distinguish them, their losses pull it
    in opposite directions: what is common (the scene) cancels within a batch, and what is left of
    the gradient is the order of frames. Shuffled apart, that signal drowns in the scenes' noise.

    It takes the place of ``DefaultSampler``; batches should be even.

    Args:
        dataset: The data set; of even length.
        shuffle: Whether to shuffle the pairs.
        seed: Of the shuffling, the same in all processes; ``None`` draws one.
        round_up: Whether to repeat the first pairs so that every process gets equally many.

    Raises:
        ValueError: The data set has an odd number of videos.
    """

    def __init__(self, dataset: Sized, *args: Any, **kwargs: Any) -> None:
        super().__init__(dataset, *args, **kwargs)
        self.num_pairs, single = divmod(len(dataset), 2)
        if single:
            raise ValueError(
                f'{len(dataset)} videos are not pairs; correct the annotation file, '
                "or set train_dataloader.sampler.type to 'DefaultSampler'"
            )

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        pairs = torch.arange(self.num_pairs)
        if self.shuffle:
            pairs = pairs[torch.randperm(self.num_pairs, generator=generator)]
        if self.round_up:
            each = math.ceil(self.num_pairs / self.world_size)
            pairs = pairs.repeat(self.world_size)[: each * self.world_size]
        pairs = pairs[self.rank :: self.world_size]
        return iter((2 * pairs[:, None] + torch.arange(2)).flatten().tolist())

    def __len__(self) -> int:
        pairs = self.num_pairs - self.rank
        if self.round_up:
            pairs = self.num_pairs
        return 2 * math.ceil(pairs / self.world_size)


@DATA_SAMPLERS.register_module()
class ClassBalancedSampler(DefaultSampler):
    """Draw every class equally often, for training on imbalanced data.

    An epoch is as long as with ``DefaultSampler``. It consists of rounds, and each round takes one
    video of each class, in random order. The videos of a class come in random order and repeat when
    all have been drawn: with classes of 20 videos and 1 video, an epoch of 21 draws the single
    video 10 or 11 times and 10 or 11 of the 20 once.

    A multi-label video is drawn for each of its classes, so a class that often appears together
    with a rare one is drawn more often. Videos without any label form a class of their own.

    The order depends on the seed and the epoch only. It takes the place of ``DefaultSampler``.

    Args:
        dataset: A data set with ``get_cat_ids``, see :func:`.class_counts.classes_of`.
        shuffle: Only ``True`` is possible; configs often set it.
        seed: Of the drawing, the same in all processes; ``None`` draws one.
        round_up: Whether to draw some more videos so that every process gets equally many.

    Raises:
        ValueError: ``shuffle`` is not ``True``.
        TypeError: The classes of the samples are unknown, when the first epoch starts.
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = True,
        seed: int | None = None,
        round_up: bool = True,
    ) -> None:
        if not shuffle:
            raise ValueError(
                f'shuffle={shuffle!r}: ClassBalancedSampler draws in random order; set '
                "train_dataloader.sampler.shuffle=True, or sampler.type='DefaultSampler'"
            )
        super().__init__(dataset, shuffle, seed, round_up)

    @cached_property
    def members(self) -> list[np.ndarray]:
        """The indices of the videos of each class that has any."""
        members: dict[int, list[int]] = {}
        for index, classes in enumerate(classes_of(self.dataset)):
            for one in set(classes) or {-1}:
                members.setdefault(one, []).append(index)
        return [np.array(members[one]) for one in sorted(members)]

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        drawn = [cycle(rng.permutation(videos).tolist()) for videos in self.members]
        rounds = -(-self.total_size // len(drawn))
        order = (one for _ in range(rounds) for one in rng.permutation(len(drawn)).tolist())
        indices = (next(drawn[one]) for one in islice(order, self.total_size))
        return islice(indices, self.rank, None, self.world_size)
