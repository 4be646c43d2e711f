"""A model with NaN or infinite scores is an error everywhere, and never a score.

Case W3: weights of 1e12 gave "acc/top1: 0.5000", "nan %", "4 done, 0 failed", and exit code 0.
"""

import importlib.util
import json
import math
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmtimesformer import TimeSformer, VideoClassifier
from mmtimesformer.analysis.test_results import read_test_results
from mmtimesformer.checkpoints import load_checkpoint, load_torch
from mmtimesformer.compat.data_samples import wrong_scores
from mmtimesformer.non_finite import NonFiniteError, about_scores
from tests.page_markup import shown_part
from tests.tools.conftest import TEXT

ROOT = Path(__file__).resolve().parents[2]
Tool = Callable[..., tuple[int, str]]


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Tool:
    """Run a tool in this process; return its exit code and all that it printed."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *words: object) -> tuple[int, str]:
        file = ROOT / 'tools' / f'{name}.py'
        spec = importlib.util.spec_from_file_location(f'tool_{file.stem}', file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        code = module.main([str(word) for word in words])
        printed = ''.join(capfd.readouterr())
        assert 'Traceback' not in printed
        assert 'nan %' not in printed
        return code, printed

    return run


@pytest.fixture(scope='module')
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve videos of noise of label 1, of which 3 and 7 are bright."""
    folder = tmp_path_factory.mktemp('videos')
    rng = np.random.default_rng(0)
    for i in range(12):
        with av.open(str(folder / f'{i:02}.mp4'), 'w') as container:
            stream = container.add_stream('libx264', rate=10, options={'preset': 'ultrafast'})
            stream.width, stream.height, stream.pix_fmt = 48, 32, 'yuv420p'
            low, high = (250, 255) if i in (3, 7) else (0, 128)
            for _ in range(12):
                pixels = rng.integers(low, high, (32, 48, 3), dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format='rgb24')))
            container.mux(stream.encode())
    (folder / 'val.txt').write_text(''.join(f'{i:02}.mp4 1\n' for i in range(12)))
    shutil.copy(folder / 'val.txt', folder / 'train.txt')
    return folder


@pytest.fixture
def config(tmp_path: Path, videos: Path) -> Path:
    text = TEXT.replace('{videos}', str(videos))
    for theirs, ours in {
        'DecordInit': 'mmtimesformer.VideoInit',
        'DecordDecode': 'mmtimesformer.VideoDecode',
        "type='VideoDataset'": "type='mmtimesformer.VideoDataset'",
    }.items():
        text = text.replace(theirs, ours)
    path = tmp_path / 'tiny.py'
    path.write_text(f'{text}experiment_name = {tmp_path.name!r}\n')
    return path


@pytest.fixture
def model(config: Path) -> Any:
    from mmaction.registry import MODELS
    from mmaction.utils import register_all_modules

    cfg = Config.fromfile(config)
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmaction'):
        built = MODELS.build(cfg.model)
    torch.nn.init.normal_(built.cls_head.fc_cls.weight)
    with torch.no_grad():
        built.cls_head.fc_cls.bias[1] += 100  # it predicts 1, which is right
    return built


def save(model: Any, path: Path, factor: float = 1.0) -> Path:
    weights = {name: tensor * factor for name, tensor in model.state_dict().items()}
    torch.save({'meta': {}, 'state_dict': weights}, path)
    return path


@pytest.fixture
def sound(model: Any, tmp_path: Path) -> Path:
    return save(model, tmp_path / 'sound.pth')


@pytest.fixture
def huge(model: Any, tmp_path: Path) -> Path:
    return save(model, tmp_path / 'huge.pth', 1e12)


