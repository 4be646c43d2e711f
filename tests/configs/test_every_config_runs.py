"""Every config of the zoo trains two steps and tests two videos, at its real clips and crops.

The videos lie as each data set's publishers and its own tool of ``tools/data`` leave them, so that
the paths in the configs are the real ones. Only width, depth and the number of views shrink.
"""

import importlib.util
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmtimesformer.compat.data_samples import scores_of

ROOT = Path(__file__).parents[2]
CONFIGS = [
    path for path in sorted((ROOT / 'configs/timesformer').glob('*.py')) if 'tiny' not in path.stem
]
# Slow: the pipeline of another config that runs here. They differ in width, depth, frames or
# attention, which other tests cover.
ALIKE = re.compile(
    r'divST-(HR|L)_.*(kinetics600|diving48|frames)|split[23]|(32|64|96)x32x1|vit-(large|huge)|'
    r'(jointST|spaceOnly)_.*official|8x32x1.*(kinetics600|distill)'
)
SMALL = [
    'model.backbone.embed_dims=16',
    'model.backbone.num_layers=1',
    'model.backbone.num_heads=2',
    'model.backbone.init_cfg=None',
    'model.cls_head.in_channels=16',
    'load_from=None',
    'train_cfg.max_epochs=1',
    'default_hooks.logger.interval=1',
    'default_hooks.checkpoint.save_best=None',
    'val_dataloader.batch_size=1',
    *(
        f'{loader}_dataloader.{option}'
        for loader in ('train', 'val', 'test')
        for option in ('num_workers=0', 'persistent_workers=False')
    ),
]


