"""tools/export.py, as a user starts it, and its files, as their users read them."""

import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmtimesformer.export import FORMATS, TOLERANCE, verify
from mmtimesformer.inference import VideoClassifier

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / 'docs' / 'export.md').read_text(encoding='utf-8')
COMMANDS = re.findall(r'^python tools/export\.py .*$', TEXT, re.MULTILINE)
PROGRAMS = re.findall(r'^```python\n(.*?)^```', TEXT, re.DOTALL | re.MULTILINE)
SCHEMES = ('divided_space_time', 'joint_space_time', 'space_only')

has_onnx = all(map(importlib.util.find_spec, ('onnx', 'onnxscript', 'onnxruntime')))
needs_onnx = pytest.mark.skipif(
    not has_onnx, reason='onnx, onnxscript or onnxruntime is missing: mmtimesformer[export]'
)
EVERY_FORMAT = [pytest.param(name, marks=needs_onnx if name == 'onnx' else ()) for name in FORMATS]

Export = Callable[..., tuple[int, str, str]]
Make = Callable[..., Path]


@pytest.fixture
def export(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> Export:
    """Run the tool in this process; return its exit code, and what it wrote to both streams."""
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location('tool_export', tools / 'export.py')
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*words: object) -> tuple[int, str, str]:
        try:
            code = module.main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code
        output = capfd.readouterr()
        assert 'Traceback' not in output.err + output.out
        return code, output.out, output.err

    return run


@pytest.fixture
def make(tiny_config: Path, tmp_path: Path) -> Make:
    """Make a checkpoint with random weights that carries its config, changed as asked for."""

    def checkpoint(change: Callable[[Any], None] = lambda cfg: None) -> Path:
        from mmaction.registry import MODELS
        from mmaction.utils import register_all_modules

        register_all_modules(init_default_scope=False)
        cfg = Config.fromfile(tiny_config)
        pipeline = cfg.test_dataloader.dataset.pipeline
        pipeline[0].type, pipeline[2].type = 'mmtimesformer.VideoInit', 'mmtimesformer.VideoDecode'
        cfg.model.cls_head.type = 'mmtimesformer.TimeSformerHead'
        cfg.model.backbone.update(num_layers=2, temporal_init='random')
        cfg.model.data_preprocessor.mean, cfg.model.data_preprocessor.std = [90, 100, 140], [50] * 3
        change(cfg)
        with DefaultScope.overwrite_default_scope('mmaction'):
            model = MODELS.build(cfg.model)
        if hasattr(model.cls_head, 'fc_cls'):
            torch.nn.init.normal_(model.cls_head.fc_cls.weight)
        path = tmp_path / 'epoch_1.pth'
        meta = {'cfg': cfg.pretty_text, 'dataset_meta': {'classes': ['left', 'right']}}
        torch.save({'meta': meta, 'state_dict': model.state_dict()}, path)
        return path

    return checkpoint


def scheme(name: str) -> Callable[[Any], None]:
    def change(cfg: Any) -> None:
        cfg.model.backbone.attention_type = name

    return change


@pytest.mark.parametrize('kind', EVERY_FORMAT)
@pytest.mark.parametrize('attention_type', SCHEMES)
def test_a_file_scores_a_video_as_pytorch_does(
    export: Export, make: Make, tiny_videos: Path, attention_type: str, kind: str
) -> None:
    checkpoint = make(scheme(attention_type))
    code, out, err = export(checkpoint, '--format', kind)
    assert (code, err) == (0, '')
    assert out.count('batch 1') == out.count('batch 3') == 2
    classifier = VideoClassifier(checkpoint=checkpoint, device='cpu')
    clips = classifier.clips(str(tiny_videos / '0.mp4'))
    run, stored = FORMATS[kind].read(Path('epoch_1' + FORMATS[kind].ending))
    with torch.inference_mode():
        logits = classifier.model.cls_head(classifier.model.backbone(clips))
    assert logits.std() > 0.01
    for some in (clips, clips[:1], clips.repeat(3, 1, 1, 1, 1)):
        torch.testing.assert_close(run(some)[:1], logits[:1], atol=TOLERANCE, rtol=0)
    assert stored['attention_type'] == attention_type
    assert stored.get('opset') == (18 if kind == 'onnx' else None)
    if kind != 'torchscript':  # which keeps stack traces
        assert not _paths_in(Path('epoch_1' + FORMATS[kind].ending))


