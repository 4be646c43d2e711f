import importlib.util
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmtimesformer import TimeSformer
from mmtimesformer.checkpoints import load_checkpoint, read_checkpoint

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools' / 'convert_checkpoint.py'
MODEL = {
    'num_frames': 3,
    'img_size': 15,
    'patch_size': 5,
    'embed_dims': 20,
    'num_layers': 2,
    'num_heads': 4,
}


@pytest.fixture(scope='module')
def main():
    spec = importlib.util.spec_from_file_location('convert_checkpoint', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def _weights(**changes) -> dict[str, torch.Tensor]:
    weights = TimeSformer(**{**MODEL, **changes}).state_dict()
    return {**weights, 'head.weight': torch.randn(7, 20), 'head.bias': torch.randn(7)}


@pytest.fixture
def official(tmp_path) -> Path:
    path = tmp_path / 'official.pyth'
    model_state = {f'model.{name}': tensor for name, tensor in _weights().items()}
    torch.save({'model_state': model_state}, path)
    return path


@pytest.fixture
def vit(tmp_path) -> Path:
    path = tmp_path / 'vit.pth'
    torch.save(_weights(attention_type='space_only'), path)
    return path


def test_a_conversion_prints_the_account_and_ends_with_0(main, official, tmp_path, capsys) -> None:
    target = tmp_path / 'ours.pth'
    assert main([str(official), str(target)]) == 0
    printed = capsys.readouterr().out
    assert 'the official TimeSformer -> mmtimesformer' in printed
    assert 'renamed    49' in printed
    assert 'missing     0' in printed
    assert 'unknown     0' in printed
    assert f'wrote {target}' in printed
    assert load_checkpoint(TimeSformer(**MODEL), target).complete


@pytest.mark.parametrize('to', ['mmtimesformer', 'official', 'mmaction2', 'huggingface'])
@pytest.mark.parametrize('ending', ['.pth', '.safetensors', ''])
def test_every_format_is_written_and_read_again(main, to, ending, official, tmp_path) -> None:
    target = tmp_path / f'target{ending}'
    code = main([str(official), str(target), '--to', to, '--num-heads', '4'])
    if ending or to == 'huggingface':
        assert code == 0
        first, again = read_checkpoint(official), read_checkpoint(target)
        assert all(torch.equal(first.tensors[k], v) for k, v in again.tensors.items())
    else:
        assert code == 1
        assert not target.exists()


def test_json_is_the_account_and_nothing_else(main, vit, tmp_path, capsys) -> None:
    target = str(tmp_path / 'a.pth')
    args = [str(vit), target, '--num-frames', '8', '--img-size', '10', '25', '--json']
    assert main(args) == 0
    load_report = json.loads(capsys.readouterr().out)
    assert load_report['complete'] is True
    assert load_report['counts']['renamed'] == 30
    assert load_report['counts']['seeded'] == 17
    assert load_report['counts']['dropped'] == 2
    assert load_report['written'] == target
    assert {'action', 'key', 'to', 'note'} == set(load_report['entries'][0])
    assert read_checkpoint(target).img_size == (10, 25)


def _unknown_key(weights, path):
    torch.save({**weights, 'blocks.0.ls1.gamma': torch.zeros(20)}, path)


def _missing_key(weights, path):
    del weights['blocks.1.mlp.fc1.bias']
    torch.save(weights, path)


def _wrong_shape(weights, path):
    torch.save({**weights, 'blocks.0.attn.proj.weight': torch.zeros(20, 19)}, path)


def _wrong_scheme(weights, path):
    torch.save({f'model.{name}': tensor for name, tensor in weights.items()}, path)


def _truncated(weights, path):
    torch.save(weights, path)
    path.write_bytes(path.read_bytes()[:-1000])


def _empty(weights, path):
    path.write_bytes(b'')


def _no_checkpoint(weights, path):
    path.write_text('weights: here\n')


def _pickle_with_code(weights, path):
    path.write_bytes(pickle.dumps({'x': print}))


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (_unknown_key, 'has blocks.0.ls1.gamma, which no known format has'),
        (_missing_key, 'lacks blocks.1.mlp.fc1.bias'),
        (_wrong_shape, 'blocks.0.attn.proj.weight has shape (20, 19), but'),
        (_wrong_scheme, 'is divided_space_time, but space_only is wanted; this would drop'),
        (_truncated, 'is cut short'),
        (_empty, 'is empty'),
        (_no_checkpoint, 'is not a checkpoint'),
        (_pickle_with_code, 'asks for builtins.print'),
    ],
)
def test_what_is_wrong_is_one_sentence_and_an_exit_code(
    main, damage, message, tmp_path, capsys
) -> None:
    damage(_weights(), tmp_path / 'source')
    args = [str(tmp_path / 'source'), str(tmp_path / 'target.pth')]
    scheme = ['--attention-type', 'space_only'] if damage is _wrong_scheme else []
    assert main(args + scheme) == 1
    captured = capsys.readouterr()
    last = captured.err.strip().splitlines()[-1]
    assert last.startswith('error: ')
    assert message in last
    assert 'Traceback' not in captured.out + captured.err
    assert not (tmp_path / 'target.pth').exists()

    assert main([*args, *scheme, '--json']) == 1
    output = json.loads(capsys.readouterr().out)
    assert output['complete'] is False
    assert message in output['error']


