"""The contract with MMEngine, MMAction2 and torch: every name of theirs that a rename would break.

A failing test names what changed upstream and which file of ours relies on it. Adapt that file, or
bound the version in pyproject.toml.
"""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmtimesformer
from mmtimesformer.compat.upstream import has_attribute, overrides, require_attributes

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / 'mmtimesformer'
THEIRS = ('mmaction', 'mmcv', 'mmengine', 'torch')

# Private methods: class, name, parameters, and the file of ours that overrides or calls it.
METHODS = [
    ('mmengine.runner.Runner', '_init_model_weights', 'self', 'engine/runner.py'),
    (
        'mmengine.hooks.CheckpointHook',
        '_save_checkpoint_with_step',
        'self, runner, step, meta',
        'engine/checkpointing/checkpoint_hook.py',
    ),
    (
        'mmengine.hooks.CheckpointHook',
        '_save_best_checkpoint',
        'self, runner, metrics',
        'engine/checkpointing/checkpoint_hook.py',
    ),
    (
        'mmengine.hooks.Hook',
        '_after_iter',
        'self, runner, batch_idx, data_batch, outputs, mode',
        'engine/hooks/unreadable_videos.py',
    ),
    (
        'mmengine.hooks.Hook',
        '_after_epoch',
        'self, runner, mode',
        'engine/hooks/unreadable_videos.py',
    ),
    (
        'torch.nn.Module',
        '_save_to_state_dict',
        'self, destination, prefix, keep_vars',
        'heads/regression.py',
    ),
    (
        'torch.nn.Module',
        '_load_from_state_dict',
        'self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, '
        'error_msgs',
        'heads/regression.py',
    ),
    ('mmengine.optim.CosineAnnealingLR', '_get_value', 'self', 'engine/optim/warmup_cosine.py'),
    (
        'mmengine.runner.EpochBasedTrainLoop',
        '_decide_current_val_interval',
        'self',
        'engine/loops/resumable_loop.py',
    ),
    ('mmengine.hooks.EMAHook', '_swap_ema_parameters', 'self', 'engine/loops/resumable_loop.py'),
    (
        'mmengine.visualization.LocalVisBackend',
        '_dump',
        'self, value_dict, file_path, file_format',
        'engine/hooks/log_write_errors.py',
    ),
    ('mmengine.config.DictAction', '_parse_iterable', 'val', 'config/command_line.py'),
    (
        'mmengine.infer.BaseInferencer',
        '_load_model_from_metafile',
        'self, model',
        'engine/inferencers.py',
    ),
    (
        'torch.nn.Module',
        'register_load_state_dict_pre_hook',
        'self, hook',
        'models/timesformer.py',
    ),
]

