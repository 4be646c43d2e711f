"""Write the model card (README.md) of a Hugging Face folder: data set, protocol, scores."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmtimesformer.checkpoints.metadata import ModelMetadata
from mmtimesformer.fileio.safe_pickle import shown
from mmtimesformer.terminal import safe_lines

MARK = '<!-- written by mmtimesformer -->'
TITLES = {
    'kinetics400': 'Kinetics-400',
    'kinetics600': 'Kinetics-600',
    'kinetics700': 'Kinetics-700',
    'sthv2': 'Something-Something V2',
    'ucf101': 'UCF101',
    'hmdb51': 'HMDB51',
    'diving48': 'Diving-48',
}
ATTENTION = {
    'divided_space_time': 'divided space-time',
    'joint_space_time': 'joint space-time',
    'space_only': 'space-only',
}
NO_SCORES = 'None were given. Measure them by `python -m mmtimesformer test CONFIG CHECKPOINT`.'
NO_LICENCE = (
    'Not stated. The licence of the weights that this model was trained from applies: the weights '
    'of the official TimeSformer are CC-BY-NC 4.0 (not for commercial use).'
)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


@dataclass
class ModelCard:
    """What a model card states besides the metadata of the weights.

    Attributes:
        data_set: Of the training, such as ``'kinetics400'`` or a name of your own.
        protocol: How the model is tested, a line for each fact.
        scores: Name of each metric → value in percent.
        scores_source: Where the scores come from; needed with ``scores``.
        licence: The hub's identifier, such as ``'cc-by-nc-4.0'``.
        base_model: The repository that the training started from.

    Raises:
        ValueError: Scores without a source, or a score that is not a number.
        TypeError: An argument is of another type.
    """

    data_set: str | None = None
    protocol: list[str] = field(default_factory=list)
    scores: Mapping[str, float] = field(default_factory=dict)
    scores_source: str | None = None
    licence: str | None = None
    base_model: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.scores, Mapping) or not all(map(_is_text, self.scores)):
            raise TypeError(
                f'scores={shown(self.scores)} of a model card is not a dict of metric → percent; '
                "give it as {'top-1 accuracy': 94.0}"
            )
        for name in ('data_set', 'scores_source', 'licence', 'base_model'):
            value = getattr(self, name)
            if not (value is None or _is_text(value)):
                raise TypeError(f'{name}={shown(value)} of a model card is not a text; give a str')
        if self.scores and not self.scores_source:
            raise ValueError(
                'scores of a model card need their source; give scores_source, such as '
                "'tools/test.py on the validation set of Kinetics-400'"
            )
        for name, value in self.scores.items():
            if type(value) not in (int, float) or not abs(value) < float('inf'):
                raise ValueError(f'the score {name!r} is {value!r}, which is not a number')

    def text(self, name: str, metadata: ModelMetadata) -> str:
        """Return the text of the card.

        Args:
            name: Of the model, as its title.
            metadata: Of the weights.
        """
        import yaml  # type: ignore[import-untyped]

        front = yaml.safe_dump(self._front(name, metadata), sort_keys=False, allow_unicode=True)
        return safe_lines(f'---\n{front}---\n\n{MARK}\n\n' + '\n'.join(self._body(name, metadata)))

    def _licence(self, metadata: ModelMetadata) -> str | None:
        """Return the hub's identifier of the licence: as given, else of the weights."""
        if self.licence or not metadata.licence:
            return self.licence
        return 'cc-by-nc-4.0' if metadata.licence.startswith('CC-BY-NC 4.0') else 'other'

    def _front(self, name: str, metadata: ModelMetadata) -> dict[str, Any]:
        front: dict[str, Any] = {
            'license': self._licence(metadata),
            'library_name': 'transformers',
            'pipeline_tag': 'video-classification',
            'tags': ['timesformer', 'video-classification', 'mmtimesformer'],
            'datasets': [self.data_set] if self.data_set else None,
            'base_model': self.base_model,
        }
        if self.scores and self.data_set:
            metrics = [
                {'name': metric, 'type': re.sub(r'[^a-z0-9]+', '_', metric.lower()), 'value': value}
                for metric, value in self.scores.items()
            ]
            data_set = {'name': TITLES.get(self.data_set, self.data_set), 'type': self.data_set}
            task = {'type': 'video-classification'}
            result = {'task': task, 'dataset': data_set, 'metrics': metrics}
            front['model-index'] = [{'name': name, 'results': [result]}]
        return {key: value for key, value in front.items() if value is not None}

    def _body(self, name: str, metadata: ModelMetadata) -> list[str]:
        seen = metadata.preprocessing
        size = metadata.img_size or (0, 0)
        lines = [
            f'# {name}',
            '',
            f'A TimeSformer with {ATTENTION.get(metadata.attention_type or "", "")} attention '
            f'([paper](https://arxiv.org/abs/2102.05095)): {metadata.num_frames or 8} frames of '
            f'{size[0]} x {size[1]} pixels, {metadata.num_layers} blocks of width '
            f'{metadata.embed_dims}, {metadata.num_classes or "no"} classes.',
            '',
            '```python',
            'from mmtimesformer.inference import VideoClassifier',
            '',
            "print(VideoClassifier.from_pretrained('OWNER/NAME')('video.mp4'))",
            '```',
            '',
            'transformers loads the same weights (`TimesformerForVideoClassification`). Its '
            'pipeline takes other frames of a video: see docs/huggingface.md of mmtimesformer.',
            '',
            '## Data set',
            '',
            TITLES.get(self.data_set or '', self.data_set or 'Not stated.'),
            '',
            '## Protocol',
            '',
            *[f'- {line}' for line in [*self._pixels(seen), *self.protocol]],
            '',
            '## Scores',
            '',
        ]
        if self.scores:
            lines += ['| metric | value |', '|---|---|']
            lines += [f'| {metric} | {value:g} |' for metric, value in self.scores.items()]
            lines += ['', f'Source: {self.scores_source}']
        else:
            lines += [NO_SCORES]
        lines += ['', '## Licence', '', self._licence_text(metadata), '']
        return lines

    def _licence_text(self, metadata: ModelMetadata) -> str:
        return self.licence or metadata.licence or NO_LICENCE

    @staticmethod
    def _pixels(seen: Any) -> list[str]:
        lines = []
        if seen.mean and seen.std:
            mean, std = (', '.join(f'{x:g}' for x in values) for values in (seen.mean, seen.std))
            lines.append(f'mean {mean}, standard deviation {std} (pixels from 0 to 1)')
        if seen.channel_order:
            lines.append(f'colours: {seen.channel_order}')
        if seen.channel_order == 'BGR':
            lines.append('transformers gives RGB to the model: swap the channels of pixel_values')
        if seen.sampling == 'segments':
            lines.append('frames: one of each segment of the video')
        elif seen.frame_interval:
            lines.append(f'frames: {seen.frame_interval} apart')
        return lines
