"""What every test may use: a tiny model, tiny videos, and both default scopes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

from tests.page_requirements import require


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test of a page, or fail it in CI, where a program or package that it needs is missing."""
    for mark in item.iter_markers('needs'):
        require(*mark.args)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_logger_of_another_test() -> Iterator[None]:
    """Forget MMEngine's loggers: the files and streams of a test are closed after it."""
    yield
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            handler.close()
    MMLogger._instance_dict.clear()


@pytest.fixture
def tiny_backbone_cfg() -> dict[str, Any]:
    """A backbone of prime-ish sizes, so that no swapped axis can hide: 3 frames, 2 x 5 patches."""
    return {
        'type': 'mmtimesformer.TimeSformer',
        'num_frames': 3,
        'img_size': (16, 40),
        'patch_size': 8,
        'embed_dims': 28,
        'num_layers': 2,
        'num_heads': 4,
        'drop_path_rate': 0.0,
    }


@pytest.fixture(params=[None, 'mmaction'], ids=['no_scope', 'mmaction_scope'])
def default_scope(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """Run the test without a default scope, and with the one that MMAction2's Runner sets."""
    before = dict(DefaultScope._instance_dict)
    DefaultScope._instance_dict.clear()
    if request.param is not None:
        import mmaction.models  # noqa: F401  (registers what the scope promises)

        DefaultScope.get_instance('test', scope_name=request.param)
    yield request.param
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


def write_video(
    path: Path,
    num_frames: int = 20,
    width: int = 96,
    height: int = 64,
    fps: int = 30,
    seed: int = 0,
) -> Path:
    """Write a small mp4 of moving noise."""
    import av

    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    picture = picture.repeat(8, axis=0).repeat(8, axis=1)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=fps, options={'preset': 'ultrafast'})
        stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
        for i in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, 2 * i, axis=1), format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope='session')
def tiny_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six mp4 files of two classes, with ``train.txt`` and ``val.txt``."""
    folder = tmp_path_factory.mktemp('tiny_videos')
    lines = []
    for i in range(6):
        write_video(folder / f'{i}.mp4', seed=i)
        lines.append(f'{i}.mp4 {i % 2}')
    (folder / 'train.txt').write_text('\n'.join(lines[:4]) + '\n')
    (folder / 'val.txt').write_text('\n'.join(lines[3:]) + '\n')
    return folder
