"""The switch `speed`: what it refuses, how far each value moves scores, that none is a default."""

import ast
import copy
import json
import math
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtimesformer import TimeSformer, VideoClassifier
from mmtimesformer.config.speed import CHOICES, Speed
from mmtimesformer.inference import compiled, int8
from mmtimesformer.inference.compiled import cache_folder, check_compiler, filled_up
from mmtimesformer.inference.int8 import Int8Linear
from mmtimesformer.inference.packed import PackedFFN, PackedLinear, can_pack, pack
from mmtimesformer.inference.speed import FastBackbone, accelerate, fold, prepare
from mmtimesformer.inference.speed_cost import lowest_cosine
from mmtimesformer.models import FFN
from mmtimesformer.models.attention import SelfAttention

ROOT = Path(__file__).parents[2]
CPU = torch.device('cpu')
SCHEMES = 'divided_space_time', 'joint_space_time', 'space_only'


def model_of(**changes: Any) -> TimeSformer:
    torch.manual_seed(0)
    arguments: dict[str, Any] = dict(
        num_frames=4, img_size=32, patch_size=8, embed_dims=48, num_heads=3, num_layers=2,
    )  # fmt: skip
    model = TimeSformer(**{**arguments, **changes}).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def video(b: int = 2) -> Tensor:
    return torch.randn(b, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))


def faster(model: TimeSformer, speed: str) -> Any:
    return accelerate(model, Speed.parse(speed), CPU).eval()


def exactly(model: TimeSformer, clips: Tensor) -> Tensor:
    with torch.inference_mode():
        return model(clips)


def main_of(tool: str) -> Any:
    """Return the main function of a tool."""
    return runpy.run_path(str(ROOT / 'tools' / f'{tool}.py'))['main']


# The switch


@pytest.mark.parametrize(
    ('text', 'shown', 'parsed'),
    [
        ('exact', 'exact', Speed()),
        ('bf16+compiled', 'compiled+bf16', Speed(compiled=True, arithmetic='bf16')),
        ('int8+merged:12', 'merged:12+int8', Speed(arithmetic='int8', merged=12)),
    ],
)
def test_values_join_in_any_order(text: str, shown: str, parsed: Speed) -> None:
    assert Speed.parse(text) == parsed
    assert str(parsed) == shown and Speed.parse(shown) == parsed


@pytest.mark.parametrize(
    ('text', 'why'),
    [
        ('fp8', "'fp8' is not known"),
        ('', "'' is not known"),
        ('bf16 + int8', 'is not known'),
        ('merged', "'merged' is not known"),
        ('merged:x', "'merged:x' is not known"),
        ('merged:0', "'merged:0' is not known"),
        ('merged:-1', 'is not known'),
        ('bf16+int8', 'bf16 and int8 exclude each other'),
        ('exact+bf16', 'exact joins with nothing'),
        ('merged:2+merged:3', 'gives merged twice'),
    ],
)
def test_wrong_values_get_the_choices(text: str, why: str) -> None:
    with pytest.raises(ValueError) as error:
        Speed.parse(text)
    message = str(error.value)
    assert why in message and CHOICES in message and '\n' not in message


def test_nothing_but_exact_is_a_default(config: Path, checkpoint: Path) -> None:
    """In Python, in every tool, and wherever the package makes a classifier."""
    clf = VideoClassifier(config, checkpoint, device='cpu')
    assert clf.speed == 'exact' and type(clf.model.backbone) is TimeSformer
    assert clf.origin()['speed'] == 'exact'
    with_switch = []
    for file in (ROOT / 'tools').rglob('*.py'):
        text = file.read_text()
        if 'add_speed(parser)' in text:
            with_switch.append(file.stem)
        assert not re.search(r"speed\w*=['\"]", text), file
    assert {*with_switch} == {'predict', 'extract_features', 'test'}
    for file in [*(ROOT / 'mmtimesformer').rglob('*.py'), *(ROOT / 'tools').rglob('*.py')]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'VideoClassifier':
                given = [key.value for key in node.keywords if key.arg == 'speed']
                assert not any(isinstance(value, ast.Constant) for value in given), file