def _paths_in(path: Path) -> list[Path]:
    """Return the places on this machine that a file names."""
    contents = [path.read_bytes()]
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            contents = [file.read(name) for name in file.namelist()]
    places = (ROOT, Path(sys.prefix), Path.cwd())
    return [place for place in places if any(str(place).encode() in part for part in contents)]


@pytest.mark.parametrize('fusion', ['prob', 'score', 'sum', None])
@pytest.mark.parametrize('to_rgb', [False, True])
def test_all_views_of_raw_pixels_make_the_score_of_a_test(
    export: Export, make: Make, tiny_videos: Path, fusion: str | None, to_rgb: bool
) -> None:
    def change(cfg: Any) -> None:
        cfg.model.cls_head.average_clips = fusion
        cfg.model.data_preprocessor.to_rgb = to_rgb

    checkpoint = make(change)
    kind = '--format', 'torchscript', '--views', '--with-preprocessing', '--out', 'x.torchscript'
    code, _, err = export(checkpoint, *kind)
    assert (code, err) == (0, '')
    classifier = VideoClassifier(checkpoint=checkpoint, device='cpu')
    video = tiny_videos / '0.mp4'
    run, stored = FORMATS['torchscript'].read(Path('x.torchscript'))
    pixels = classifier.views.of_file(video)['inputs'][None]
    assert (str(pixels.dtype), list(pixels.shape[1:])) == (
        'torch.uint8',
        stored['input']['shape'][1:],
    )
    expected = sorted(zip(*_labels(classifier, video), strict=True))
    got = sorted(zip(stored['classes'], run(pixels)[0].tolist(), strict=True))
    assert [name for name, _ in got] == [name for name, _ in expected]
    assert [x for _, x in got] == pytest.approx([x for _, x in expected], abs=TOLERANCE)
    assert stored['output']['meaning'] == f'{classifier.fusion} of 3 views'


def _labels(classifier: VideoClassifier, video: Path) -> tuple[list[str], list[float]]:
    result = classifier(str(video), topk=2)
    return result.labels, result.scores


def test_probabilities_are_the_softmax_of_each_clip(export: Export, make: Make) -> None:
    assert export(make(), '--format', 'torchscript', '--probabilities')[0] == 0
    run, stored = FORMATS['torchscript'].read(Path('epoch_1.torchscript'))
    scores = run(torch.rand(2, 3, 4, 32, 32))
    assert scores.sum(1).tolist() == pytest.approx([1, 1])
    assert stored['output']['meaning'] == 'softmax of each clip'


def test_a_file_tells_how_it_is_fed(export: Export, make: Make) -> None:
    def change(cfg: Any) -> None:
        cfg.model.data_preprocessor.to_rgb = True
        cfg.protocol = 'mine'

    checkpoint = make(change)
    export(checkpoint, '--format', 'torch-export', '--batch', 2)
    _, stored = FORMATS['torch-export'].read(Path('epoch_1.pt2'))
    assert stored['input'] == {
        'name': 'video',
        'dtype': 'float32',
        'layout': 'b c t H W',
        'shape': [2, 3, 4, 32, 32],
        'colour': 'BGR',
        'mean': [90, 100, 140],
        'std': [50, 50, 50],
    }
    about = [
        stored[key] for key in ('frames', 'interval', 'views', 'fusion', 'protocol', 'classes')
    ]
    assert about == [4, 2, 3, 'mean of softmax', 'mine', ['left', 'right']]
    assert stored['pipeline'][1]['type'] == 'SampleFrames'
    assert stored['checkpoint'] == 'epoch_1.pth'  # and not where it lies

    export(checkpoint, '--format', 'torchscript', '--with-preprocessing')
    _, stored = FORMATS['torchscript'].read(Path('epoch_1.torchscript'))
    stored = stored['input']
    assert (stored['dtype'], stored['colour'], stored['mean']) == ('uint8', 'RGB', None)
    assert stored['shape'][0] is None


