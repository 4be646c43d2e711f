"""A score is worth as much as is known about how it was measured: name the protocol beside it."""

from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.evaluator import DumpResults
from mmengine.hooks import Hook

from mmtimesformer.engine.hooks.non_finite_scores import NonFiniteScoresHook
from mmtimesformer.fileio.atomic import write_json_atomically
from mmtimesformer.fileio.json_values import to_json
from mmtimesformer.registry import HOOKS

PACKAGES = ('mmtimesformer', 'mmaction2', 'mmengine', 'torch')


@HOOKS.register_module()
class EvalProtocolHook(Hook):
    """Say with every result by which protocol it was measured, and store that with a dump.

    The name is the config's top-level ``protocol``; views are counted, not taken from the config.
    Beside ``result.pkl`` of a ``--dump``, which stays the list that MMAction2's analysis tools
    read, ``result.meta.json`` tells config, checkpoint, protocol, views, fusion, scores, class
    names where the data set has them, versions and date.
    """

    priority = 'LOW'  # after the logger, so that the name stands below the scores

    def __init__(self) -> None:
        self.views = 0

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Count the views of a video."""
        self.views = _count_views(data_batch)

    after_test_iter = after_val_iter

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Name the protocol below the scores of a validation."""
        runner.logger.info(sentence(facts(runner.cfg, 'val', self.views)))

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Name the protocol below the scores of a test, and beside a dump."""
        said = facts(runner.cfg, 'test', self.views)
        runner.logger.info(sentence(said))
        for metric in runner.test_loop.evaluator.metrics:
            if isinstance(metric, DumpResults) and is_main_process():
                path = meta_path(metric.out_file_path)
                content = {**said, **_origin(runner), 'scores': metrics or {}}
                write_json_atomically(path, to_json(content))
                runner.logger.info(f'How these results came about is in {path}.')


def meta_path(results: str | Path) -> Path:
    """Return where the origin of dumped results is told: ``result.meta.json``."""
    return Path(results).with_suffix('.meta.json')


def facts(cfg: Any, stage: str, views: int) -> dict[str, Any]:
    """Collect what makes a score comparable.

    Args:
        cfg: The config of the run.
        stage: ``'val'`` or ``'test'``.
        views: Views of one video that the model saw.
    """
    dataset = (cfg.get(f'{stage}_dataloader') or {}).get('dataset') or {}
    pipeline = dataset.get('pipeline') if isinstance(dataset, dict) else None
    samplers = [step for step in pipeline or () if 'clip_len' in step]
    clips = samplers[0].get('num_clips', 1) if samplers else 1
    from mmtimesformer.heads import FUSIONS  # which imports MMAction2

    head = (cfg.get('model') or {}).get('cls_head') or {}
    return {
        'protocol': cfg.get('protocol'),
        'views': {'clips': clips, 'crops': views // clips},
        'fusion': FUSIONS.get(head.get('average_clips'), head.get('average_clips')),
    }


def sentence(said: dict[str, Any]) -> str:
    """Tell :func:`facts` in one line."""
    protocol, views = said['protocol'] or 'not named in the config', said['views']
    parts = [f'{n} {part if n != 1 else part[:-1]}' for part, n in views.items()]
    return f'Protocol: {protocol}; {" x ".join(parts)}, {said["fusion"]}'


def _count_views(data_batch: Any) -> int:
    video = data_batch['inputs'][0]  # c t H W, or with a first axis of views
    return len(video) if video.ndim == 5 else 1


def _origin(runner: Any) -> dict[str, Any]:
    metainfo = getattr(runner.test_dataloader.dataset, 'metainfo', None) or {}
    return {
        'config': runner.cfg.filename,
        'checkpoint': runner.cfg.get('load_from'),
        'videos': len(runner.test_dataloader.dataset),
        'classes': metainfo.get('classes'),
        'non_finite': _non_finite(runner),
        'versions': {name: _version(name) for name in PACKAGES},
        'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
    }


def _non_finite(runner: Any) -> list[str]:
    """Return the videos whose scores are NaN or infinite; see non_finite_scores.py."""
    hooks = (hook for hook in runner.hooks if isinstance(hook, NonFiniteScoresHook))
    return next((hook.videos for hook in hooks), [])


def _version(package: str) -> str | None:
    if package == 'mmtimesformer':  # also in a checkout that was never installed
        from mmtimesformer import __version__

        return __version__
    try:
        return version(package)
    except PackageNotFoundError:
        return None
