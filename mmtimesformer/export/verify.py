"""Compare the scores of an exported file with those of PyTorch."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mmtimesformer.export.graph import ClipScores
from mmtimesformer.export.writers import Run
from mmtimesformer.inference import VideoClassifier
from mmtimesformer.non_finite import NonFiniteError, about_scores, is_finite

#: Largest accepted difference of a score; float32 leaves about 1e-6.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Difference:
    """How far a file was from PyTorch on one input."""

    what: str  # the input: noise or a moving picture
    batch: int  # videos
    largest: float  # difference of a score
    scale: float  # largest score


def compare(
    run: Run,
    classifier: VideoClassifier,
    graph: ClipScores,
    shape: tuple[int, int, int, int, int],
    batches: tuple[int, ...],
) -> Iterator[Difference]:
    """Run a file and the recognizer on noise and moving pictures, and compare the scores.

    The components of the recognizer normalise, classify and fuse; ``shape`` is ``views c t H W``,
    and there is one comparison for each batch size.

    Raises:
        NonFiniteError: A score of PyTorch is NaN or infinite.
        ValueError: A score differs by more than :data:`TOLERANCE`, or is NaN.
    """
    views = shape[0] if graph.output == 'fused' else 1
    for what, make in (('noise', _noise), ('moving picture', _moving_picture)):
        for batch in batches:
            pixels = make(batch, views, *shape[1:])
            with torch.inference_mode():
                expected, clips = _scores(classifier, graph.output, pixels)
            if not is_finite(expected):
                raise NonFiniteError(f'{about_scores([what])}; nothing was written')
            given = pixels if graph.with_preprocessing else clips
            got = run((given if graph.output == 'fused' else given[:, 0]).contiguous())
            if got.shape != expected.shape:
                raise ValueError(
                    f'the file gives scores of shape {tuple(got.shape)} and PyTorch of '
                    f'{tuple(expected.shape)}, on {what}, {batch} at a time; nothing was written'
                )
            largest = (got - expected).abs().max().item()
            if not largest <= TOLERANCE:  # NaN included
                raise ValueError(
                    f'a score of the file differs from PyTorch by {largest:.2g} on {what}, {batch} '
                    f'at a time, and {TOLERANCE:g} is allowed; nothing was written. Another '
                    '--opset or --format may do better'
                )
            yield Difference(what, batch, largest, expected.abs().max().item())


def _scores(classifier: VideoClassifier, output: str, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores and the normalised clips of the recognizer, as in a test."""
    model = classifier.model
    data = {'inputs': list(pixels.to(classifier.device)), 'data_samples': None}
    clips = model.data_preprocessor(data, False)['inputs']
    scores = model.cls_head(model.backbone(clips.flatten(0, 1)))
    if output == 'probabilities':
        scores = scores.sigmoid() if classifier.is_multi_label else scores.softmax(-1)
    elif output == 'fused':
        scores = model.cls_head.average_clip(scores, clips.shape[1])
        if model.cls_head.average_clips is None:  # views are kept apart
            scores = scores.softmax(-1).mean(1)
    return scores.cpu().clone(), clips.cpu().clone()


def _noise(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def _moving_picture(b: int, views: int, c: int, t: int, height: int, width: int) -> Tensor:
    """Return waves that run across each video, in its own direction."""
    rows, columns = torch.arange(height)[:, None] / height, torch.arange(width) / width
    time = torch.arange(t)[:, None, None] / t
    videos = [
        torch.stack([torch.sin(6.3 * (i * rows + (k + 1) * columns + time)) for k in range(c)])
        for i in range(b * views)
    ]
    pixels = 127.5 + 127.5 * torch.stack(videos)
    return pixels.to(torch.uint8).unflatten(0, (b, views))