def test_a_fixed_batch_is_the_only_one(export: Export, make: Make) -> None:
    code, out, _ = export(make(), '--format', 'torch-export', '--batch', 1)
    assert code == 0 and 'batch 1' in out and 'batch 3' not in out
    run, _ = FORMATS['torch-export'].read(Path('epoch_1.pt2'))
    clips = torch.rand(2, 3, 4, 32, 32)
    assert run(clips[:1]).shape == (1, 2)
    with pytest.raises(Exception, match='shape'):
        run(clips)


@pytest.mark.parametrize('attention_type', SCHEMES)
def test_embeddings_are_resized_once_and_not_in_the_file(
    export: Export, make: Make, attention_type: str
) -> None:
    """A model built for 2 frames of 64 pixels sees clips of 4 frames of 32."""

    def change(cfg: Any) -> None:
        cfg.model.backbone.update(attention_type=attention_type, num_frames=2, img_size=64)

    code, _, err = export(make(change), '--format', 'torchscript')
    assert (code, err) == (0, '')  # compared with the model that resizes at run time
    with zipfile.ZipFile('epoch_1.torchscript') as file:
        code = b''.join(file.read(name) for name in file.namelist() if name.endswith('.py'))
    assert b'scaled_dot_product' in code and b'upsample' not in code


def test_a_file_that_differs_is_not_kept(
    export: Export, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = verify._scores

    def wrong(*args: Any) -> Any:
        expected, clips = scores(*args)
        return expected + 2 * TOLERANCE, clips

    checkpoint = make()
    Path('old.torchscript').write_text('as it was')
    monkeypatch.setattr(verify, '_scores', wrong)
    code, _, err = export(checkpoint, '--format', 'torchscript', '--out', 'old.torchscript')
    assert code == 1
    assert 'differs from PyTorch by 0.0002 on noise, 1 at a time, and 0.0001 is allowed' in err
    assert Path('old.torchscript').read_text() == 'as it was'
    assert not list(Path().glob('.*'))


def test_a_score_that_is_no_number_is_a_difference(
    export: Export, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = make()
    scores = verify._scores

    def not_finite(*args: Any) -> Any:
        expected, clips = scores(*args)
        return expected * float('nan'), clips

    monkeypatch.setattr(verify, '_scores', not_finite)
    code, _, err = export(checkpoint, '--format', 'torchscript')
    assert code == 1 and 'the class scores of noise are NaN or infinite' in err
    assert 'nothing was written' in err


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        (['--format', 'torchscript', '--out', 'x.onnx'], 'x.onnx does not end in .torchscript'),
        (['--format', 'torchscript', '--opset', '18'], '--opset goes with --format onnx'),
        (['--opset', '17'], '--opset 17 is older than torch can write; give 18'),
        (['--batch', '0'], '--batch 0 is neither a positive number nor dynamic'),
        (['--logits', '--views'], 'not allowed with'),
    ],
)
def test_a_wrong_command_line_gets_a_sentence(
    export: Export, make: Make, words: list[str], sentence: str
) -> None:
    code, _, err = export(make(), *words)
    assert code in (1, 2) and sentence in err


@needs_onnx
@pytest.mark.slow
def test_an_opset_that_torch_cannot_write_gets_a_sentence(export: Export, make: Make) -> None:
    code, _, err = export(make(), '--batch', 1, '--opset', 99)
    assert code == 1 and 'cannot write opset 99, it wrote 18; give --opset 18' in err
    assert len(err.strip().splitlines()) == 1