# Private attributes of classes and of their instances.
LOOP = 'engine/loops/resumable_loop.py'
WORKERS = 'engine/loops/dataloader_recovery.py'
ATTRIBUTES = [
    ('mmengine.utils.ManagerMixin', '_instance_dict', 'config/components.py'),
    ('mmengine.runner.Runner', '_has_loaded', 'engine/runner.py'),
    ('mmengine.runner.Runner', '_load_from', 'engine/runner.py'),
    ('mmengine.runner.Runner', '_resume', 'engine/runner.py'),
    ('mmengine.runner.Runner', '_train_dataloader', 'engine/runner.py'),
    ('mmengine.runner.Runner', '_train_loop', 'engine/runner.py'),
    ('mmengine.runner.Runner', '_val_loop', 'engine/hooks/unreadable_videos.py'),
    ('mmengine.runner.Runner', '_test_loop', 'engine/hooks/unreadable_videos.py'),
    ('mmengine.runner.EpochBasedTrainLoop', '_epoch', LOOP),
    ('mmengine.runner.EpochBasedTrainLoop', '_iter', LOOP),
    ('mmengine.runner.EpochBasedTrainLoop', '_max_epochs', LOOP),
    ('mmengine.runner.EpochBasedTrainLoop', '_max_iters', LOOP),
    ('mmengine.optim.OptimWrapper', '_accumulative_counts', 'engine/runner.py'),
    (
        'mmengine.optim.scheduler.param_scheduler._ParamScheduler',
        '_global_step',
        'engine/checkpointing/resumed_settings.py',
    ),
    (
        'mmengine.optim.scheduler.param_scheduler._ParamScheduler',
        '_last_value',
        'engine/checkpointing/resumed_settings.py',
    ),
    ('mmengine.visualization.Visualizer', '_vis_backends', 'engine/hooks/log_write_errors.py'),
    ('mmengine.dataset.BaseDataset', '_fully_initialized', 'datasets/video_dataset.py'),
    ('mmengine.model.BaseModule', '_params_init_info', 'engine/checkpointing/pretrained.py'),
    ('torch.utils.data.DataLoader', '_iterator', WORKERS),
    ('torch.utils.data.dataloader._MultiProcessingDataLoaderIter', '_workers', WORKERS),
    ('torch.utils.data.dataloader._MultiProcessingDataLoaderIter', '_shutdown', WORKERS),
    ('torch.nn.Module', '_modules', 'engine/distributed/fsdp.py'),
    ('torch.nn.Module', '_forward_hooks', 'models/fused_linear.py'),
    ('torch.nn.Module', '_forward_pre_hooks', 'models/fused_linear.py'),
    ('torch.nn.Module', '_backward_hooks', 'models/fused_linear.py'),
    ('torch.nn.Module', '_backward_pre_hooks', 'models/fused_linear.py'),
]

# Names in modules: module, name, parameters of a function (None for anything else), our file.
DCP, TORCHRUN = 'checkpoints/dcp.py', 'engine/launch/torchrun.py'
HUB, CFG = 'config/openmmlab.py', 'package_path, cfg_name'
NAMES = [
    ('mmengine.config.utils', 'MODULE2PACKAGE', None, HUB),
    ('mmengine.config.utils', '_get_cfg_metainfo', 'package_path, cfg_path', HUB),
    ('mmengine.config.utils', '_get_external_cfg_base_path', CFG, HUB),
    ('mmengine.config.config', '_get_external_cfg_base_path', CFG, HUB),
    ('mmengine.hub.hub', '_get_cfg_metainfo', 'package_path, cfg_path', HUB),
    ('mmengine.hub.hub', '_get_external_cfg_base_path', CFG, HUB),
    ('torch', '_foreach_norm', None, 'engine/checkpointing/good_checkpoints.py'),
    ('torch', '_dynamo', None, 'inference/compiled.py'),
    ('torch._dynamo.config', 'recompile_limit', None, 'inference/compiled.py'),
    ('torch._dynamo.exc', 'TorchDynamoException', None, 'inference/compiled.py'),
    ('torch', '_int_mm', None, 'inference/int8.py'),
    ('torch.utils._python_dispatch', 'TorchDispatchMode', None, 'inference/inference_config.py'),
    ('torch._utils', '_rebuild_tensor_v2', None, 'fileio/stand_ins.py'),
    ('torch._utils', '_rebuild_parameter', None, 'fileio/stand_ins.py'),
    ('torch._tensor', '_rebuild_from_type_v2', None, 'fileio/stand_ins.py'),
    ('torch.storage', '_load_from_bytes', None, 'fileio/torch_files.py'),
    ('torch.serialization', '_get_layout', None, 'fileio/stand_ins.py'),
    ('torch._subclasses', 'FakeTensor', None, 'models/fused_linear.py'),
    ('torch.distributed.run', 'parse_args', 'args', TORCHRUN),
    ('torch.distributed.run', 'run', 'args', TORCHRUN),
    ('torch.distributed.elastic.multiprocessing.api', 'SignalException', None, TORCHRUN),
    ('torch.distributed.elastic.multiprocessing.errors', 'ChildFailedError', None, TORCHRUN),
    ('torch.distributed.elastic.rendezvous.api', 'RendezvousError', None, TORCHRUN),
    ('torch.distributed', 'TCPStore', None, TORCHRUN),
    ('torch.distributed', 'PrefixStore', None, TORCHRUN),
    ('torch.distributed.checkpoint.default_planner', 'DefaultLoadPlanner', None, DCP),
    ('torch.distributed.checkpoint.filesystem', 'FileSystemReader', None, DCP),
    ('torch.distributed.checkpoint.api', 'CheckpointException', None, DCP),
    ('torch.distributed.checkpoint.state_dict_loader', 'load', None, DCP),
    ('torch.distributed.checkpoint.state_dict_saver', 'save', None, DCP),
]

