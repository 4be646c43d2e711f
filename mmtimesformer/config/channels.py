"""Check that pipelines, normalisation and model agree on the number of input channels."""

from collections.abc import Iterable
from typing import Any

ONE_CHANNEL_FAILS = ('Resize', 'RandomRescale', 'RandomResizedCrop', 'MultiScaleCrop')
OPENERS = ('VideoInit', 'DecordInit', 'PyAVInit', 'OpenCVInit')


def check_channels(model: Any, datasets: Iterable[tuple[str, Any]]) -> None:
    """Check ``in_channels`` against the normalisation and the channels that pipelines give.

    A mean of three numbers and frames of one channel would be broadcast to three channels without
    an error.

    Args:
        model: The config of the model.
        datasets: Keys and configs of the data sets.

    Raises:
        ValueError: They differ, or a step cannot take so many channels.
    """
    backbone, preprocessor = model.get('backbone') or {}, model.get('data_preprocessor') or {}
    if backbone.get('type') != 'mmtimesformer.TimeSformer':
        return
    channels = backbone.get('in_channels', 3)
    for name in ('mean', 'std'):
        values = preprocessor.get(name)
        if isinstance(values, list | tuple) and len(values) != channels:
            raise ValueError(
                f'model.data_preprocessor.{name} has {len(values)} numbers and '
                f'model.backbone.in_channels={channels}; set one number for each channel'
            )
    if channels != 3 and preprocessor.get('to_rgb'):
        raise ValueError(
            f'model.data_preprocessor.to_rgb=True swaps three channels and in_channels={channels}; '
            'set it to False'
        )
    for key, dataset in datasets:
        found = _channels_of(key, dataset.get('pipeline') or ())
        if found not in (None, channels):
            raise ValueError(
                f'{key}.pipeline gives {found} channels and model.backbone.in_channels={channels}; '
                'set in_channels, and one number for each channel in data_preprocessor'
            )


def _channels_of(key: str, pipeline: Iterable[Any]) -> int | None:
    """Return the channels of the frames at the end of a pipeline; ``None`` if not known."""
    channels: int | None = None
    for i, step in enumerate(pipeline):
        name = str(step.get('type')).rpartition('.')[2]
        if name in OPENERS:
            channels = 3
        elif name == 'ArrayInit':
            channels = step.get('channels')
        elif name == 'AppendChannels' and channels is not None:
            channels += step.get('channels', 1)
        elif name == 'ToGrey':
            channels = 1
        elif name in ONE_CHANNEL_FAILS and channels == 1:
            raise ValueError(
                f'{key}.pipeline.{i}: {name} takes the last axis off frames of one channel; use '
                'mmtimesformer.ShortSideResize, or put ToGrey after it'
            )
    return channels
