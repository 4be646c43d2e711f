"""Keep the two videos of a pair in one batch."""

import math
from collections.abc import Iterator, Sized
from typing import Any

import torch
from mmengine.dataset import DefaultSampler

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