# What torch calls of the reader and the planner in checkpoints/dcp.py: renamed, it would read and
# execute pickles by its own.
DCP_METHODS = [
    ('torch.distributed.checkpoint.filesystem.FileSystemReader', 'read_metadata'),
    ('torch.distributed.checkpoint.filesystem.FileSystemReader', 'read_data'),
    ('torch.distributed.checkpoint.default_planner.DefaultLoadPlanner', 'load_bytes'),
]

# Words in torch's source: options, environment variables and messages.
TEXTS = [
    ('torch.distributed.run', '--signals-to-handle', TORCHRUN),
    ('torch.distributed.elastic.rendezvous.c10d_rendezvous_backend', 'is_host', TORCHRUN),
    (
        'torch.distributed.elastic.rendezvous.dynamic_rendezvous',
        'TORCH_DISABLE_SHARE_RDZV_TCP_STORE',
        TORCHRUN,
    ),
    ('torch.utils.data.dataloader', 'DataLoader worker (pid', WORKERS),
    ('torch._utils', 'Original', WORKERS),
    ('torch.distributed.checkpoint.state_dict_loader', 'no_dist', DCP),
    ('torch.distributed.checkpoint.state_dict_loader', 'torch.distributed is disabled', DCP),
    ('mmengine.optim.scheduler.param_scheduler', '_with_counter', 'resumed_settings.py'),
]


def _named(path: str) -> object:
    module, _, name = path.rpartition('.')
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(('base', 'name', 'parameters', 'file'), METHODS)
def test_private_method_has_the_parameters_that_we_expect(
    base: str, name: str, parameters: str, file: str
) -> None:
    method = getattr(_named(base), name, None)
    assert method is not None, f'{base} has no {name} any more; {file} needs it'
    found = ', '.join(inspect.signature(method).parameters)
    assert found == parameters, f'{base}.{name} takes ({found}); {file} expects ({parameters})'


@pytest.mark.parametrize(('base', 'name', 'file'), ATTRIBUTES)
def test_private_attribute_exists(base: str, name: str, file: str) -> None:
    assert has_attribute(_named(base), name), f'{base} has no {name} any more; {file} needs it'


@pytest.mark.parametrize(('module', 'name', 'parameters', 'file'), NAMES)
def test_name_of_a_module_exists(module: str, name: str, parameters: str | None, file: str) -> None:
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        found = None
    assert found is not None, f'{module} has no {name} any more; {file} needs it'
    if parameters is not None:
        assert ', '.join(inspect.signature(found).parameters) == parameters, f'{file} calls it'


@pytest.mark.parametrize(('base', 'name'), DCP_METHODS)
def test_method_by_which_torch_reads_a_sharded_checkpoint_exists(base: str, name: str) -> None:
    assert hasattr(_named(base), name), f'{base} has no {name} any more; {DCP} overrides it'


@pytest.mark.parametrize(('module', 'text', 'file'), TEXTS)
def test_word_stands_in_their_source(module: str, text: str, file: str) -> None:
    source = inspect.getsource(importlib.import_module(module))
    if not text.startswith('--'):
        assert text in source, f'{module} has no {text!r} any more; {file} needs it'
    else:
        assert re.search(re.escape(text).replace(r'\-', '[-_]'), source), f'{text}: {file} sets it'


