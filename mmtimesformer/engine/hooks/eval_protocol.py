"""Log the evaluation protocol with every score, and store it with dumped results."""

from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.evaluator import DumpResults
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmtimesformer.config.label_checks import is_regression_head
from mmtimesformer.config.speed import EXACT
from mmtimesformer.engine.hooks.non_finite_scores import NonFiniteScoresHook
from mmtimesformer.fileio.atomic import write_json_atomically
from mmtimesformer.fileio.json_values import to_json
from mmtimesformer.registry import HOOKS
from mmtimesformer.version import __version__

PACKAGES = ('mmtimesformer', 'mmaction2', 'mmengine', 'torch')


class EvalProtocol(TypedDict):
    """What makes a score comparable."""

    protocol: str | None
    views: dict[str, int]
    fusion: str | None
    temperature: float | None
    speed: str


@HOOKS.register_module()
class EvalProtocolHook(Hook):
    """Log the protocol of every result, and store it with a dump.

    The name is the config's top-level ``protocol``; views are counted, not read from the config.
    Next to ``result.pkl`` of a ``--dump``, ``result.meta.json`` has the config, checkpoint,
    protocol, views, fusion, speed, scores, class names where the data set has them, versions and
    date.
    ``result.pkl`` itself stays the list that MMAction2's analysis tools read.
    """

    priority = 'LOW'  # after the logger, so that the protocol is below the scores

    def __init__(self) -> None:
        self.views = 0

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: object = None
    ) -> None:
        """Count the views of a video."""
        video = data_batch['inputs'][0]  # c t H W, or with a first axis of views
        self.views = len(video) if video.ndim == 5 else 1

    after_test_iter = after_val_iter

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        runner.logger.info(format_protocol(protocol_of(runner.cfg, 'val', self.views)))

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Log the protocol below the scores, and store it with a dump."""
        protocol = protocol_of(runner.cfg, 'test', self.views)
        runner.logger.info(format_protocol(protocol))
        for metric in runner.test_loop.evaluator.metrics:
            if isinstance(metric, DumpResults) and is_main_process():
                path = meta_path(metric.out_file_path)
                content = {**protocol, **_origin(runner), 'scores': metrics or {}}
                write_json_atomically(path, to_json(content))
                runner.logger.info(f'The metadata of these results are in {path}.')


def meta_path(results: str | Path) -> Path:
    """Return the path of the metadata of dumped results: ``result.meta.json``."""
    return Path(results).with_suffix('.meta.json')


def protocol_of(cfg: Config, stage: str, views: int) -> EvalProtocol:
    """Return the protocol of the stage ``'val'`` or ``'test'`` of a run, from its config."""
    from mmtimesformer.heads import FUSIONS  # which imports MMAction2

    dataset = (cfg.get(f'{stage}_dataloader') or {}).get('dataset') or {}
    pipeline = dataset.get('pipeline') if isinstance(dataset, dict) else None
    samplers = [step for step in pipeline or () if 'clip_len' in step]
    clips = samplers[0].get('num_clips', 1) if samplers else 1
    head = (cfg.get('model') or {}).get('cls_head') or {}
    fusion = 'number' if is_regression_head(head) else head.get('average_clips')
    return {
        'protocol': cfg.get('protocol'),
        'views': {'clips': clips, 'crops': views // clips},
        'fusion': FUSIONS.get(fusion, fusion),
        'temperature': head.get('temperature'),
        'speed': (cfg.get('speed') or EXACT) if stage == 'test' else EXACT,
    }


def format_protocol(protocol: EvalProtocol) -> str:
    """Return the protocol in one line."""
    parts = [f'{n} {part if n != 1 else part[:-1]}' for part, n in protocol['views'].items()]
    name = protocol['protocol'] or 'not named in the config'
    temperature = protocol['temperature']
    calibrated = '' if temperature is None else f', calibrated: temperature {temperature:g}'
    speed = '' if protocol['speed'] == EXACT else f', speed {protocol["speed"]}'
    return f'Protocol: {name}; {" x ".join(parts)}, {protocol["fusion"]}{calibrated}{speed}'


def _origin(runner: Runner) -> dict[str, object]:
    metainfo = getattr(runner.test_dataloader.dataset, 'metainfo', None) or {}
    non_finite = [hook.videos for hook in runner.hooks if isinstance(hook, NonFiniteScoresHook)]
    return {
        'config': runner.cfg.filename,
        'checkpoint': runner.cfg.get('load_from'),
        'videos': len(runner.test_dataloader.dataset),
        'classes': metainfo.get('classes'),
        'non_finite': non_finite[0] if non_finite else [],
        'versions': {name: _version(name) for name in PACKAGES},
        'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
    }


def _version(package: str) -> str | None:
    if package == 'mmtimesformer':  # also in a checkout that was never installed
        return __version__
    try:
        return version(package)
    except PackageNotFoundError:
        return None