def video(path: Path, seed: int) -> None:
    """Half a second of a moving ramp."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = {'.avi': 'mpeg4', '.webm': 'libvpx'}.get(path.suffix, 'libx264')
    ramp = np.tile(np.linspace(0, 200, 64, dtype=np.uint8)[None, :, None], (48, 1, 3))
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        for i in range(15):
            frame = av.VideoFrame.from_ndarray(np.roll(ramp, i * (seed + 1), axis=1), 'rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def kinetics(root: Path, number: str) -> list[object]:
    for split, stem in (('train', 'train'), ('val', 'validate')):
        rows = [f'{name},{split}{i:08d},{i},{i + 10},{stem}\n' for i, name in enumerate('ab')]
        head = 'label,youtube_id,time_start,time_end,split\n'
        write(root / f'annotations/{stem}.csv', head + ''.join(rows))
        for i in range(2):
            video(root / f'videos_{split}/{split}{i:08d}_{i:06d}_{i + 10:06d}.mp4', i)
    return ['kinetics', number]


def sthv2(root: Path) -> list[object]:
    templates = ['Holding [something]', 'Pushing [something]']
    labels = {name.replace('[something]', 'something'): str(i) for i, name in enumerate(templates)}
    write(root / 'annotations/labels.json', json.dumps(labels))
    for first, stem in enumerate(('train', 'validation')):
        entries = [{'id': f'{first}{i}', 'template': name} for i, name in enumerate(templates)]
        write(root / f'annotations/{stem}.json', json.dumps(entries))
        rows = ['original_vido_id video_id frame_id path labels']
        for i in range(2):
            video(root / f'videos/{first}{i}.webm', i)
            rows += frames(root / 'frames', f'{first}{i}')
        write(root / f'annotations/{"val" if first else "train"}.csv', '\n'.join([*rows, '']))
        for name in (stem, 'labels'):
            content = (root / f'annotations/{name}.json').read_text()
            write(root / f'annotations/something-something-v2-{name}.json', content)
    return ['ssv2']


def frames(root: Path, name: str) -> list[str]:
    """Write four frames of a video; return its rows of the official frame list."""
    (root / name).mkdir(parents=True)
    files = [f'{name}/{name}_{i:06}.jpg' for i in range(1, 5)]
    for i, file in enumerate(files):
        cv2.imwrite(str(root / file), np.full((48, 64, 3), 40 * i, np.uint8))
    return [f'{name} 0 {i} {file} ""' for i, file in enumerate(files)]


def ucf101(root: Path) -> list[object]:
    write(root / 'annotations/classInd.txt', '1 Archery\n2 Biking\n')
    names = ['Archery/v_Archery_g0{}_c01.avi', 'Biking/v_Biking_g0{}_c01.avi']
    for split in (1, 2, 3):
        train = ''.join(f'{name.format(1)} {i}\n' for i, name in enumerate(names, 1))
        write(root / f'annotations/trainlist0{split}.txt', train)
        test = ''.join(f'{name.format(2)}\n' for name in names)
        write(root / f'annotations/testlist0{split}.txt', test)
    for i, name in enumerate(names):
        for group in (1, 2):
            video(root / 'videos' / name.format(group), i)
    return ['ucf101']


def hmdb51(root: Path) -> list[object]:
    for i, name in enumerate(('jump', 'run')):
        for split in (1, 2, 3):
            text = f'{name}_0.avi 1 \n{name}_1.avi 2 \n'
            write(root / f'annotations/{name}_test_split{split}.txt', text)
        for j in range(2):
            video(root / f'videos/{name}/{name}_{j}.avi', i)
    return ['hmdb51']


def diving48(root: Path) -> list[object]:
    dives = [['Back', '15som', '05Twis', 'FREE'], ['Back', '15som', 'NoTwis', 'PIKE']]
    write(root / 'annotations/Diving48_vocab.json', json.dumps(dives))
    for stem in ('train', 'test'):
        entries = [
            {'vid_name': f'{stem}_{i}', 'label': i, 'start_frame': 0, 'end_frame': 15}
            for i in range(2)
        ]
        write(root / f'annotations/Diving48_V2_{stem}.json', json.dumps(entries))
        for i in range(2):
            video(root / f'videos/{stem}_{i}.mp4', i)
    return ['diving48']


def howto100m(root: Path) -> list[object]:
    for stem in ('train', 'test'):
        write(root / f'{stem}.csv', ''.join(f'{stem}{i}.mp4 {i}\n' for i in range(2)))
        for i in range(2):
            video(root / f'videos/{stem}{i}.webm', i)
    return ['howto100m', '--train', root / 'train.csv', '--test', root / 'test.csv']


def your_own(root: Path) -> list[object]:
    for name in ('clap', 'wave'):
        for i in range(2):
            video(root / f'videos/{name}/{i}.mp4', i)
            depth = np.full((15, 48, 64, 1), 40 * i, np.uint8)
            np.save(root / f'videos/{name}/{i}_depth.npy', depth)
    return ['folder', root / 'videos', '--out', root, '--val', 0.5]


LAYOUTS: dict[str, Callable[[Path], list[object]]] = {
    'kinetics400': lambda root: kinetics(root, '400'),
    'kinetics600': lambda root: kinetics(root, '600'),
    'sthv2': sthv2,
    'ucf101': ucf101,
    'hmdb51': hmdb51,
    'diving48': diving48,
    'howto100m': howto100m,
    'your_own': your_own,
}


def tool(name: str) -> Callable[[list[str]], int]:
    """Return the ``main`` of a tool, run in this process to spare it the imports."""
    path = ROOT / 'tools' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Lay a data set out below ``data/`` when the first config asks for it."""
    folder = tmp_path_factory.mktemp('zoo')

    def lay_out(name: str) -> Path:
        root = folder / 'data' / name
        if not root.exists():
            command = [str(word) for word in LAYOUTS[name](root)]
            os.chdir(folder)
            assert tool('data/prepare')([*command, '--allow-missing']) == 0
        return folder

    before = Path.cwd()
    yield lay_out
    os.chdir(before)
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    'path',
    [
        pytest.param(path, marks=[pytest.mark.slow] if ALIKE.search(path.stem) else [])
        for path in CONFIGS
    ],
    ids=lambda path: path.stem,
)
def test_it_trains_two_steps_and_tests_two_videos(
    path: Path, data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = Config.fromfile(path)
    ann_file = cfg.train_dataloader.dataset.ann_file
    monkeypatch.chdir(data(Path(ann_file).parts[1]))
    options = [*SMALL, f'experiment_name={tmp_path.name}']
    if cfg.model.backbone.get('frozen_stages', -1) > 0:  # of small data; 0 is the embeddings
        options.append('model.backbone.frozen_stages=0')
    clips = cfg.train_dataloader.get('clips_per_video', 1)
    options.append(f'train_dataloader.batch_size={clips}')
    places = ['--work-dir', str(tmp_path), '--cfg-options', *options]
    if cfg.test_pipeline[1].get('num_clips', 1) > 1:  # of HowTo100M
        places.append('test_dataloader.dataset.pipeline.1.num_clips=1')
    if cfg.model.backbone.get('frozen_stages', -1) > 0:
        places.append('model.backbone.frozen_stages=1')
    assert tool('train')([path.stem, *places]) == 0

    log = next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()
    losses = [json.loads(line)['loss'] for line in log if '"loss"' in line]
    assert len(losses) == 2
    assert all(np.isfinite(losses))
    assert tool('test')([path.stem, str(tmp_path / 'epoch_1.pth'), *places[:2],
                         '--dump', str(tmp_path / 'result.pkl'), *places[2:]]) == 0  # fmt: skip
    results = pickle.loads((tmp_path / 'result.pkl').read_bytes())
    assert len(results) == 2
    assert {len(scores_of(result)) for result in results} == {cfg.model.cls_head.num_classes}