# -- No override and no private name is missing from the tables -----------------------------------


def _classes_with_their_bases() -> Iterator[tuple[type, list[type]]]:
    for info in pkgutil.walk_packages(mmtimesformer.__path__, 'mmtimesformer.'):
        if info.name.endswith('__main__'):
            continue
        for kind in vars(importlib.import_module(info.name)).values():
            if inspect.isclass(kind) and kind.__module__ == info.name:
                bases = [b for b in kind.__mro__ if b.__module__.partition('.')[0] in THEIRS]
                if bases:
                    yield kind, bases


def test_every_override_of_a_private_method_is_checked_at_import() -> None:
    found = set()
    for kind, bases in _classes_with_their_bases():
        for name in vars(kind):
            theirs = next((base for base in bases if name in vars(base)), None)
            if theirs and re.match('_[a-z]', name) and name != '_abc_impl':
                found.add(name)
                above = inspect.getsource(vars(kind)[name])
                assert above.lstrip().startswith('@overrides('), f'{kind}: {name}'
    assert found == {
        '_init_model_weights',
        '_save_checkpoint_with_step',
        '_save_best_checkpoint',
        '_get_value',
        '_after_iter',
        '_after_epoch',
        '_save_to_state_dict',
        '_load_from_state_dict',
    }
    assert found <= {name for _, name, *_ in METHODS}


def test_every_point_at_which_a_hook_of_ours_acts_is_one_of_mmengine() -> None:
    from mmengine.hooks import Hook

    points = 0
    for kind, bases in _classes_with_their_bases():
        if Hook in bases:
            for name in vars(kind):
                if name.startswith(('before_', 'after_')):
                    points += 1
                    assert hasattr(Hook, name), f'{kind.__name__}.{name} is never called'
    assert points > 40


# Public methods that MMEngine, MMAction2 and torch call, by our class.
CALLED = {
    'engine.runner.Runner': (
        'setup_env build_logger build_dataloader build_visualizer build_train_loop train '
        'wrap_model test register_hooks load_or_resume resume build_param_scheduler '
        'load_checkpoint save_checkpoint build_optim_wrapper scale_lr'
    ),
    'engine.loops.resumable_loop.ResumableEpochLoop': 'run run_epoch',
    'engine.optim.amp.Bfloat16OptimWrapper': 'initialize_count_status optim_context',
    'engine.optim.layer_decay.LayerDecay': 'add_params',
    'engine.optim.warmup_cosine.WarmupCosineLR': 'build_iter_from_epoch',
    'engine.checkpointing.atomic_backend.AtomicBackend': 'put put_text',
    'datasets.video_dataset.VideoDataset': 'full_init prepare_data',
    'datasets.video_dataset.FailedSample': 'set_field',
    'datasets.tar_shards.dataset.TarShardVideoDataset': 'load_data_list',
    'datasets.tar_shards.object_store.FsspecBackend': 'get get_text',
    'heads.classification.TimeSformerHead': 'average_clip',
}


@pytest.mark.parametrize('kind', CALLED)
def test_public_method_that_is_called_for_us_exists(kind: str) -> None:
    ours = _named(f'mmtimesformer.{kind}')
    bases = [base for base in ours.__mro__ if base.__module__.partition('.')[0] in THEIRS]
    for name in CALLED[kind].split():
        assert name in vars(ours), f'{kind} has no {name}: repair the table'
        assert any(name in vars(base) for base in bases), f'{kind}.{name} is never called'


def _private_uses() -> Iterator[tuple[str, str]]:
    """Give each private attribute of another object in the package, but for our own."""
    for file in sorted(PACKAGE.rglob('*.py')):
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and re.match('_[a-z]', node.attr):
                yield str(file.relative_to(PACKAGE)), node.attr
            if isinstance(node, ast.Call) and getattr(node.func, 'id', '') in (
                'getattr', 'hasattr', 'setattr',
            ):  # fmt: skip
                name = node.args[1]
                if isinstance(name, ast.Constant) and re.match('_[a-z]', str(name.value)):
                    yield str(file.relative_to(PACKAGE)), name.value