def test_speeds_are_refused_where_they_cannot_be(
    config: Path, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="'fp8' is not known; give 'exact', 'compiled'"):
        VideoClassifier(config, checkpoint, device='cpu', speed='fp8')
    with pytest.raises(ValueError, match='computes on a CPU, not on meta'):
        accelerate(model_of(), Speed.parse('int8'), torch.device('meta'))
    with pytest.raises(ValueError, match='the backbone is a Linear; give'):
        accelerate(nn.Linear(1, 1), Speed.parse('bf16'), CPU)
    clf = VideoClassifier(config, checkpoint, device='cpu', speed='bf16')
    with pytest.raises(ValueError, match="a model to save: .* was changed for speed='bf16'"):
        clf.save_pretrained(tmp_path / 'saved')
    with pytest.raises(ValueError, match='cannot be trained'):
        clf.model.backbone.train()(video())


# Scores


@pytest.mark.parametrize('speed', ['bf16', 'int8'])
def test_scores_move_a_little(
    speed: str, config: Path, checkpoint: Path, tiny_videos: Path
) -> None:
    exact = VideoClassifier(config, checkpoint, device='cpu')(tiny_videos / '0.mp4')
    clf = VideoClassifier(config, checkpoint, device='cpu', speed=speed)
    found = clf(tiny_videos / '0.mp4')
    assert found.all_scores.dtype == np.float32
    assert 0 < np.abs(found.all_scores - exact.all_scores).max() < 0.05


@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize(('speed', 'least'), [('bf16', 0.9995), ('int8', 0.999)])
def test_features_turn_a_little(speed: str, least: float, scheme: str) -> None:
    model = model_of(attention_type=scheme)
    found = faster(model, speed)(video())
    cosine = F.cosine_similarity(found, exactly(model, video()))
    assert found.dtype == torch.float32 and least < cosine.min() < 1


@pytest.mark.parametrize('scheme', SCHEMES)
def test_folding_two_layers_changes_nothing(scheme: str) -> None:
    model = model_of(attention_type=scheme).double()
    folded = copy.deepcopy(model)
    with torch.no_grad():
        fold(folded)
        torch.testing.assert_close(folded(video().double()), model(video().double()))


@pytest.mark.parametrize('speed', ['bf16', 'int8'])
def test_the_exact_model_stays_as_it_is(speed: str) -> None:
    model = model_of()
    before = copy.deepcopy(model.state_dict())
    faster(model, speed)(video())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize('speed', ['bf16', 'int8'])
def test_other_outputs_are_as_the_exact_ones(speed: str) -> None:
    model = model_of()
    fast = faster(model, speed)
    for out_type in ('tokens', 'hidden_states'):
        model.out_type = fast.out_type = out_type
        for one, other in zip(fast(video())[-1], exactly(model, video())[-1], strict=True):
            assert one.shape == other.shape and one.dtype == torch.float32


# int8


