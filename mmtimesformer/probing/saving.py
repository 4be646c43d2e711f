"""Save a probe as an ordinary checkpoint and config, and its test as an ordinary dump."""

import pickle
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.config import Config
from torch import Tensor

from mmtimesformer.checkpoints.metadata import metadata_of_config
from mmtimesformer.checkpoints.readers import write_torch
from mmtimesformer.config.find import FOLDERS
from mmtimesformer.fileio.atomic import (
    write_atomically,
    write_json_atomically,
    write_lines_atomically,
    write_text_atomically,
)
from mmtimesformer.fileio.json_values import to_json
from mmtimesformer.heads import FUSIONS, TimeSformerHead
from mmtimesformer.inference import VideoClassifier
from mmtimesformer.probing.lists import VideoList

TOKENS = 'tokens'


def make_config(
    classifier: VideoClassifier,
    head: dict[str, Any],
    feature: str,
    classes: list[str],
    test: VideoList | None,
    out: Path,
    batch_size: int,
) -> Config:
    """Return the config of the model with the probe as its head, with the test list if given."""
    given = classifier.inference_config
    model = {**given.to_build(), 'cls_head': head}
    model['backbone'] = {**model['backbone']}
    model['backbone'].pop('out_type', None)
    if feature == TOKENS:
        model['backbone']['out_type'] = TOKENS
    if isinstance(model.get('data_preprocessor'), Mapping):
        model['data_preprocessor'] = {**model['data_preprocessor'], 'blending': None}
    config = _runtime()
    config.update(model=model, test_pipeline=given.pipeline, protocol=given.protocol)
    if test is not None:
        several = {'multi_class': True, 'num_classes': len(classes)} if test.multi_label else {}
        config['test_dataloader'] = {
            'batch_size': batch_size,
            'num_workers': 2,
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
            'dataset': {
                'type': 'mmtimesformer.VideoDataset',
                'ann_file': str((out / 'test.txt').absolute()),
                'data_prefix': {'video': str(test.root)},
                'delimiter': test.delimiter,
                'metainfo': {'classes': classes},
                'pipeline': given.pipeline,
                'test_mode': True,
                **several,
            },
        }
        metric = {'metric_list': ('mean_average_precision',)} if test.multi_label else {}
        config['test_evaluator'] = {'type': 'AccMetric', **metric}
        config['test_cfg'] = {'type': 'TestLoop'}
        write_lines_atomically(out / 'test.txt', test.lines())
    return Config(config)


def _runtime() -> dict[str, Any]:
    imports = ['mmtimesformer', 'mmtimesformer.heads', 'mmtimesformer.datasets']
    custom = {'imports': imports, 'allow_failed_imports': False}
    paths = (folder / '_base_' / 'default_runtime.py' for folder in FOLDERS)
    runtime = Config.fromfile(next(path for path in paths if path.is_file())).to_dict()
    return {'custom_imports': custom, **runtime}


def save_model(
    classifier: VideoClassifier,
    head: TimeSformerHead,
    config: Config,
    classes: list[str],
    about: dict[str, Any],
    out: Path,
) -> tuple[Path, Path]:
    """Write ``probe.py`` and ``probe.pth``; return the paths of checkpoint and config."""
    text = config.pretty_text
    metadata = metadata_of_config({k: config[k] for k in ('model', 'test_pipeline')})
    metadata.classes = classes
    meta = {
        **metadata.to_meta(),
        'cfg': text,
        'mmengine_version': mmengine.__version__,
        'probe': to_json(about),
    }
    weights = {
        name: tensor.cpu()
        for name, tensor in classifier.model.state_dict().items()
        if not name.startswith('cls_head.')
    }
    weights |= {f'cls_head.{name}': tensor.cpu() for name, tensor in head.state_dict().items()}
    write_text_atomically(out / 'probe.py', text)
    write_torch({'meta': meta, 'state_dict': weights}, out / 'probe.pth')
    return out / 'probe.pth', out / 'probe.py'


def save_dump(
    classifier: VideoClassifier,
    config: Config,
    samples: list[dict[str, Any]],
    scores: dict[str, float],
    out: Path,
) -> Path:
    """Write ``result.pkl`` and ``result.meta.json`` as ``tools/test.py --dump`` does."""
    path = out / 'result.pkl'
    with write_atomically(path) as part:
        part.write_bytes(pickle.dumps(samples))
    views = len(samples[0]['view_scores']) if 'view_scores' in samples[0] else 1
    samplers = [step for step in config.test_pipeline if 'clip_len' in step]
    clips = samplers[0].get('num_clips', 1) if samplers else 1
    about = {
        'protocol': config.get('protocol'),
        'views': {'clips': clips, 'crops': max(1, views // clips)},
        'fusion': FUSIONS[config.model.cls_head.average_clips],
        'config': str((out / 'probe.py').absolute()),
        'checkpoint': str((out / 'probe.pth').absolute()),
        'videos': len(samples),
        'classes': list(config.test_dataloader.dataset.metainfo.classes),
        'versions': classifier.origin()['versions'],
        'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'scores': scores,
    }
    write_json_atomically(path.with_suffix('.meta.json'), to_json(about))
    return path


def dump_sample(
    scores: Tensor, views: Tensor, target: Any, failed: tuple[str, str] | None
) -> dict[str, Any]:
    """Return a video of a dump, in the field names of MMAction2 1.2."""
    label = torch.as_tensor(target)
    sample: dict[str, Any] = {
        'pred_score': scores.clone(),
        'pred_label': scores.argmax(-1, keepdim=True),
        'gt_label': label.float() if label.ndim else label[None],
    }
    if len(views) > 1:
        sample['view_scores'] = views.clone()
    if failed is not None:
        sample['filename'], sample['failed'] = failed
    return sample