# Of torch.ops, whose absence is an AttributeError, or checked before the use.
OPERATORS = '_scaled_dot_product_', '_reorder_linear_weight', '_linear_pointwise', '_is_mkldnn_bf16'
OTHERS = {
    '_exit',  # os._exit
    '_schema',  # of an operator that torch dispatches; its absence is an AttributeError
    '_metadata',  # of a state dict, in files too
    '_actions',  # of argparse, which has no public list of its options
}


def test_every_private_name_in_the_package_is_ours_or_in_the_tables() -> None:
    text = '\n'.join(file.read_text() for file in PACKAGE.rglob('*.py'))
    listed = {row[1] for row in (*METHODS, *ATTRIBUTES, *NAMES, *TEXTS)} | OTHERS
    for file, name in set(_private_uses()):
        defined = re.search(
            rf'def {name}\(|self\.{name}(: | = |, )|\.{name}, self\.|^ *{name}(:| = )',
            text,
            re.MULTILINE,
        )
        if not name.startswith(OPERATORS) and not defined:
            assert name in listed, f'{file} uses {name}: add it to a table above'


# -- A rename is an error at import ---------------------------------------------------------------


class _Base:
    def __init__(self) -> None:
        self._set_here = 1

    def _save(self, runner: object) -> None: ...


def test_override_of_a_method_that_was_renamed_is_refused() -> None:
    with pytest.raises(ImportError, match=r'_Base has no _store, and .* overrides _store\(self'):

        @overrides(_Base)
        def _store(self: object, runner: object) -> None: ...


def test_override_of_a_method_with_other_parameters_is_refused() -> None:
    with pytest.raises(ImportError, match=r'has _save\(self, runner\), .* _save\(self, step\)'):

        @overrides(_Base)
        def _save(self: object, step: object) -> None: ...


def test_override_with_the_same_parameters_stays_the_function_it_is() -> None:
    def _save(self: object, runner: object) -> None: ...

    assert overrides(_Base)(_save) is _save


def test_missing_attribute_is_refused_with_the_module_that_uses_it() -> None:
    require_attributes(_Base, '_save', '_set_here', used_by='here')
    with pytest.raises(ImportError, match=r'_Base has no _workers, and ours\.loader uses it'):
        require_attributes(_Base, '_workers', used_by='ours.loader')


RENAMES = [
    ('mmengine.runner', 'Runner', '_init_model_weights'),
    ('mmengine.runner', 'EpochBasedTrainLoop', '_decide_current_val_interval'),
    ('mmengine.hooks', 'CheckpointHook', '_save_checkpoint_with_step'),
    ('mmengine.hooks', 'CheckpointHook', '_save_best_checkpoint'),
    ('mmengine.hooks', 'EMAHook', '_swap_ema_parameters'),
    ('mmengine.visualization', 'LocalVisBackend', '_dump'),
]
ATTEMPT = """
import importlib, os, sys
import mmengine.runner, mmengine.visualization

def attempt(module, kind, name):
    delattr(getattr(importlib.import_module(module), kind), name)
    try:
        import mmtimesformer.engine.runner
    except ImportError as error:
        os._exit(name not in str(error))
    print(f'{kind}.{name} is gone, and nothing failed')
    sys.stdout.flush()
    os._exit(1)

failed = 0
for rename in %s:
    child = os.fork()
    if not child:
        attempt(*rename)
    failed += os.waitpid(child, 0)[1] != 0
sys.exit(failed)
"""


def test_import_fails_when_a_private_method_was_renamed() -> None:
    command = [sys.executable, '-W', 'ignore', '-c', ATTEMPT % RENAMES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