def test_int8_keeps_the_short_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folded matrix is rounded; the last block computes the class token only."""
    model = model_of()
    fast = faster(model, 'int8')
    last = fast.blocks[-1].attn.qkv
    layers = [part for part in fast.blocks.modules() if type(part) is nn.Linear]
    assert layers == [last]
    for block in fast.blocks:
        assert type(block.temporal_attn.proj) is Int8Linear
        assert type(block.temporal_fc) is nn.Identity
    called = []
    first = SelfAttention.forward_first_token
    monkeypatch.setattr(
        SelfAttention,
        'forward_first_token',
        lambda self, *tokens: called.append(self) or first(self, *tokens),
    )
    fast(video())
    assert called == [fast.blocks[-1].attn]


def test_an_int8_layer_is_its_definition() -> None:
    """Each token and each output channel has its own scale; products of codes are exact."""
    torch.manual_seed(2)
    layer = nn.Linear(24, 40)
    with torch.no_grad():
        layer.weight.mul_(torch.logspace(-3, 3, 40)[:, None])
    tokens = torch.randn(2, 5, 24) * torch.logspace(-4, 4, 10).view(2, 5, 1)
    tokens[1, 2] = 0
    scale = tokens.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
    channel = layer.weight.abs().amax(1) / 127
    codes = (tokens / scale).add(0.5).floor().double()
    weights = (layer.weight / channel[:, None]).round().double()
    expected = codes @ weights.T * scale.double() * channel.double() + layer.bias.double()
    with torch.inference_mode():
        found = Int8Linear(layer)(tokens)
    torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=1e-4)
    torch.testing.assert_close(found[1, 2], layer.bias)


@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_int8_hides_no_bad_numbers(bad: float) -> None:
    tokens = torch.ones(3, 16)
    tokens[1, 4] = bad
    with torch.inference_mode():
        found = Int8Linear(nn.Linear(16, 16))(tokens)
    assert not found[1].isfinite().any() and found[[0, 2]].isfinite().all()


def test_a_processor_whose_products_overflow_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right = int8.multiply
    monkeypatch.setattr(int8, 'multiply', lambda *codes: right(*codes).clamp_min(-32768))
    int8.check_products.cache_clear()
    with pytest.raises(ValueError, match="overflow .it has no VNNI.; give speed='exact'"):
        faster(model_of(), 'int8')
    int8.check_products.cache_clear()


# compiled


def test_batches_are_filled_up_and_other_rows_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def record(backbone: nn.Module, **options: Any) -> Any:
        assert options['options'] == {'freezing': True} and not options['dynamic']
        return lambda clips: seen.append(len(clips)) or backbone(clips)

    monkeypatch.setattr(torch, 'compile', record)
    model = model_of()
    fast = faster(model, 'compiled')
    for b in (1, 2, 3, 5, 7):
        torch.testing.assert_close(fast(video(b)), exactly(model, video(b)))
    assert seen == [1, 2, 4, 8, 8]
    assert [filled_up(n) for n in (1, 2, 3, 4, 5, 9)] == [1, 2, 4, 4, 8, 16]
    monkeypatch.setattr('mmtimesformer.models.timesformer.LARGE', 3 * 4 * 16 * 192 * 4)
    seen.clear()
    torch.testing.assert_close(fast(video(5)), exactly(model, video(5)))
    assert seen == [2, 2, 1]  # 3 fit into a portion, which is a power of two


def test_compiled_equals_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Also for a second batch size of the same filling, without another compilation."""
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path / 'cache'))
    model = model_of(num_layers=1)
    fast = faster(model, 'compiled')
    for b in (3, 4):
        expected = exactly(model, video(b))
        torch.testing.assert_close(fast(video(b)), expected, rtol=1e-5, atol=1e-5)
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 2
    assert printed[0].startswith('compiling the model for 4 x 4 frames of 32 x 32')
    assert any((tmp_path / 'cache').iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(('speed', 'least'), [('compiled+bf16', 0.9995), ('compiled+int8', 0.999)])
@pytest.mark.parametrize('scheme', SCHEMES)
def test_compiled_joins_with_short_types(
    speed: str, least: float, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path / 'cache'))
    model = model_of(attention_type=scheme)
    found = faster(model, speed)(video())
    assert least < F.cosine_similarity(found, exactly(model, video())).min() < 1


def test_without_a_compiler_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('CXX', '/nowhere/g++')
    with pytest.raises(ValueError, match=r'needs the C\+\+ compiler /nowhere/g\+\+, and .* none'):
        check_compiler()


def test_a_failed_compilation_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        def run(_: Tensor) -> Tensor:
            raise RuntimeError('no kernel\nmore')

        return run

    monkeypatch.setattr(torch, 'compile', broken)
    with pytest.raises(ValueError, match=r"speed='compiled' failed .* no kernel\); give another"):
        faster(model_of(), 'compiled')(video())


def test_compiled_code_stays_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(compiled.tempfile, 'gettempdir', lambda: '/tmp')
    for default in ('', '/tmp/torchinductor_me'):  # which inductor sets itself
        monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', default)
        assert cache_folder() == tmp_path / 'mmtimesformer' / 'inductor'
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', '/elsewhere')
    assert cache_folder() == Path('/elsewhere')


# merged


def test_merging_is_set_on_the_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmtimesformer import models

    found: list[tuple[Any, int]] = []
    monkeypatch.setattr(
        models, 'set_merge', lambda backbone, r: found.append((backbone, r)), raising=False
    )
    model = model_of()
    fast = faster(model, 'merged:3')
    assert found == [(fast.inner, 3)] and fast.inner is not model


# Tools


def test_prepare_replaces_the_backbone_of_a_recognizer() -> None:
    recognizer = nn.Module()
    recognizer.backbone = model = model_of()
    prepare(recognizer, Speed(), CPU)
    assert recognizer.backbone is model
    prepare(recognizer, Speed.parse('bf16'), CPU)
    assert isinstance(recognizer.backbone, FastBackbone)
    assert recognizer.backbone.patch_size == model.patch_size


def test_the_cosine_of_rows_leaves_out_bad_ones() -> None:
    one = np.array([[1.0, 0.0], [math.nan, 1.0], [1.0, 1.0]])
    other = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    assert lowest_cosine(one, other) == pytest.approx(math.sqrt(0.5))


