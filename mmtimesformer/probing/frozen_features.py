"""Features of listed videos, computed once: a cache by video and checkpoint, resumable."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmtimesformer.checkpoints.download import fetch
from mmtimesformer.inference import Skipped, VideoClassifier
from mmtimesformer.inference.feature_store import FeatureFolder, sha256_of


@dataclass
class FrozenFeatures:
    """Features of videos, and the videos without any.

    Attributes:
        folder: Where they are.
        keys: By video, its name in the folder.
        failed: By video, why it has no features.
    """

    folder: FeatureFolder
    keys: dict[Path, str] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)

    def nbytes(self, files: Sequence[Path]) -> int:
        """Return the bytes that :meth:`load` would take, without reading the features."""
        return sum(self.folder.read(self.keys[file]).nbytes for file in files)

    def load(self, files: Sequence[Path]) -> np.ndarray:
        """Return the features of videos.

        Shape:
            - features: ``videos views d``; for tokens ``videos views t h w d``

        Raises:
            ValueError: Videos have different numbers of views.
        """
        arrays = [self.folder.read(self.keys[file]) for file in files]
        shapes = {array.shape for array in arrays}
        if len(shapes) > 1:
            raise ValueError(
                f'videos have features of different shapes ({sorted(shapes)[:3]}), because the '
                'number or the size of their views differs; change test_pipeline so that all are '
                'alike, for example with CenterCrop'
            )
        return np.stack(arrays)


def compute_features(
    classifier: VideoClassifier,
    files: Sequence[Path],
    folder: Path,
    out: str,
    batch_size: int,
) -> FrozenFeatures:
    """Compute the features that the folder does not have yet.

    A video is recognised by its path, size and time of change; a folder is of one checkpoint and
    one way to see videos.

    Args:
        classifier: The model.
        files: The videos.
        folder: The cache.
        out: ``'cls'`` or ``'tokens'``, see :mod:`mmtimesformer.inference.features`.
        batch_size: Videos at a time.

    Raises:
        NonFiniteError: The features of the first videos are NaN or infinite.
        ValueError: The folder has features of another checkpoint, or no video can be read.
    """
    features = FrozenFeatures(FeatureFolder(folder, 'npy', _settings(classifier, out)))
    for file in files:
        if file.exists():
            stat = file.stat()
            features.keys[file] = f'{file.absolute()}.{stat.st_size:x}-{stat.st_mtime_ns:x}'
        else:
            features.failed[file] = 'the file does not exist'
    missing = [file for file, key in features.keys.items() if not features.folder.is_done(key)]
    found = classifier.each_features(missing, out, batch_size=batch_size) if missing else ()
    for file, (_, result) in zip(missing, found, strict=True):
        if isinstance(result, Skipped):
            features.failed[file] = result.reason
        else:
            features.folder.add(features.keys[file], result)
    if len(features.failed) == len(files):
        file, reason = next(iter(features.failed.items()))
        raise ValueError(
            f'no video has features: none of {len(files)} could be read; the first, {file}: '
            f'{reason}; correct data_root (--root)'
        )
    return features


def _settings(classifier: VideoClassifier, out: str) -> dict[str, Any]:
    config = classifier.inference_config.to_build()
    keys = ('backbone', 'neck', 'data_preprocessor')
    return {
        'checkpoint': classifier.checkpoint,
        'sha256': sha256_of(fetch(classifier.checkpoint)),
        'feature': out,
        'layers': None,
        'dtype': 'float32',
        'model': {key: config.get(key) for key in keys},
        **{k: v for k, v in classifier.origin().items() if k != 'fusion'},
    }
