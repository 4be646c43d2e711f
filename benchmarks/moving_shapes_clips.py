"""Clips of Moving Shapes, drawn into memory, for benchmarks that train small models."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmtimesformer.datasets.preparation.moving_shapes import CLASSES, draw_twins

FRAMES, INTERVAL, SIDE = 8, 2, 64
MEAN, STD = 127.5, 64.0
# The backbone and the recipe of configs/timesformer/timesformer_divST-tiny_moving-shapes.py
BACKBONE: dict[str, Any] = dict(
    num_frames=FRAMES, img_size=SIDE, patch_size=16, embed_dims=64, num_layers=2, num_heads=2,
    mlp_ratio=2.0, drop_path_rate=0.0, temporal_init='random', embed_init_std=1.0,
)  # fmt: skip
LEARNING_RATE, BETAS, DECAY, CLIP, WARMUP = 7e-4, (0.9, 0.98), 0.05, 1.0, 3


def draw(split: str, pairs: int) -> tuple[np.ndarray, Tensor]:
    """Return whole videos and their labels, two of opposite classes after each other.

    Shape:
        - videos: ``n 21 64 80 3``
        - labels: ``n``
    """
    twins = [draw_twins(0, split, number) for number in range(pairs)]
    videos = np.stack([clip for pair in twins for clip in pair.values()])
    return videos, torch.tensor([CLASSES.index(motion) for pair in twins for motion in pair])


def clip_of(video: np.ndarray, start: int, x: int) -> np.ndarray:
    """Return a crop of some frames of one video, ``t SIDE SIDE 3``."""
    return video[start : start + FRAMES * INTERVAL : INTERVAL, :, x : x + SIDE]


def to_input(clips: list[np.ndarray]) -> Tensor:
    """Return normalised clips, ``b c t H W``."""
    video = torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3)
    return (video.float() - MEAN) / STD


def middle_clips(videos: np.ndarray) -> list[np.ndarray]:
    """Return the middle of each video, in time and in width."""
    _, frames, _, width, _ = videos.shape
    start, x = (frames - FRAMES * INTERVAL) // 2, (width - SIDE) // 2
    return [clip_of(video, start, x) for video in videos]
