"""Hostile file 7: class and file names that are markup, mathtext or terminal escapes.

They come by ``--classes``, in a checkpoint, in result files and as names of videos, and go to a
terminal, a pipe, web pages, pictures, videos and names of files.
"""

import argparse
import ast
import html
import importlib.util
import json
import pickle
import re
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmtimesformer.analysis.metrics import TestResults, confusion_matrix
from mmtimesformer.analysis.test_results import read_test_results
from mmtimesformer.checkpoints.load_report import LoadReport
from mmtimesformer.cli import run_tool
from mmtimesformer.datasets.preparation.finding import VideoFolder
from mmtimesformer.engine.hooks.prediction_images import PredictionImagesHook
from mmtimesformer.inference import Prediction, Timeline, VideoClassifier
from mmtimesformer.inference.sliding_window import Moment
from mmtimesformer.terminal import echo, safe_text, track
from mmtimesformer.visualization.attention import compute_attention, draw_attention
from mmtimesformer.visualization.attention_page import write_page
from mmtimesformer.visualization.confusion import draw_confusion
from mmtimesformer.visualization.film_strips import draw_clips
from mmtimesformer.visualization.label_overlay import draw_labels, output_names
from mmtimesformer.visualization.report import write_report
from mmtimesformer.visualization.scheme_comparison import SchemeResult, draw_scheme_comparison
from mmtimesformer.visualization.timeline import draw_timeline
from tests.inference.conftest import CONFIG
from tests.page_markup import elements_of, shown_part

ROOT = Path(__file__).resolve().parents[2]
NAMES = [  # of hostile file 7
    'win $100 or $50',
    'x_{',
    '<b>bold</b>',
    '\x1b]0;title\x07',
    'çlass 类别',
    'plain',
    'seven',
    'eight',
]
SIMILAR = [  # of the same kinds
    r'$x_{$',
    r'$\frac{$ \$ %',
    '[bold]x[/]',
    '[/foo] :fire:',
    '</script><script>alert(9)</script>',
    'top\nerror: forged',
    '\u202egnp.exe\x9b2J',
    'a' * 3000,
]
CONTROLS = re.compile(r'[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]')
PNG = b'\x89PNG'

Tool = Callable[..., tuple[int, str, str]]


@pytest.fixture(params=[NAMES, SIMILAR], ids=['given', 'similar'])
def names(request: pytest.FixtureRequest) -> list[str]:
    return list(request.param)


@pytest.fixture(scope='session')
def weights(
    tmp_path_factory: pytest.TempPathFactory, tiny_videos: Path
) -> tuple[str, dict[str, Any]]:
    """The text of a config of eight classes, and weights of its model."""
    from mmaction.registry import MODELS
    from mmaction.utils import register_all_modules

    text = CONFIG.replace('{videos}', str(tiny_videos)).replace('num_classes=3', 'num_classes=8')
    path = tmp_path_factory.mktemp('config') / 'tiny.py'
    path.write_text(text)
    cfg = Config.fromfile(path)
    register_all_modules(init_default_scope=False)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(cfg.model)
    return cfg.pretty_text, model.state_dict()


@pytest.fixture
def checkpoint(weights: tuple[str, dict[str, Any]], names: list[str], tmp_path: Path) -> Path:
    """A checkpoint with the names inside."""
    path = tmp_path / 'epoch_1.pth'
    meta = {'cfg': weights[0], 'dataset_meta': {'classes': names}}
    torch.save({'meta': meta, 'state_dict': weights[1]}, path)
    return path


@pytest.fixture
def video(tiny_videos: Path, tmp_path: Path) -> Path:
    """A video whose own name is hostile."""
    path = tmp_path / '\x1b[31m$x_{$ <b>.mp4'
    shutil.copyfile(tiny_videos / '0.mp4', path)
    return path


@pytest.fixture
def tool(capfd: pytest.CaptureFixture) -> Tool:
    """Run a tool in this process; return its exit code, and what it wrote to both streams."""

    def run(name: str, *words: object) -> tuple[int, str, str]:
        path = ROOT / 'tools' / f'{name}.py'
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        code = module.main([str(word) for word in words])
        return code, *capfd.readouterr()

    return run


def prediction_of(names: list[str]) -> Prediction:
    scores = np.linspace(0.3, 0.01, len(names))
    return Prediction(
        'v.mp4', names, scores.tolist(), list(range(len(names))), scores, 'mean of softmax'
    )