def test_unknown_and_missing_keys_are_in_the_printed_table(main, tmp_path, capsys) -> None:
    weights = _weights()
    del weights['norm.bias']
    torch.save({**weights, 'gamma': torch.zeros(1)}, tmp_path / 'a')
    assert main([str(tmp_path / 'a'), str(tmp_path / 'b.pth')]) == 1
    printed = capsys.readouterr().out
    assert 'missing     1' in printed
    assert 'unknown     1' in printed
    assert '. norm.bias' in printed
    assert '. gamma' in printed


def test_change_attention_allows_exactly_that(main, official, tmp_path, capsys) -> None:
    target = tmp_path / 'joint.pth'
    args = [str(official), str(target), '--attention-type', 'joint_space_time']
    assert main(args) == 1
    assert main([*args, '--change-attention']) == 0
    assert 'joint_space_time has no temporal attention' in capsys.readouterr().out
    assert read_checkpoint(target).attention_type == 'joint_space_time'


def test_the_classifier_of_images_goes_unless_kept_and_of_videos_stays_unless_dropped(
    main, vit, official, tmp_path
) -> None:
    target = tmp_path / 'a.pth'
    for source, flags, has_head in (
        (vit, [], False),
        (vit, ['--keep-head'], True),
        (official, [], True),
        (official, ['--drop-head'], False),
    ):
        assert main([str(source), str(target), *flags]) == 0
        assert ('head.weight' in read_checkpoint(target).tensors) == has_head


def test_the_official_start_at_448_pixels_can_be_repeated(main, vit, tmp_path, capsys) -> None:
    target = str(tmp_path / 'a.pth')
    assert main([str(vit), target, '--img-size', '30', '--resize', 'legacy-1d-nearest']) == 0
    assert '3 x 3 to 6 x 6 patches, legacy-1d-nearest' in capsys.readouterr().out
    assert main([str(vit), str(tmp_path / 'b.pth'), '--img-size', '30']) == 0
    legacy, grid = (read_checkpoint(tmp_path / f'{x}.pth').tensors['pos_embed'] for x in 'ab')
    assert not torch.equal(legacy, grid)


def test_a_wrong_command_line_ends_with_2(main, vit, tmp_path) -> None:
    for flags in (['--to', 'keras'], ['--img-size', '1', '2', '3']):
        with pytest.raises(SystemExit) as error:
            main([str(vit), str(tmp_path / 'a.pth'), *flags])
        assert error.value.code == 2


def test_the_tool_runs_from_a_shell(official, tmp_path) -> None:
    command = [sys.executable, str(TOOL), str(official), str(tmp_path / 'a.pth')]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert 'wrote' in done.stdout


DRIVER = """
import importlib.util, json, sys
def tool(name):
    spec = importlib.util.spec_from_file_location(name, sys.argv[1] + f'/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
for name, *arguments in json.loads(sys.argv[2]):
    code = tool(name).main(arguments)
    assert code == 0, (name, arguments, code)
"""


