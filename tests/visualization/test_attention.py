"""Overlays mark the patch, the frame and the time that the model attends to."""

from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from torch import Tensor, nn

from mmtimesformer import TimeSformer
from mmtimesformer.models import SelfAttention
from mmtimesformer.visualization.attention import (
    draw_attention,
    enlarge,
    overlay,
    write_attention_video,
)

T, H, W, SIDE = 3, 2, 5, 8
FRAME, ROW, COLUMN = 2, 1, 3


@pytest.fixture
def attends_to_one_patch(tiny_backbone_cfg: dict[str, Any]) -> TimeSformer:
    """A model whose tokens all attend to frame 2 over time, and to row 1, column 3 in space."""
    del tiny_backbone_cfg['type']
    model = TimeSformer(**{**tiny_backbone_cfg, 'num_heads': 2}).eval()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    model.pos_embed.data[0, 1 + ROW * W + COLUMN, 0] = 5
    model.time_embed.data[0, FRAME, 1] = 5
    for part in model.modules():
        if isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
        if isinstance(part, SelfAttention):
            for head in (0, 14):
                part.qkv.bias.data[head] = 10  # of the queries
                part.qkv.weight.data[28 + head, [0, 1]] = 1  # of the keys: the two embeddings above
    return model


def brightest_patch(pictures: np.ndarray) -> tuple[int, int, int]:
    """Return frame, row and column of the patch with the most light."""
    t, height, width, _ = pictures.shape
    light = pictures.astype(float).sum(-1)
    light = light.reshape(t, H, height // H, W, width // W).mean((2, 4))
    return tuple(int(i) for i in np.unravel_index(light.argmax(), light.shape))


def test_the_one_patch_that_a_model_attends_to_is_drawn_brightest(
    attends_to_one_patch: TimeSformer,
) -> None:
    frames = np.full((T, H * SIDE, W * SIDE, 3), 90, np.uint8)
    video = Tensor(frames).permute(3, 0, 1, 2)[None] / 255
    maps = attends_to_one_patch.attention_maps(video)
    drawn = overlay(frames, maps.rollout()[0].numpy())
    assert drawn.shape == frames.shape
    assert brightest_patch(drawn) == (FRAME, ROW, COLUMN)


def test_patches_without_attention_are_dark_and_frames_have_one_scale() -> None:
    frames = np.full((T, 20, 50, 3), 200, np.uint8)
    heatmap = np.zeros((T, H, W))
    heatmap[0, 0, 0], heatmap[1, 0, 0] = 1.0, 0.3
    drawn = overlay(frames, heatmap).astype(int)
    assert (drawn[:, -1, -1] < 100).all()
    bright, faint = drawn[0, 2, 2].sum(), drawn[1, 2, 2].sum()
    assert bright > faint > drawn[2, 2, 2].sum()


def test_a_heatmap_of_zeros_can_be_drawn() -> None:
    frames = np.full((1, 4, 4, 3), 200, np.uint8)
    assert overlay(frames, np.zeros((1, 2, 2))).max() < 100


def test_small_frames_grow_by_whole_numbers() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (2, 16, 40, 3), np.uint8)
    large = enlarge(frames)
    assert large.shape == (2, 14 * 16, 14 * 40, 3)
    assert np.array_equal(large[:, ::14, ::14], frames)
    assert enlarge(large).shape == large.shape


def test_the_picture_has_frames_above_and_overlays_below(tmp_path: Path) -> None:
    frames = np.full((T, H * SIDE, W * SIDE, 3), 90, np.uint8)
    heatmap = np.zeros((T, H, W))
    heatmap[FRAME, ROW, COLUMN] = 1
    path = tmp_path / 'folder' / 'grid.png'
    draw_attention(
        frames, {'rollout': heatmap, 'none': 0 * heatmap}, path, 'a title', np.arange(T) / 2
    )
    picture = cv2.imread(str(path)).astype(int)
    glow = picture[..., 2] - picture[..., 0]  # more red than blue; ink and grey have as much
    rows, columns = np.nonzero(glow > 60)
    height, width = picture.shape[:2]
    assert 0.4 < rows.mean() / height < 0.75  # the middle row
    assert columns.min() > 0.65 * width  # the last frame
    assert not list(path.parent.glob('.*'))


def test_of_a_long_clip_evenly_spaced_frames_are_drawn(tmp_path: Path) -> None:
    frames = np.zeros((96, 16, 16, 3), np.uint8)
    draw_attention(frames, {'rollout': np.ones((96, 2, 2))}, tmp_path / 'grid.png', columns=5)
    height, width = cv2.imread(str(tmp_path / 'grid.png')).shape[:2]
    assert width < 6 * height


def test_the_video_plays_frames_and_overlays_at_the_speed_of_the_clip(tmp_path: Path) -> None:
    frames = np.full((T, 224, 280, 3), 90, np.uint8)
    heatmap = np.zeros((T, H, W))
    heatmap[FRAME, ROW, COLUMN] = 1
    path = tmp_path / 'overlay.mp4'
    write_attention_video(frames, heatmap, path, seconds=np.array([1.0, 1.5, 2.5]))
    with av.open(str(path)) as container:
        shown = np.stack([f.to_ndarray(format='rgb24') for f in container.decode(video=0)])
    assert shown.shape[1:] == (224, 560, 3)
    assert len(shown) == 24 * (0.5 + 1 + 1)
    left, right = shown[:, :, :280], shown[:, :, 280:]
    assert abs(left.astype(int) - 90).max() < 8
    assert brightest_patch(right[[0, 20, 50]]) == (FRAME, ROW, COLUMN)
    assert right[30].max() < 80  # still the second frame: its heatmap is 0
    assert right[37].max() > 120


def test_a_video_of_one_frame_and_odd_sides_can_be_written(tmp_path: Path) -> None:
    frames = np.full((1, 225, 301, 3), 90, np.uint8)
    write_attention_video(frames, np.ones((1, 3, 4)), tmp_path / 'overlay.mp4')
    with av.open(str(tmp_path / 'overlay.mp4')) as container:
        assert sum(1 for _ in container.decode(video=0)) == 6