def test_a_missing_package_is_named_with_the_command_that_brings_it(
    export: Export, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = make()
    monkeypatch.setitem(sys.modules, 'onnx', None)
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    code, _, err = export(checkpoint)
    assert code == 1 and 'onnx is not installed; run: pip install "mmtimesformer[export]"' in err


def _without_crop(cfg: Any) -> None:
    steps = cfg.test_dataloader.dataset.pipeline
    cfg.test_dataloader.dataset.pipeline = [s for s in steps if s.type != 'ThreeCrop']


def _without_normalisation(cfg: Any) -> None:
    cfg.model.data_preprocessor = dict(type='ActionDataPreprocessor', format_shape='NCTHW')


def _with_tokens(cfg: Any) -> None:
    cfg.model.backbone.out_type = 'tokens'


def _with_other_head(cfg: Any) -> None:
    cfg.model.cls_head = dict(type='I3DHead', num_classes=2, in_channels=24)


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (_without_crop, 'add CenterCrop or ThreeCrop to test_pipeline'),
        (_without_normalisation, 'model.data_preprocessor has no mean and std'),
        (_with_tokens, "backbone.out_type='tokens' leaves no class token"),
        (_with_other_head, 'has a TimeSformer with a I3DHead; exported are'),
    ],
)
def test_a_model_that_no_file_holds_gets_a_sentence(
    export: Export, make: Make, change: Callable[[Any], None], sentence: str
) -> None:
    code, _, err = export(make(change), '--format', 'torchscript')
    assert code == 1 and sentence in err


@pytest.mark.filterwarnings('ignore')  # of a classifier with other classes
def test_a_classifier_without_weights_gets_a_sentence(export: Export, make: Make) -> None:
    checkpoint = make()
    contents = torch.load(checkpoint, weights_only=False)
    contents['state_dict'] = {
        name: weight for name, weight in contents['state_dict'].items() if 'cls_head' not in name
    }
    torch.save(contents, checkpoint)
    code, _, err = export(checkpoint, '--format', 'torchscript')
    assert code == 1 and 'has no weights for cls_head.fc_cls' in err


@needs_onnx
def test_the_printed_commands_and_the_printed_program_run_as_printed(
    export: Export, make: Make, tiny_videos: Path
) -> None:
    checkpoint = make()
    for folder in ('work_dirs/demo/divST', 'data/moving_shapes/videos_val'):
        Path(folder).mkdir(parents=True)
    checkpoint.replace('work_dirs/demo/divST/epoch_28.pth')
    Path('data/moving_shapes/classes.txt').write_text('left\nright\n')
    video = Path('data/moving_shapes/videos_val/00000_left.mp4')
    video.write_bytes((tiny_videos / '0.mp4').read_bytes())
    assert len(COMMANDS) == 3
    for command in COMMANDS:
        code, _, err = export(*shlex.split(command)[2:])
        assert (code, err) == (0, ''), command
    for name in ('model.onnx', 'model.pt2', 'model.torchscript'):
        assert Path(name).stat().st_size, name

    (program,) = PROGRAMS
    assert len(program.strip().splitlines()) <= 17
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = {name: float(score) for score, name in map(str.split, done.stdout.splitlines())}
    classifier = VideoClassifier(checkpoint='work_dirs/demo/divST/epoch_28.pth', device='cpu')
    with torch.inference_mode():
        clip = classifier.clips(str(video))[2:]  # ThreeCrop's last is the one in the middle
        logits = classifier.model.cls_head(classifier.model.backbone(clip))[0].tolist()
    assert shown == pytest.approx(dict(zip(('left', 'right'), logits, strict=True)), abs=0.02)


def test_every_option_that_the_page_lists_is_one() -> None:
    tool = (ROOT / 'tools' / 'export.py').read_text()
    options = set(re.findall(r'`(--[a-z-]+)', TEXT))
    assert len(options) >= 8
    for option in options:
        assert f"'{option}'" in tool, option


def test_facts_are_plain_json() -> None:
    from mmtimesformer.export.metadata import plain

    value = {'scale': (-1, 32), 'kind': np.float32, 7: None}
    assert json.loads(json.dumps(plain(value))) == plain(value)
