"""Every score is logged and stored with its protocol."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine import Config
from mmengine.evaluator import DumpResults

from mmtimesformer import __version__
from mmtimesformer.engine.hooks.eval_protocol import EvalProtocolHook, meta_path
from mmtimesformer.engine.runner import Runner
from mmtimesformer.registry import HOOKS


def a_run(dump: Path | None = None, **more: Any) -> Any:
    """The parts of a Runner that the hook uses, for a test of two clips of three crops each."""
    cfg = dict(
        protocol='official',
        load_from='weights.pth',
        model=dict(cls_head=dict(average_clips='sum')),
        test_dataloader=dict(dataset=dict(pipeline=[dict(type='S', clip_len=8, num_clips=2)])),
        val_dataloader=dict(dataset=dict(pipeline=[dict(type='S', clip_len=8)])),
    )
    dataset = type('Videos', (list,), {'metainfo': {'classes': ('left', 'right')}})(range(5))
    logged: list[str] = []
    return SimpleNamespace(
        hooks=[],
        cfg=Config({**cfg, **more}, filename=__file__),
        logger=SimpleNamespace(info=logged.append),
        logged=logged,
        test_dataloader=SimpleNamespace(dataset=dataset),
        test_loop=SimpleNamespace(
            evaluator=SimpleNamespace(metrics=[DumpResults(str(dump))] if dump else [])
        ),
    )


def batch(*views: int) -> dict[str, Any]:
    return {'inputs': [torch.zeros(*views, 3, 8, 4, 4)]}


def test_a_test_logs_protocol_views_and_fusion() -> None:
    hook, run = EvalProtocolHook(), a_run()
    hook.after_test_iter(run, 0, batch(6))
    hook.after_test_epoch(run, {'acc/top1': 0.5})
    assert run.logged == ['Protocol: official; 2 clips x 3 crops, sum of logits']


def test_a_validation_logs_them_too() -> None:
    hook, run = EvalProtocolHook(), a_run()
    hook.after_val_iter(run, 0, batch())
    hook.after_val_epoch(run, {})
    assert run.logged == ['Protocol: official; 1 clip x 1 crop, sum of logits']


def test_a_config_without_a_protocol_is_logged_as_such() -> None:
    hook, run = EvalProtocolHook(), a_run(protocol=None)
    hook.after_test_iter(run, 0, batch(2))
    hook.after_test_epoch(run)
    assert run.logged == ['Protocol: not named in the config; 2 clips x 1 crop, sum of logits']


def test_a_dump_is_stored_with_its_metadata(tmp_path: Path) -> None:
    hook, run = EvalProtocolHook(), a_run(tmp_path / 'folder' / 'result.pkl')
    hook.after_test_iter(run, 0, batch(6))
    hook.after_test_epoch(run, {'acc/top1': torch.tensor(0.5)})
    metadata = json.loads((tmp_path / 'folder' / 'result.meta.json').read_text())
    assert metadata.pop('versions') == {
        'mmtimesformer': __version__,
        'mmaction2': installed_version('mmaction2'),
        'mmengine': installed_version('mmengine'),
        'torch': installed_version('torch'),
    }
    assert metadata.pop('date').endswith('+00:00')
    assert metadata == {
        'protocol': 'official',
        'temperature': None,
        'views': {'clips': 2, 'crops': 3},
        'fusion': 'sum of logits',
        'speed': 'exact',
        'config': __file__,
        'checkpoint': 'weights.pth',
        'videos': 5,
        'classes': ['left', 'right'],
        'scores': {'acc/top1': 0.5},
        'non_finite': [],
    }
    assert (
        run.logged[-1]
        == f'The metadata of these results are in {tmp_path}/folder/result.meta.json.'
    )


def installed_version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


@pytest.mark.parametrize('name', ['a/result.pkl', 'a/result.pickle'])
def test_the_metadata_file_is_next_to_the_results(name: str) -> None:
    assert meta_path(name) == Path('a/result.meta.json')


def test_the_runner_registers_it_once() -> None:
    runner = Runner.__new__(Runner)
    runner._hooks = []
    runner.register_hooks(custom_hooks=[dict(type='mmtimesformer.EvalProtocolHook')])
    assert sum(isinstance(hook, EvalProtocolHook) for hook in runner.hooks) == 1
    runner._hooks = []
    runner.register_hooks()
    assert sum(isinstance(hook, EvalProtocolHook) for hook in runner.hooks) == 1


def test_a_config_finds_it_by_name(default_scope: str | None) -> None:
    assert isinstance(HOOKS.build(dict(type='mmtimesformer.EvalProtocolHook')), EvalProtocolHook)


def test_a_speed_is_logged_with_the_protocol() -> None:
    """A validation, which runs the exact model, does not have it."""
    hook, run = EvalProtocolHook(), a_run(speed='compiled+int8')
    for after in ('test', 'val'):
        getattr(hook, f'after_{after}_iter')(run, 0, batch(2 if after == 'test' else 1))
        getattr(hook, f'after_{after}_epoch')(run, {})
    assert run.logged[0].endswith('sum of logits, speed compiled+int8')
    assert run.logged[1].endswith('sum of logits')