@pytest.fixture
def broken_for_bright_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the backbone overflow for bright videos alone."""
    forward = TimeSformer.forward

    def overflowing(self: TimeSformer, video: torch.Tensor) -> torch.Tensor:
        out = forward(self, video)
        bright = video.mean((1, 2, 3, 4)) > 0.5
        return torch.where(bright[:, None], torch.nan, out)

    monkeypatch.setattr(TimeSformer, 'forward', overflowing)


# -- no video has finite scores --------------------------------------------------------------------


def test_a_test_ends_early_with_an_error_that_names_videos(
    tool: Tool, config: Path, huge: Path
) -> None:
    code, printed = tool('test', config, huge, '--work-dir', 'out', '--dump', 'out/result.pkl')
    assert code == 1
    assert printed.count('\nerror: ') == 1
    assert 'the class scores of ' in printed and '00.mp4' in printed and 'and 5 more' in printed
    assert 'none of the first 8 videos has' in printed, 'and not only after all'
    assert 'acc/top1' not in printed
    assert not Path('out/result.pkl').exists()


def test_a_short_test_ends_with_an_error_too(tool: Tool, config: Path, huge: Path) -> None:
    code, printed = tool(
        'test', config, huge, '--work-dir', 'out', '--dump', 'out/result.pkl',
        '--cfg-options', 'test_dataloader.dataset.indices=3',
    )  # fmt: skip
    assert code == 1
    assert 'error: the class scores of all 3 videos (' in printed
    assert 'acc/top1: 0.0000' in printed
    assert json.loads(Path('out/result.meta.json').read_text())['scores'] == {
        'acc/top1': 0.0,
        'acc/mean1': 0.0,
    }


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_broken_weights_are_refused_when_they_are_loaded(
    tool: Tool, config: Path, model: Any, tmp_path: Path, videos: Path, value: float
) -> None:
    with torch.no_grad():
        model.backbone.norm.weight[3] = value
    broken = save(model, tmp_path / 'broken.pth')
    named = ' weights of the checkpoint are NaN or infinite (backbone.norm.weight)'
    for words in (
        ('test', config, broken, '--work-dir', 'out'),
        ('train', config, '--work-dir', 'out', '--cfg-options', f'load_from={broken}'),
        ('predict', videos / '00.mp4', config, broken),
        ('extract_features', config, broken, videos, '--out', 'features'),
    ):
        code, printed = tool(*words)
        assert code == 1, words
        assert 'error: 1 of the ' in printed and named in printed, words
    with pytest.raises(NonFiniteError, match=r'norm\.weight'):
        load_checkpoint(model, broken)


def test_weights_that_overflow_float32_are_refused(model: Any, tmp_path: Path) -> None:
    weights = {name: tensor.double() for name, tensor in model.state_dict().items()}
    weights['backbone.cls_token'] *= 1e300
    weights['backbone.cls_token'] += 1e300
    torch.save({'state_dict': weights}, tmp_path / 'double.pth')
    with pytest.raises(NonFiniteError, match='cls_token'):
        load_checkpoint(model, tmp_path / 'double.pth')


def test_prediction_features_attention_and_export_end_with_an_error(
    tool: Tool, config: Path, huge: Path, videos: Path
) -> None:
    one = videos / '00.mp4'
    for words, named in (
        (('predict', one, config, huge, '--out', 'a.json'), str(one)),
        (('predict', one, config, huge, '--save-video', 'a.mp4'), str(one)),
        (('predict', one, config, huge, '--window', '0.8', '--out', 'a.json'), str(one)),
        (('predict', videos, config, huge, '--out', 'a.csv'), '07.mp4 and'),
        (('extract_features', config, huge, videos, '--out', 'features'), '01.mp4'),
        (('visualize_attention', one, config, huge, '--out', 'attention'), str(one)),
        (('analysis_tools/compare_precision', one, config, huge), str(one)),
        (('export', config, huge, '--format', 'torchscript', '--out', 'a.torchscript'), 'noise'),
    ):
        code, printed = tool(*words)
        assert code == 1, words
        assert printed.count('error: ') == 1 and 'NaN or infinite' in printed, words
        assert named.removesuffix('07.mp4 and') in printed, words
        left = [path for path in Path().glob('[aA]*') if path.suffix != '.py']
        assert not left, 'nothing is written'
    assert not list(Path('features').rglob('*.npy'))


def test_python_gets_the_error(config: Path, huge: Path, videos: Path) -> None:
    classifier = VideoClassifier(config, huge, 'cpu')
    with pytest.raises(NonFiniteError, match=r'the class scores of the video .*00\.mp4'):
        classifier(videos / '00.mp4')
    with pytest.raises(NonFiniteError, match=r'all 2 videos \('):
        classifier([videos / '00.mp4', videos / '01.mp4'], progress=False)
    with pytest.raises(NonFiniteError, match='the features of the video'):
        classifier.features(videos / '00.mp4')
    with pytest.raises(NonFiniteError, match='array 0'):
        classifier(np.zeros((8, 32, 32, 3), np.uint8))


def test_the_demo_page_answers_with_the_error(
    config: Path, huge: Path, videos: Path, tmp_path: Path
) -> None:
    from mmtimesformer.visualization.demo_page import DemoPage

    answer = DemoPage(VideoClassifier(config, huge, 'cpu'), tmp_path)(videos / '00.mp4')
    assert 'NaN or infinite' in answer.words and answer.grid is None


def test_a_validation_counts_them_as_wrong_and_a_training_ends_with_an_error(
    tool: Tool, config: Path, huge: Path
) -> None:
    code, printed = tool(
        'train', config, '--work-dir', 'out', '--cfg-options', f'load_from={huge}',
        'train_dataloader.dataset.indices=4',
    )  # fmt: skip
    assert code == 1
    assert 'acc/top1: 0.0000' in printed
    assert 'They count as wrong' in printed
    assert 'is NaN or infinite' in printed.rpartition('error: ')[2]


# -- some videos have none -------------------------------------------------------------------------


@pytest.mark.usefixtures('broken_for_bright_videos')
def test_some_count_as_wrong_are_named_and_are_an_error(
    tool: Tool, config: Path, sound: Path
) -> None:
    code, printed = tool('test', config, sound, '--work-dir', 'out', '--dump', 'out/result.pkl')
    assert code == 1
    assert 'acc/top1: 0.8333' in printed, '10 of 12'
    assert 'error: the class scores of 2 of 12 videos (' in printed
    meta = json.loads(Path('out/result.meta.json').read_text())
    assert [Path(name).name for name in meta['non_finite']] == ['03.mp4', '07.mp4']
    results = pickle.loads(Path('out/result.pkl').read_bytes())
    named = [i for i, result in enumerate(results) if 'non_finite' in result]
    assert named == [3, 7]
    for result in results:
        scores = result.get('pred_score', result.get('pred_scores', {}))
        assert torch.isfinite(scores if isinstance(scores, torch.Tensor) else scores['item']).all()
        assert torch.isfinite(result['view_scores']).all()

    code, printed = tool('analysis_tools/report', 'out')
    assert code == 1
    assert 'error: the class scores of 2 of 12 videos (' in printed
    page = shown_part(Path('out/report.html').read_text())
    assert 'Videos whose scores are not finite' in page
    assert '03.mp4' in page and '07.mp4' in page
    assert 'could not be read' not in page
    assert '83.33' in page
    assert 'nan\u00a0%' not in page and 'nan %' not in page


def test_a_dump_with_nan_of_other_tools_is_not_taken_for_answers(
    tool: Tool, config: Path, sound: Path
) -> None:
    """MMAction2's own test writes NaN into its dump."""
    tool('test', config, sound, '--work-dir', 'out', '--dump', 'out/result.pkl')
    results = pickle.loads(Path('out/result.pkl').read_bytes())
    Path('out/result.meta.json').unlink()
    for number in (0, 5):
        scores = results[number].get('pred_score', results[number].get('pred_scores'))
        scores = scores if isinstance(scores, torch.Tensor) else scores['item']
        scores[:] = math.nan
        del results[number]['filename']
    Path('out/result.pkl').write_bytes(pickle.dumps(results))
    code, printed = tool('analysis_tools/report', 'out')
    assert code == 1 and 'of 2 of 12 videos (' in printed
    run = read_test_results(Path('out'))
    assert list(run.failed) == [0, 5]
    assert run.predicted.tolist() == [0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1]
    for result in results:
        scores = result.get('pred_score', result.get('pred_scores'))
        (scores if isinstance(scores, torch.Tensor) else scores['item'])[:] = math.inf
    Path('out/result.pkl').write_bytes(pickle.dumps(results))
    Path('out/report.html').unlink()
    code, printed = tool('analysis_tools/report', 'out')
    assert code == 1 and 'all 12 videos' in printed
    assert not Path('out/report.html').exists()


