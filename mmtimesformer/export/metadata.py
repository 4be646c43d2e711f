"""Metadata of an exported file: its input, its output and the test pipeline."""

from pathlib import Path
from typing import Any

import torch

from mmtimesformer.export.graph import ClipScores, normalisation
from mmtimesformer.inference import VideoClassifier
from mmtimesformer.version import __version__

KEY = 'mmtimesformer'  # under which a file holds the metadata, as JSON


def describe(
    classifier: VideoClassifier,
    graph: ClipScores,
    shape: tuple[int, int, int, int, int],
    batch: int | None,
) -> dict[str, Any]:
    """Return the metadata as plain values.

    ``shape`` is ``views c t H W``; ``batch`` is ``None`` for any number of videos.

    Returns:
        ``input`` (name, dtype, layout, shape, colour order, and the mean and std of pixels from 0
        to 255 by which it is to be normalised, ``None`` where the file does so), ``output`` (name
        and meaning), ``frames`` and ``interval`` of a clip, ``views``, ``fusion`` and ``protocol``
        of the config's test, its ``pipeline`` step by step, ``classes``, and versions.
    """
    views, *clip = shape
    model = classifier.model
    fused = graph.output == 'fused'
    raw = graph.with_preprocessing
    colour = 'BGR' if model.data_preprocessor.to_rgb and not raw else 'RGB'
    mean, std = (values.flatten().tolist() for values in normalisation(model))
    sampler = next(
        (step for step in classifier.inference_config.pipeline if 'clip_len' in step), {}
    )
    kind = 'sigmoid' if classifier.is_multi_label else 'softmax'
    meanings = {'logits': 'logits of each clip', 'probabilities': f'{kind} of each clip'}
    return {
        'input': {
            'name': 'video',
            'dtype': 'uint8' if raw else 'float32',
            'layout': 'b views c t H W' if fused else 'b c t H W',
            'shape': [batch, views, *clip] if fused else [batch, *clip],
            'colour': colour if shape[1] == 3 else None,
            'mean': None if raw else mean,
            'std': None if raw else std,
        },
        'output': {
            'name': 'scores',
            'meaning': meanings.get(graph.output, f'{classifier.fusion} of {views} views'),
        },
        'attention_type': classifier.inference_config.model['backbone'].get(
            'attention_type', 'divided_space_time'
        ),
        'frames': clip[1],
        'interval': sampler.get('frame_interval'),
        'views': views,
        'fusion': classifier.fusion,
        'protocol': classifier.inference_config.protocol,
        'pipeline': [plain(step) for step in classifier.inference_config.pipeline],
        'classes': classifier.classes,
        'checkpoint': Path(classifier.checkpoint).name,
        'versions': {'mmtimesformer': __version__, 'torch': torch.__version__},
    }


def plain(value: Any) -> Any:
    """Return a value of a config as JSON gives it back."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