def test_the_tool_shows_how_far_scores_move(
    config: Path,
    checkpoint: Path,
    tiny_videos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv('COLUMNS', '160')
    words = [tiny_videos, config, checkpoint, '--device', 'cpu', '--speeds', 'bf16', 'int8']
    assert main_of('analysis_tools/compare_precision')(list(map(str, words))) == 0
    lines = [line.split('│') for line in capsys.readouterr().out.splitlines() if '│' in line]
    rows = {cells[1].strip(): [cell.strip() for cell in cells[2:-1]] for cells in lines}
    assert set(rows) == {'exact', 'bf16', 'int8'}
    assert float(rows['exact'][2]) == 0 and float(rows['exact'][4]) == 1
    for speed in ('bf16', 'int8'):
        assert 0 < float(rows[speed][3]) <= float(rows[speed][2]) < 0.05
        assert 0.99 < float(rows[speed][4]) < 1


def test_predict_shows_the_cost_when_asked(
    config: Path, checkpoint: Path, tiny_videos: Path, capsys: pytest.CaptureFixture
) -> None:
    words = [tiny_videos / '0.mp4', config, checkpoint, '--device', 'cpu', '--speed', 'int8']
    assert main_of('predict')(list(map(str, words))) == 0
    assert 'against exact' not in capsys.readouterr().err
    assert main_of('predict')([*map(str, words), '--speed-cost']) == 0
    shown = capsys.readouterr().err
    assert re.search(
        r'speed int8, against exact on 1 videos: [\d.]+ times as fast; scores move by at most '
        r'[\d.e-]+ \(mean [\d.e-]+\), the lowest cosine of logits is 0\.99\d+, the best class '
        r'changes in 0',
        shown,
    )


def test_features_record_their_speed(
    config: Path, checkpoint: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    words = [config, checkpoint, tiny_videos / 'val.txt', '--out', tmp_path / 'out']
    words = [*map(str, words), '--device', 'cpu']
    assert main_of('extract_features')([*words, '--speed', 'bf16']) == 0
    manifest = json.loads((tmp_path / 'out/manifest.json').read_text())
    assert manifest['speed'] == 'bf16'
    assert main_of('extract_features')(words) == 1  # features of another speed are not mixed


def test_a_test_records_its_speed(
    config: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = [config, checkpoint, '--work-dir', tmp_path / 'run', '--dump', tmp_path / 'x.pkl']
    assert main_of('test')([*map(str, words), '--speed', 'int8']) == 0
    assert re.search(r'Protocol: .*, speed int8\n', capsys.readouterr().out)
    assert json.loads((tmp_path / 'x.meta.json').read_text())['speed'] == 'int8'


@pytest.mark.skipif(not can_pack(CPU), reason='this processor has no packed products in bfloat16')
def test_packed_layers_compute_what_plain_ones_do() -> None:
    torch.manual_seed(0)
    mlp = FFN(48, 96).bfloat16()
    tokens = torch.randn(2, 5, 48).bfloat16()
    with torch.inference_mode():
        torch.testing.assert_close(PackedFFN(mlp)(tokens), mlp(tokens), rtol=0.02, atol=0.01)
        for layer in (mlp.fc1, nn.Linear(48, 7, bias=False).bfloat16()):
            torch.testing.assert_close(
                PackedLinear(layer)(tokens), layer(tokens), rtol=0.02, atol=0.01
            )


@pytest.mark.skipif(not can_pack(CPU), reason='this processor has no packed products in bfloat16')
def test_what_is_packed() -> None:
    model = model_of()
    model.blocks[0].attn.proj.register_forward_hook(lambda *_: None)
    model.blocks[0].mlp.fc1.register_forward_hook(lambda *_: None)
    pack(model)
    first, last = model.blocks
    assert type(first.attn.proj) is nn.Linear and type(first.attn.qkv) is PackedLinear
    assert type(first.mlp) is FFN and type(first.mlp.fc2) is PackedLinear
    assert type(last.mlp) is PackedFFN and type(last.temporal_attn.qkv) is PackedLinear
    assert type(last.attn.qkv) is nn.Linear  # its weights are used as matrices
    assert not any(type(x) is PackedLinear for x in faster(model_of(), 'int8').modules())
    packed = any(type(x) is PackedLinear for x in faster(model_of(), 'bf16').modules())
    assert packed == can_pack(CPU)
    assert not can_pack(torch.device('cuda'))


def test_the_exact_backbone_stays_in_float32() -> None:
    model = model_of()
    before = copy.deepcopy(model.state_dict())
    faster(model, 'bf16')(video())
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