@pytest.mark.usefixtures('broken_for_bright_videos')
def test_a_folder_is_labelled_but_for_those(
    tool: Tool, config: Path, sound: Path, videos: Path
) -> None:
    code, printed = tool('predict', videos, config, sound, '--out', 'labels.json')
    assert code == 1
    assert 'error: the class scores of 2 of 12 videos (' in printed

    written = json.loads(Path('labels.json').read_text(), parse_constant=pytest.fail)
    assert len(written['videos']) == 10
    assert [Path(one['video']).name for one in written['skipped']] == ['03.mp4', '07.mp4']


@pytest.mark.usefixtures('broken_for_bright_videos')
def test_features_that_are_not_finite_are_not_written_nor_done(
    tool: Tool, config: Path, sound: Path, videos: Path
) -> None:
    for again in (False, True):
        code, printed = tool('extract_features', config, sound, videos, '--out', 'out')
        assert code == 1
        assert '12 videos: 10 done, 2 failed' in printed
        assert ('10 of 12 are there already' in printed) == again
        assert 'error: the features of 2 of 12 videos (03.mp4, 07.mp4)' in printed
        written = json.loads(Path('out/manifest.json').read_text())
        assert list(written['failed']) == ['03.mp4', '07.mp4']
        assert not Path('out/features/03.mp4.npy').exists()