def _run_tools(tools: Path, cwd: Path, *commands: list[str]) -> str:
    """Several runs of the tools in one process, which mostly saves the time of importing."""
    done = subprocess.run(
        [sys.executable, '-c', DRIVER, str(tools), json.dumps(commands)],
        cwd=cwd,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


TINY = {  # the model of tiny_config
    'num_frames': 4,
    'img_size': 32,
    'patch_size': 16,
    'embed_dims': 24,
    'num_layers': 1,
    'num_heads': 2,
}


def _scores(sample: dict) -> torch.Tensor:
    """MMAction2 1.2.0 has one name for them, 1.1.0 another."""
    return sample['pred_score'] if 'pred_score' in sample else sample['pred_scores']['item']


def test_a_test_takes_the_same_weights_in_every_format_and_gives_the_same_scores(
    tools, tiny_config, tmp_path
) -> None:
    weights = {
        f'model.{k}': torch.randn_like(v) for k, v in TimeSformer(**TINY).state_dict().items()
    }
    weights |= {'model.head.weight': torch.randn(2, 24), 'model.head.bias': torch.randn(2)}
    official = tmp_path / 'official.pyth'
    torch.save({'model_state': weights}, official)
    commands = [['test', str(tiny_config), str(official), '--dump', 'official.pkl']]
    for to, target in (
        ('mmtimesformer', 'ours.pth'),
        ('mmaction2', 'mmaction2.pth'),
        ('huggingface', 'folder'),
        ('mmtimesformer', 'ours.safetensors'),
    ):
        commands.append(
            ['convert_checkpoint', str(official), target, '--to', to, '--num-heads', '2']
        )
        test = ['test', str(tiny_config), target, '--dump', f'{target}.pkl']
        commands.append([*test, '--preprocessing', 'config'])  # of the system it is from
    output = _run_tools(tools, tmp_path, *commands)

    dumps = [pickle.loads(path.read_bytes()) for path in sorted(tmp_path.glob('*.pkl'))]
    assert len(dumps) == 5
    scores = [torch.stack([_scores(sample) for sample in dump]) for dump in dumps]
    for other in scores[1:]:
        assert torch.equal(other, scores[0])
    assert scores[0].std() > 0
    assert 'mean: the checkpoint was trained with (0.45, 0.45, 0.45), the config gives' in output


@pytest.mark.slow  # two trainings; the loading is that of tests/checkpoints/test_load.py
def test_a_training_starts_from_an_image_vit_by_load_from_and_by_init_cfg(
    tools, tiny_config, tmp_path
) -> None:
    from safetensors.torch import save_file

    vit = TimeSformer(**{**TINY, 'attention_type': 'space_only', 'img_size': 48}).state_dict()
    save_file(
        {name: torch.randn_like(tensor) * 0.1 for name, tensor in vit.items()}, tmp_path / 'v'
    )
    init_cfg = [
        'model.backbone.init_cfg.type=mmtimesformer.Pretrained',
        f'model.backbone.init_cfg.checkpoint={tmp_path / "v"}',
    ]
    for options in ([f'load_from={tmp_path / "v"}'], init_cfg):
        command = ['train', str(tiny_config), '--work-dir', str(tmp_path / 'w'), '--no-validate']
        command += ['--cfg-options', 'optim_wrapper.optimizer.lr=0.0', *options]
        _run_tools(tools, tmp_path, command)
        log = max((tmp_path / 'w').rglob('*.log'), key=lambda path: path.stat().st_mtime)
        text = log.read_text()
        assert '. blocks.*.temporal_fc.weight: zero' in text
        assert '. pos_embed: 3 x 3 to 2 x 2 patches, bicubic on the grid' in text
        trained = read_checkpoint(tmp_path / 'w' / 'epoch_1.pth').tensors
        started = read_checkpoint(tmp_path / 'v', num_frames=4, img_size=32).tensors
        for name in started:
            assert torch.equal(trained[name], started[name]), name


def test_a_checkpoint_is_not_converted_onto_itself(main, official, capsys) -> None:
    before = official.read_bytes()
    assert main([str(official), str(official)]) == 1
    assert 'is SRC itself' in capsys.readouterr().err
    assert official.read_bytes() == before
