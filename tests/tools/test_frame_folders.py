"""Folders of frames in every tool that takes a video, and whole runs over them."""

import importlib.util
import json
import pickle
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.registry import DefaultScope

from mmtimesformer import VideoClassifier
from mmtimesformer.compat.data_samples import label_of
from mmtimesformer.datasets.tar_shards.dataset import TarShardVideoDataset
from mmtimesformer.datasets.transforms.decoding import Video
from mmtimesformer.datasets.video_dataset import VideoDataset
from mmtimesformer.finetuning import workflow
from mmtimesformer.finetuning.workflow import Options, finetune
from mmtimesformer.visualization.report_parts import frames_of
from tests.conftest import write_video

ROOT = Path(__file__).resolve().parents[2]
READERS = {
    'DecordInit': 'mmtimesformer.VideoInit', 'DecordDecode': 'mmtimesformer.VideoDecode',
}  # fmt: skip
PAGE = (ROOT / 'docs' / 'datasets' / 'frames.md').read_text(encoding='utf-8')


def tool(name: str) -> Callable[[list[str]], int]:
    """Return the ``main`` of a tool, run in this process to spare it the imports."""
    path = ROOT / 'tools' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def run(name: str, *words: object) -> int:
    """Run a tool; return its exit code."""
    return tool(name)([str(word) for word in words])


def write_frames(video: Path, folder: Path, ending: str = 'png') -> Path:
    """Write every frame of a video: losslessly as PNG."""
    folder.mkdir(parents=True)
    opened = Video(video)
    for i, frame in enumerate(opened.frames(range(len(opened))), 1):
        assert cv2.imwrite(str(folder / f'img_{i:05}.{ending}'), frame[..., ::-1])
    return folder