PLAIN = [f'class {k}' for k in range(8)]


@pytest.fixture
def plain_video(video: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(video, tmp_path / 'plain.mp4'))


def check_page(page: str, plain_page: str, names: list[str], video: Path) -> None:
    """Check that names add no element or attribute to a page, and are shown and kept as text."""
    assert elements_of(page) == elements_of(plain_page)
    assert '<b>bold' not in page and page.count('</script') == plain_page.count('</script') == 2
    assert not CONTROLS.search(page)
    assert html.escape(safe_text(names[0])) in shown_part(page)
    data = json.loads(page.partition('type="application/json">')[2].partition('</script>')[0])
    assert data['classes'] == names
    assert {one['name'] for one in data['videos']} >= {video.name}


# The terminal and the pipe


@pytest.mark.parametrize('width', [None, '120'], ids=['pipe', 'terminal'])
def test_predict_prints_names_of_a_checkpoint_and_of_videos_without_escapes(
    tool: Tool, checkpoint: Path, names: list[str], video: Path,
    width: str | None, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if width:
        monkeypatch.setenv('FORCE_COLOR', '1')
        monkeypatch.setenv('COLUMNS', '4000')
    broken = video.with_name('broken\nerror: forged.mp4')
    broken.write_bytes(b'no video at all')
    folder = video.parent / 'videos'
    folder.mkdir()
    for one in (video, broken):
        one.rename(folder / one.name)
    code, out, err = tool('predict', folder, checkpoint, '--topk', 8)
    assert code == 3, err
    own = r'\x1b\[[?\d;]*[A-Za-z]|\r'  # of the table's bold head, and of the progress bar
    shown, err = (re.sub(own, '', text) if width else text for text in (out, err))
    assert not CONTROLS.search(shown + err)
    for name in names:
        assert safe_text(name, 200) in shown
    assert not any(line.startswith('error: forged') for line in shown.splitlines())
    assert '\\x1b[31m$x_{$ <b>.mp4' in shown


def test_files_of_predict_hold_names_as_they_are(
    tool: Tool, checkpoint: Path, names: list[str], video: Path, tmp_path: Path
) -> None:
    assert tool('predict', video, checkpoint, '--topk', 8, '--out', tmp_path / 'x.json')[0] == 0
    found = json.loads((tmp_path / 'x.json').read_text('utf-8'))['videos'][0]
    assert {one['label'] for one in found['top']} == set(names)
    assert found['video'] == str(video)


def test_a_timeline_on_the_terminal_in_a_picture_and_in_a_table(
    tool: Tool, checkpoint: Path, video: Path, tmp_path: Path
) -> None:
    options = '--window', 0.4, '--timeline', tmp_path / 't.png', tmp_path / 't.csv'
    code, out, err = tool('predict', video, checkpoint, *options)
    assert code == 0, err
    assert not CONTROLS.search(out + err)
    assert (tmp_path / 't.png').read_bytes().startswith(PNG)


def test_an_error_message_that_quotes_names_is_one_line_without_escapes(
    capsys: pytest.CaptureFixture, names: list[str]
) -> None:
    def fail() -> None:
        raise ValueError(f'there is no class {names}, {"".join(names)}')

    assert run_tool(fail, debug=True) == 1
    err = capsys.readouterr().err
    assert not CONTROLS.search(err)
    assert err.splitlines()[-1].startswith('error: there is no class')


def test_an_unknown_class_lists_the_nearest_names_without_escapes(
    tool: Tool, checkpoint: Path, video: Path, names: list[str]
) -> None:
    code, out, err = tool('visualize_attention', video, checkpoint, '--class', names[3][:-1])
    assert code == 1
    assert err.startswith('\nerror: there is no class')
    assert not CONTROLS.search(out + err)


def test_a_warning_that_quotes_names_has_no_escapes(
    capsys: pytest.CaptureFixture, names: list[str]
) -> None:
    def warn() -> None:
        sys.stderr.write(warnings.formatwarning(''.join(names), UserWarning, 'x.py', 1))

    assert run_tool(warn) == 0
    assert not CONTROLS.search(capsys.readouterr().err)


def test_the_load_report_shows_names_of_keys_without_escapes(names: list[str]) -> None:
    load_report = LoadReport('official', 'mmtimesformer')
    for name in names:
        load_report.add('unknown', name)
    load_report.warnings = names
    assert not CONTROLS.search(load_report.table())
    assert len(load_report.table().splitlines()) == 4 + 2 * len(names)
    with pytest.raises(ValueError, match='no key may be missing or unknown') as raised:
        load_report.check()
    assert not CONTROLS.search(str(raised.value))


def test_progress_bars_take_names_of_folders_as_text(
    capsys: pytest.CaptureFixture, tmp_path: Path, names: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in names:
        assert list(track([1, 2], name)) == [1, 2]
    out = capsys.readouterr().out
    assert not CONTROLS.search(out)
    assert safe_text(names[2]) in out
    (tmp_path / '[' / 'f] :fire:').mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    VideoFolder(Path('[/f] :fire:'))
    assert '[/f] :fire:: 0 videos' in capsys.readouterr().out


def test_what_an_encoding_does_not_have_is_an_escape_and_no_error(tmp_path: Path) -> None:
    for encoding in ('ascii', 'latin-1', 'cp1252', 'utf-8'):
        path = tmp_path / encoding
        with path.open('w', encoding=encoding) as file:
            echo(*NAMES, 'not UTF-8: \udcff', file=file)
        assert 'not UTF-8: \\udcff' in path.read_text(encoding)


def test_every_tool_prints_through_the_functions_that_remove_escapes() -> None:
    """A bare ``print`` of anything but a constant is how escapes reach a terminal."""
    allowed = {'terminal.py', 'doctor.py'}  # the functions; and a tool without the package
    found = []
    for file in [*(ROOT / 'tools').rglob('*.py'), *(ROOT / 'mmtimesformer').rglob('*.py')]:
        if file.name in allowed:
            continue
        for node in ast.walk(ast.parse(file.read_text('utf-8'))):
            is_print = isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'print'
            if is_print and not all(isinstance(given, ast.Constant) for given in node.args):
                found.append(f'{file.relative_to(ROOT)}:{node.lineno}')
            if isinstance(node, ast.ImportFrom) and node.module == 'rich.progress':
                assert 'track' not in {one.name for one in node.names}, f'{file}: terminal.track'
    assert not found, 'print through mmtimesformer.terminal.echo'


def test_names_that_are_not_utf8_go_through_every_output(
    tool: Tool, checkpoint: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / 'videos'
    folder.mkdir()
    shutil.copyfile(tiny_videos / '0.mp4', folder / 'a\udcff.mp4')
    (folder / 'b\udcfe.mp4').write_bytes(b'no video')
    for name in ('x.json', 'x.csv'):
        options = '--out', tmp_path / name, '--save-video', tmp_path / 'labelled'
        code, out, err = tool('predict', folder, checkpoint, *options)
        assert code == 3, err
        assert 'a\\udcff.mp4' in out
    found = json.loads((tmp_path / 'x.json').read_text('utf-8'))
    assert found['videos'][0]['video'] == str(folder / 'a\udcff.mp4')
    assert bytes(folder / 'a\udcff.mp4') in (tmp_path / 'x.csv').read_bytes()
    code, out, err = tool(
        'data/check_videos', folder, '--out', tmp_path / 'bad.csv', '--num-workers', 1
    )
    assert code == 3, err
    assert b'b\xfe.mp4' in (tmp_path / 'bad.csv').read_bytes()
    assert 'b\\udcfe.mp4: ' in out


def test_an_error_of_the_command_line_quotes_arguments_without_escapes(
    tool: Tool, capfd: pytest.CaptureFixture, names: list[str]
) -> None:
    for name in ('predict', 'test', 'train', 'export', 'data/check_videos'):
        with pytest.raises(SystemExit):
            tool(name, 'a', 'b', 'c', 'd', *names)
        assert not CONTROLS.search(capfd.readouterr().err)


def test_logs_of_a_run_name_videos_and_classes_without_escapes(
    names: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from mmtimesformer.engine.runner import Runner

    runner = Runner.__new__(Runner)
    runner._log_dir, runner._timestamp = str(tmp_path), 'now'
    runner._experiment_name = tmp_path.name
    for _ in range(2):
        logger = runner.build_logger(log_level='INFO', log_file=str(tmp_path / 'x.log'))
    logger.warning('%s cannot be read', safe_text(names[3]))
    for name in names:
        logger.warning(f'{name} cannot be read')
        logger.info('class %s', name)
    output = re.sub(r'\x1b\[[\d;]*m', '', capsys.readouterr().out)  # the colour of the level
    for text in (output, (tmp_path / 'x.log').read_text()):
        assert not CONTROLS.search(text)


# Pages


def single_label_page(names: list[str], video: Path, tmp_path: Path) -> str:
    rows = np.random.default_rng(0).dirichlet(np.ones(8), size=16)
    about = {'config': f'{names[2]}.py', 'checkpoint': f'{names[4]}.pth', 'date': names[3]}
    about |= {names[0]: names[5], 'views': {'clips': names[2], 'crops': '{{body}}'}}
    run = TestResults(
        rows, np.arange(16) % 8, names, [video] * 16, about, tmp_path,
        view_scores=rows[:, None].repeat(3, 1) * np.array([1, 5, -9])[:, None],
        failed={3: (names[3], names[2])}, lines=[f'{video.name}\t{i % 8}' for i in range(16)],
        delimiter='\t',
    )  # fmt: skip
    return write_report(run, tmp_path / 'report.html').read_text('utf-8')


def test_the_report_escapes_names_of_classes_videos_files_and_its_config(
    names: list[str], video: Path, plain_video: Path, tmp_path: Path
) -> None:
    page = single_label_page(names, video, tmp_path)
    check_page(page, single_label_page(PLAIN, plain_video, tmp_path), names, video)
    assert html.escape(safe_text(video.name)) in shown_part(page)


def multi_label_page(names: list[str], video: Path, tmp_path: Path) -> str:
    random = np.random.default_rng(0)
    labels = (random.random((16, 8)) < 0.3).astype(int)
    lines = ['\t'.join([video.name, *map(str, np.flatnonzero(row))]) for row in labels]
    run = TestResults(
        random.random((16, 8)), labels, names, [video] * 16, lines=lines, delimiter='\t'
    )
    assert run.is_multi_label
    return write_report(run, tmp_path / 'report.html').read_text('utf-8')


def test_the_report_of_several_labels_a_video_escapes_names(
    names: list[str], video: Path, plain_video: Path, tmp_path: Path
) -> None:
    page = multi_label_page(names, video, tmp_path)
    check_page(page, multi_label_page(PLAIN, plain_video, tmp_path), names, video)


def test_the_report_of_files_whose_names_are_hostile(
    tool: Tool, names: list[str], tmp_path: Path
) -> None:
    samples = [
        {
            'pred_scores': {'item': torch.eye(8)[i] * 0.9},
            'gt_labels': {'item': torch.tensor([(i + 1) % 8])},
        }
        for i in range(8)
    ]
    (tmp_path / 'result.pkl').write_bytes(pickle.dumps(samples))
    (tmp_path / 'result.meta.json').write_text(json.dumps({'classes': names}))
    assert read_test_results(tmp_path).classes == names
    code, out, err = tool('analysis_tools/report', tmp_path)
    assert code == 0, err
    assert not CONTROLS.search(out + (tmp_path / 'report.html').read_text('utf-8'))


def test_attention_pictures_and_page_of_a_checkpoint_with_hostile_names(
    tool: Tool, checkpoint: Path, names: list[str], video: Path, tmp_path: Path
) -> None:
    out = tmp_path / '[out] :fire:'
    for method in ('rollout', 'gradient'):
        options = '--method', method, '--class', names[2], '--out', out
        code, output, err = tool('visualize_attention', video, checkpoint, *options)
        assert code == 0, err
        assert not CONTROLS.search(output + err)
        assert (out / 'grid.png').read_bytes().startswith(PNG)
    page = (out / 'page.html').read_text('utf-8')
    assert not CONTROLS.search(page)
    assert '<b>bold' not in page
    assert page.count('</script') == 2
    data = json.loads(page.partition('type="application/json">')[2].partition('</script>')[0])
    assert safe_text(names[2], 200) in data['summaries']['gradient']['meaning']
    assert data['title'] == safe_text(video.name)


def test_the_attention_page_has_names_of_any_checkpoint_as_text(
    checkpoint: Path, names: list[str], video: Path, tmp_path: Path
) -> None:
    attention = compute_attention(
        VideoClassifier(checkpoint=checkpoint, device='cpu'), video, label=4
    )
    write_page(attention, tmp_path / 'page.html')
    draw_attention(
        attention.frames, {name: attention.heatmap() for name in names}, tmp_path / 'a.png', 'x_{$'
    )
    assert (tmp_path / 'a.png').read_bytes().startswith(PNG)


# Pictures, videos, names of files


def test_pictures_show_names_as_text(names: list[str], tmp_path: Path) -> None:
    counts = confusion_matrix(np.arange(8), (np.arange(8) + 1) % 8, 8)
    draw_confusion(counts, names, tmp_path / 'confusion.png', names[0])
    moments = [
        Moment(i, i + 1.0, prediction_of(names[i % 8 :] + names[: i % 8])) for i in range(16)
    ]
    timeline = Timeline('a\x1b$x_{$/b$_{\x07.mp4', 1, 1, moments, note=''.join(names))
    draw_timeline(timeline, tmp_path / 'timeline.png')
    results = [SchemeResult(name, 1000, 0.5, 0.9, 3) for name in names[:3]]
    draw_scheme_comparison(results, tmp_path / 'schemes.png', names[1])
    clips = {name: np.zeros((3, 8, 8, 3), np.uint8) for name in names}
    draw_clips(clips, tmp_path / 'clips.png')
    for name in ('confusion', 'timeline', 'schemes', 'clips'):
        assert (tmp_path / f'{name}.png').read_bytes().startswith(PNG)


def test_a_dollar_sign_in_a_picture_is_a_dollar_sign() -> None:
    import matplotlib
    from matplotlib.figure import Figure

    from mmtimesformer.visualization.figures import STYLE

    with matplotlib.rc_context(STYLE):
        text = Figure().text(0, 0, '$100 or $50')
        assert not text.get_parse_math() and not text.get_usetex()


def test_labels_on_videos_are_text(
    tool: Tool, checkpoint: Path, names: list[str], video: Path, tmp_path: Path
) -> None:
    frame = np.full((240, 320, 3), 90, np.uint8)
    for name in names:
        drawn = draw_labels(frame, prediction_of([name, *names]))
        assert (drawn != frame).any()
    code, out, err = tool('predict', video, checkpoint, '--save-video', tmp_path / 'labelled')
    assert code == 0, err
    assert not CONTROLS.search(out + err)


def test_labelled_videos_stay_in_the_folder_under_names_that_a_disk_takes(tmp_path: Path) -> None:
    videos = ['../' + 'x' * 250 + '.mp4', 'é' * 125 + '.mp4', '/..mp4', 'a\udcff.mp4', '.mp4']
    paths = output_names([*videos, *videos], tmp_path)
    assert len(set(paths)) == len(paths)
    for path in paths:
        assert path.parent == tmp_path and path.suffix == '.mp4'
        path.with_name(f'.{path.name}.12345678.part').write_bytes(b'')


def test_pictures_of_predictions_stay_in_their_folder_under_names_that_a_disk_takes(
    names: list[str], tmp_path: Path
) -> None:
    files = [f'../up/{name.replace("/", "")}'[:250] + '.mp4' for name in [*names, '', 'é' * 120]]
    dataset = type(
        'Data', (), {'__len__': lambda _: len(files), 'metainfo': {'classes': ['..', *names[1:]]},
                     'get_data_info': lambda _, index: {'filename': files[index]}},
    )()  # fmt: skip
    runner = argparse.Namespace(
        test_dataloader=argparse.Namespace(dataset=dataset), world_size=1, rank=0, cfg={}
    )
    hook = PredictionImagesHook(str(tmp_path / 'shown'))
    for i in range(len(files)):
        sample = {'pred_score': torch.eye(8)[i % 8], 'gt_label': torch.tensor([(i + 1) % 8])}
        hook.after_test_iter(
            runner, i, {'inputs': [torch.zeros(3, 2, 8, 8, dtype=torch.uint8)]}, [sample]
        )
    written = sorted(tmp_path.rglob('*.png'))
    assert len(written) == len(files)
    assert {path.parent for path in written} == {tmp_path / 'shown' / 'vis_image'}
    for path in written:
        assert not CONTROLS.search(path.name)
        assert re.fullmatch(r'[\w.-]+', path.name)