def test_old_features_with_nan_are_computed_again(
    tool: Tool, config: Path, sound: Path, videos: Path
) -> None:
    tool('extract_features', config, sound, videos, '--out', 'out')
    manifest = Path('out/manifest.json')
    written = json.loads(manifest.read_text())
    del written['finite']  # of an earlier version, which did not check
    manifest.write_text(json.dumps(written))
    file = Path('out/features/05.mp4.npy')
    before = np.load(file)
    np.save(file, before * math.nan)
    code, printed = tool('extract_features', config, sound, videos, '--out', 'out')
    assert code == 0 and '11 of 12 are there already' in printed
    assert np.allclose(np.load(file), before, atol=1e-5)


def test_features_too_large_for_half_are_an_error(
    tool: Tool, config: Path, model: Any, videos: Path, tmp_path: Path
) -> None:
    with torch.no_grad():
        model.backbone.norm.weight *= 1e6
    large = save(model, tmp_path / 'large.pth')
    words = ('extract_features', config, large, videos / 'val.txt', '--root', videos, '--out')
    code, printed = tool(*words, 'out', '--half')
    assert code == 1 and 'float16' in printed
    assert not list(Path('out').rglob('*.npy'))
    assert tool(*words, 'whole')[0] == 0


def test_a_short_precision_that_overflows_says_so(
    tool: Tool, config: Path, sound: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bf16 has the range of fp32, so an overflow is planted."""
    forward = TimeSformer.forward

    def overflowing(self: TimeSformer, video: torch.Tensor) -> torch.Tensor:
        out = forward(self, video)
        return out * math.inf if torch.is_autocast_enabled('cpu') else out

    monkeypatch.setattr(TimeSformer, 'forward', overflowing)
    code, printed = tool('predict', videos / '00.mp4', config, sound, '--speed', 'bf16')
    assert code == 1 and 'computed in bf16: compute in fp32' in printed
    code, printed = tool(
        'analysis_tools/compare_precision', videos / '00.mp4', config, sound, '--speeds', 'bf16'
    )
    assert code == 1 and 'computed in bf16: compute in fp32' in printed
    code, printed = tool('test', config, sound, '--work-dir', 'out', '--amp', 'bf16')
    assert code == 1 and 'computed in bfloat16: compute in fp32' in printed


@pytest.mark.slow
def test_all_processes_of_a_test_name_all_videos(
    config: Path, sound: Path, huge: Path, videos: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHON': sys.executable}

    def run(checkpoint: Path, out: str) -> tuple[int, str]:
        command = ['bash', ROOT / 'tools/dist_test.sh', config, checkpoint, '2']
        command += ['--work-dir', tmp_path / out, '--dump', tmp_path / f'{out}.pkl']
        done = subprocess.run(
            [str(word) for word in command], env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=120,
        )  # fmt: skip
        return done.returncode, done.stdout

    code, printed = run(huge, 'huge')
    assert code == 1 and 'none of the first 8 videos has' in printed
    text = config.read_text() + (
        'from mmengine.registry import HOOKS\n'
        "custom_imports = dict(imports=['mmtimesformer', 'bright'], allow_failed_imports=False)\n"
    )
    (tmp_path / 'bright.py').write_text(
        'import torch\nfrom mmtimesformer import TimeSformer\nforward = TimeSformer.forward\n'
        'def overflowing(self, video):\n'
        '    bright = video.mean((1, 2, 3, 4)) > 0.5\n'
        '    return torch.where(bright[:, None], torch.nan, forward(self, video))\n'
        'TimeSformer.forward = overflowing\n'
    )
    config.write_text(text.replace('from mmengine.registry import HOOKS\n', ''))
    environment['PYTHONPATH'] += f'{os.pathsep}{tmp_path}'
    code, printed = run(sound, 'some')
    assert code == 1 and 'of 2 of 12 videos (' in printed
    meta = json.loads((tmp_path / 'some.meta.json').read_text())
    assert sorted(Path(name).name for name in meta['non_finite']) == ['03.mp4', '07.mp4']
    assert meta['scores']['acc/top1'] == pytest.approx(10 / 12)


def test_curves_are_json_without_nan(tmp_path: Path) -> None:
    from mmengine.visualization import Visualizer

    from mmtimesformer.engine.hooks.log_write_errors import tolerate_visualizer_write_errors
    from mmtimesformer.visualization.training import read_training

    folder = tmp_path / '20260101_000000'
    backends = [dict(type='LocalVisBackend')]
    visualizer = Visualizer(vis_backends=backends, save_dir=str(folder))
    tolerate_visualizer_write_errors(visualizer, print)
    for step, loss in enumerate([2.0, math.nan, -math.inf, 1.0]):
        visualizer.add_scalars({'loss': np.float32(loss), 'lr': 0.1}, step=step)
    lines = (folder / 'vis_data' / 'scalars.json').read_text().splitlines()
    assert [json.loads(line, parse_constant=pytest.fail)['loss'] for line in lines] == [
        2.0,
        None,
        None,
        1.0,
    ]
    assert read_training(tmp_path)['loss'] == [(0, 2.0), (3, 1.0)]


# -- what they are made of -------------------------------------------------------------------------


@pytest.mark.parametrize('truth', [[2], [0.0, 1.0, 1.0, 0.0]])
def test_a_wrong_answer_takes_the_place_of_nan(truth: list[float]) -> None:
    true = torch.tensor(truth)
    wrong = wrong_scores(torch.full((4,), math.nan), true)
    assert wrong.isfinite().all()
    assert wrong.argmin() in (1, 2) and wrong.argmax() == 0


def test_the_message_names_the_first_and_counts_the_others() -> None:
    message = about_scores([f'{i}.mp4' for i in range(7)], 4000, 'fp16')
    assert message == (
        'the class scores of 7 of 4,000 videos (0.mp4, 1.mp4, 2.mp4 and 4 more) are NaN or '
        'infinite, and must be finite numbers; they were computed in fp16: compute in fp32, or '
        'else give a checkpoint from before the training diverged'
    )


def test_a_checkpoint_of_a_sound_training_is_not_refused(sound: Path, model: Any) -> None:
    assert load_checkpoint(model, sound).complete
    assert load_torch(sound)['state_dict'].keys() == model.state_dict().keys()