@pytest.fixture(scope='module')
def frames(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The six tiny videos as folders of PNG frames, with the same lists."""
    folder = tmp_path_factory.mktemp('frames')
    for i in range(6):
        write_frames(tiny_videos / f'{i}.mp4', folder / str(i))
    return folder


@pytest.fixture
def config(tiny_config: Path) -> Path:
    """The tiny config, whose pipelines open videos by our reader."""
    text = tiny_config.read_text()
    for theirs, ours in {**READERS, 'VideoDataset': 'mmtimesformer.VideoDataset'}.items():
        text = text.replace(f"type='{theirs}'", f"type='{ours}'")
    tiny_config.write_text(text)
    return tiny_config


@pytest.fixture
def checkpoint(config: Path, tmp_path: Path) -> Path:
    """Random weights for the tiny config."""
    from mmaction.registry import MODELS
    from mmaction.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    torch.manual_seed(3)
    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(Config.fromfile(config).model)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'w.pth')
    return tmp_path / 'w.pth'


def test_a_run_continues_over_a_corrupt_and_a_missing_jpg(
    config: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    """Of ten videos two are bad: replaced and listed in training, wrong and counted in testing."""
    folder = tmp_path / 'frames'
    for i in range(10):
        write_frames(tiny_videos / f'{i % 6}.mp4', folder / str(i), 'jpg')
    for file in (folder / '2').iterdir():  # whichever frame is drawn
        file.write_bytes(file.read_bytes()[:-200])
    (folder / '7/img_00004.jpg').unlink()
    lines = ''.join(f'{i} 20 {i % 2}\n' for i in range(10))
    (folder / 'train.txt').write_text(lines)
    (folder / 'val.txt').write_text(lines)
    text = config.read_text().replace(str(tiny_videos), str(folder))
    text = text.replace(
        "type='mmtimesformer.VideoDataset'",
        "type='mmtimesformer.FrameFolderDataset', filename_tmpl='img_{:05}.jpg', start_index=1",
    )
    config.write_text(text)
    work = tmp_path / 'work'
    words = ['--work-dir', work, '--cfg-options', 'train_dataloader.num_workers=1']
    assert run('train', config, '--no-validate', *words) == 0
    bad = [json.loads(line) for line in (work / 'bad_videos.jsonl').read_text().splitlines()]
    reasons = {Path(video['file']).name: video['reason'] for video in bad}
    assert reasons['7'] == 'frames are missing: 4 (there are 1 to 20)'
    assert re.fullmatch(
        r'its frame img_000..\.jpg cannot be decoded: it is cut short', reasons['2']
    )
    assert torch.load(work / 'epoch_1.pth', weights_only=False)['meta']['iter'] == 5

    tested = tmp_path / 'tested'
    words = ['--work-dir', tested, '--dump', tested / 'result.pkl']
    assert run('test', config, work / 'epoch_1.pth', *words) == 0
    (log,) = tested.glob('*/*.log')
    assert '2 of 10 videos could not be read, and count as wrong' in log.read_text()
    results = pickle.loads((tested / 'result.pkl').read_bytes())
    assert [label_of(result) for result in results] == [0, 1] * 5
    assert [Path(r['filename']).name for r in results if r.get('failed')] == ['2', '7']


def test_frames_give_the_scores_of_their_video(
    config: Path, checkpoint: Path, frames: Path, tiny_videos: Path
) -> None:
    """Bit for bit, alone, in a list, as features and in windows of seconds."""
    clf = VideoClassifier(config, checkpoint, 'cpu')
    video, folder = tiny_videos / '3.mp4', frames / '3'
    assert np.array_equal(clf(video).all_scores, clf(folder).all_scores)
    assert np.array_equal(clf.features(video, 'frames'), clf.features(str(folder), 'frames'))
    results = clf([video, folder, frames / '1'], batch_size=1)
    assert [result.video for result in results] == [str(video), str(folder), str(frames / '1')]
    assert np.array_equal(results[0].all_scores, results[1].all_scores)
    assert len(clf(frames)) == 6, 'a folder of folders of frames is six videos'
    one, other = clf.timeline(video, 0.3), clf.timeline(folder, 0.3)
    assert [vars(moment.prediction)['scores'] for moment in one.moments] == [
        vars(moment.prediction)['scores'] for moment in other.moments
    ]
    assert [moment.start for moment in one.moments] == pytest.approx(
        [moment.start for moment in other.moments]
    )
    half = clf.timeline(folder, 0.6, fps=15)
    assert half.moments[-1].end == pytest.approx(20 / 15)


def test_a_bad_folder_is_named_alone_and_skipped_among_others(
    config: Path, checkpoint: Path, frames: Path, tmp_path: Path
) -> None:
    clf = VideoClassifier(config, checkpoint, 'cpu')
    shutil.copytree(frames / '0', tmp_path / 'many' / 'good')
    shutil.copytree(frames / '0', tmp_path / 'many' / 'gap')
    (tmp_path / 'many/gap/img_00002.png').unlink()
    with pytest.raises(ValueError, match=r'the video .*gap cannot be read: frames are missing: 2'):
        clf(tmp_path / 'many' / 'gap')
    results = clf(tmp_path / 'many')
    assert [Path(result.video).name for result in results] == ['good']
    assert [skipped.reason for skipped in results.skipped] == [
        'cannot be read: frames are missing: 2 (there are 1 to 20)'
    ]


def test_predict(
    config: Path, checkpoint: Path, frames: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    out = tmp_path / 'out'
    out.mkdir()
    words = [config, checkpoint, '--device', 'cpu']
    assert run('predict', frames / '1', *words, '--save-video', out / 'a.mp4') == 0
    output = capfd.readouterr()
    assert output.out.startswith(str(frames / '1'))
    assert '30 frames per second are assumed; give --fps' in output.err
    assert (len(Video(out / 'a.mp4')), Video(out / 'a.mp4').fps) == (20, 30)
    words += ['--fps', 10, '--window', 1, '--out', out / 'a.json']
    assert run('predict', frames / '1', *words) == 0
    assert 'assumed' not in capfd.readouterr().err
    assert json.loads((out / 'a.json').read_text())['moments'][-1]['end'] == 2
    assert run('predict', frames, *words[:3], 'cpu', '--out', out / 'all.csv') == 0
    assert len((out / 'all.csv').read_text().splitlines()) == 13, 'two classes each'
    with pytest.raises(SystemExit):
        run('predict', ROOT / 'README.md', *words)
    assert '--fps is for a folder of frames' in capfd.readouterr().err


@pytest.mark.slow
def test_features_attention_and_checks(
    config: Path, checkpoint: Path, frames: Path, tiny_videos: Path, tmp_path: Path,
    capfd: pytest.CaptureFixture,
) -> None:  # fmt: skip
    both = tmp_path / 'both'
    both.mkdir()
    (both / '1').symlink_to(frames / '1')
    shutil.copy(tiny_videos / '1.mp4', both / '1.mp4')
    (both / 'empty').mkdir()
    (both / 'list.txt').write_text('1.mp4 0\n1 0\nempty 1\n')
    words = [config, checkpoint, both / 'list.txt', '--out', tmp_path / 'features']
    assert run('extract_features', *words) == 3
    features = [np.load(tmp_path / f'features/features/{name}.npy') for name in ('1.mp4', '1')]
    assert np.array_equal(*features)
    manifest = json.loads((tmp_path / 'features/manifest.json').read_text())
    assert list(manifest['failed']) == ['empty']
    out = tmp_path / 'attention'
    assert run('visualize_attention', frames / '2', config, checkpoint, '--out', out) == 0
    assert (out / 'page.html').is_file() and (out / 'grid.png').is_file()
    capfd.readouterr()
    assert run('data/check_videos', both / 'list.txt', '--num-workers', 1) == 3
    assert (
        'empty: cannot be read: it is a folder without a JPG or PNG image' in capfd.readouterr().out
    )
    assert run('data/check_videos', frames / '2', '--num-workers', 1) == 0
    assert '1 videos: 1 good, 0 bad' in capfd.readouterr().out
    assert frames_of(frames / '2').startswith('data:image/jpeg'), "a report's picture"


def test_features_of_folders_are_of_the_frame_rate_that_is_given(
    config: Path, checkpoint: Path, frames: Path, tiny_videos: Path, tmp_path: Path,
    capfd: pytest.CaptureFixture,
) -> None:  # fmt: skip
    """Where the sampler counts seconds; a file keeps its own rate."""
    windows = "type='mmtimesformer.WindowSampleFrames', clip_len=4, frame_interval=3"
    text = config.read_text()
    config.write_text(text.replace("type='SampleFrames', clip_len=4, frame_interval=2", windows))
    both = tmp_path / 'both'
    both.mkdir()
    (both / '1').symlink_to(frames / '1')
    shutil.copy(tiny_videos / '1.mp4', both / '1.mp4')
    words = [config, checkpoint, both, '--device', 'cpu', '--out']
    assert run('extract_features', *words, tmp_path / 'thirty') == 0
    assert '1 is a folder of frames, which has no frame rate: 30' in capfd.readouterr().out
    assert run('extract_features', *words, tmp_path / 'ten', '--fps', 10) == 0
    assert 'assumed' not in capfd.readouterr().out
    clf = VideoClassifier(config, checkpoint, 'cpu')
    found = {
        fps: [np.load(tmp_path / fps / f'features/{name}.npy') for name in ('1.mp4', '1')]
        for fps in ('thirty', 'ten')
    }
    assert np.array_equal(*found['thirty'])
    assert np.array_equal(found['ten'][0], found['thirty'][0])
    assert np.allclose(found['ten'][1], clf.features(frames / '1', fps=10), atol=1e-5)
    assert np.abs(np.subtract(*found['ten'])).max() > 1e-3
    assert run('extract_features', *words, tmp_path / 'ten', '--fps', 15) == 1
    assert 'holds features with fps=10.0, now it is 15.0; give' in capfd.readouterr().err
    words[2] = tiny_videos
    assert run('extract_features', *words, tmp_path / 'files', '--fps', 15) == 1
    assert '--fps is for folders of frames, and' in capfd.readouterr().err


@pytest.mark.filterwarnings('ignore')  # of others: MMEngine's Runner
def test_finetune_on_a_folder_per_class_of_videos_and_folders_of_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the check to a prediction, with the jobs in this process, without workers, for speed."""
    mine = tmp_path / 'mine'
    for number, label in enumerate(['clap', 'wave'] * 5):
        place = mine / label / str(number)
        place.parent.mkdir(parents=True, exist_ok=True)
        video = write_video(place.with_suffix('.mp4'), 10, 64, 48, seed=number)
        if number % 4 > 1:
            write_frames(video, place, ('jpg', 'png')[number // 4 % 2])
            video.unlink()
    (mine / 'clap/2/img_00004.jpg').unlink()
    jobs: list[str] = []
    no_workers = [
        f'{loader}_dataloader.{option}'
        for loader in ('train', 'val', 'test')
        for option in ('num_workers=0', 'persistent_workers=False')
    ]

    def call(name: str, *words: str) -> None:
        jobs.append(name)
        if name != 'report':
            words += ('--cfg-options', *no_workers)
        assert run({'report': 'analysis_tools/report'}.get(name, name), *words) == 0

    monkeypatch.setattr(workflow, 'call', call)
    # Eleven times a config is written; its layout would take most of the time.
    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, True))
    model = finetune(Options(mine, tmp_path / 'out', epochs=1))
    assert jobs == ['train', 'test', 'report']
    left_out = (tmp_path / 'out/data/left_out.csv').read_text()
    assert left_out.splitlines()[1:] == [
        'clap/2,cannot be read: frames are missing: 4 (there are 1 to 10)'
    ]
    lists = ''.join((tmp_path / f'out/data/{name}.txt').read_text() for name in ('train', 'val'))
    names = {line.split()[0] for line in lists.splitlines()}
    assert names == {p.relative_to(mine).as_posix() for p in mine.glob('*/*')} - {'clap/2'}
    assert (tmp_path / 'out/report.html').is_file()
    clf = VideoClassifier(checkpoint=model, device='cpu')
    results = clf(mine)
    assert [result.video for result in results] == sorted(str(mine / name) for name in names)
    assert all(result.top in ('clap', 'wave') for result in results)
    assert len(results.skipped) == 1


def test_tar_shards_hold_folders_of_frames(
    config: Path, frames: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / 'videos'
    folder.mkdir()
    shutil.copy(tiny_videos / '1.mp4', folder / '1.mp4')
    shutil.copytree(frames / '1', folder / '1')
    shutil.copytree(frames / '2', folder / 'gap')
    (folder / 'gap/img_00005.png').unlink()
    (tmp_path / 'list.txt').write_text('1.mp4 1\n1 1\ngap 0\n')
    words = [tmp_path / 'list.txt', folder, tmp_path / 'out', '--num-workers', 1]
    assert run('data/write_shards', *words) == 3
    assert 'gap\tframes are missing: 5' in (tmp_path / 'out/failed.txt').read_text()
    pipeline = Config.fromfile(config).test_pipeline
    with DefaultScope.overwrite_default_scope('mmaction'):
        packed = TarShardVideoDataset(str(tmp_path / 'out/index.tsv'), pipeline, test_mode=True)
        plain = VideoDataset(
            str(tmp_path / 'list.txt'), pipeline, {'video': str(folder)}, test_mode=True
        )
    for i in range(2):
        assert torch.equal(packed[i]['inputs'], plain[i]['inputs'])
    assert torch.equal(packed[0]['inputs'], packed[1]['inputs'])
    assert packed[2]['data_samples'].failed == (
        'it could not be read when the tar shards were written'
    )
    assert plain[2]['data_samples'].failed == 'frames are missing: 5 (there are 1 to 20)'


def test_mmaction2s_readers_refuse_a_folder_in_one_sentence(frames: Path, tmp_path: Path) -> None:
    (tmp_path / 'l.txt').write_text('1 0\n')
    with DefaultScope.overwrite_default_scope('mmaction'):
        data = VideoDataset(
            str(tmp_path / 'l.txt'), [{'type': 'PyAVInit'}], {'video': str(frames)}, test_mode=True
        )
    with pytest.raises(ValueError, match='only mmtimesformer.VideoInit reads folders of frames'):
        data[0]


@pytest.mark.slow
def test_the_commands_of_the_page_run_as_printed(
    config: Path, tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/datasets/frames.md, from the first command to the prediction."""
    monkeypatch.chdir(tmp_path)
    for i in range(4):
        label = ('wave', 'clap')[i % 2]
        write_frames(tiny_videos / f'{i}.mp4', Path('my_frames') / label / f'clip{i}', 'jpg')
    commands = re.findall(r'^python tools/(\S+)\.py (.*)$', PAGE, re.MULTILINE)
    assert commands[0][0] == 'data/prepare'
    assert commands[-1][0] == 'predict'
    small = [
        'model.backbone.embed_dims=24',
        'model.backbone.num_layers=1',
        'model.backbone.num_heads=2',
        'model.cls_head.in_channels=24',
        'model.backbone.init_cfg=None',
        'load_from=None',
        'train_cfg.max_epochs=20',
        'default_hooks.checkpoint.interval=20',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'val_dataloader.num_workers=0',
        'val_dataloader.persistent_workers=False',
        'train_dataloader.batch_size=1',
        'train_cfg.val_interval=20',
    ]
    for name, rest in commands:
        words = shlex.split(rest)
        if name == 'train':
            words += small
        assert run(name, *words) == 0, (name, rest)
