"""The exported module: clips of a fixed shape to class scores."""

import copy
from typing import Any

import numpy as np
from einops import rearrange, reduce
from mmaction.models.heads import TimeSformerHead  # noqa: TID251  (ours is one, too)
from torch import Tensor, nn

from mmtimesformer.heads import AttentiveHead
from mmtimesformer.inference import VideoClassifier
from mmtimesformer.models import TimeSformer
from mmtimesformer.resize import resize_positions, resize_times

OUTPUTS = ('logits', 'probabilities', 'fused')


def clip_shape(classifier: VideoClassifier) -> tuple[int, int, int, int, int]:
    """Return ``views c t H W`` of a video in the config's test.

    Raises:
        ValueError: It depends on the video, so that no fixed shape fits.
    """
    shapes = {}
    for height, width in ((240, 320), (320, 240)):
        # A broadcast video needs no memory.
        frames = np.broadcast_to(np.uint8(0), (300, height, width, classifier.views.form.channels))
        shapes[height, width] = tuple(classifier.views.of_array(frames, fps=30)['inputs'].shape)
    landscape, portrait = shapes.values()
    if landscape != portrait:
        raise ValueError(
            f'the test pipeline of {classifier.inference_config.name} makes clips of '
            f'{landscape[-2:]} pixels of a landscape video and {portrait[-2:]} of a portrait one, '
            'and a file holds one shape; add CenterCrop or ThreeCrop to test_pipeline'
        )
    views, c, t, height, width = landscape
    return views, c, t, height, width


class ClipScores(nn.Module):
    """The backbone and the classifier of a trained recognizer, for clips of one shape.

    It is a copy. Its embeddings are resized here, once, so that no resize is left in the file.

    Args:
        classifier: The trained model.
        shape: ``views c t H W``.
        output: ``'logits'`` or ``'probabilities'`` (softmax; sigmoid of a multi-label model) of
            each clip, or ``'fused'``: the scores of a video from all its views, as in the test.
        with_preprocessing: Take pixels as they come out of a video, RGB of uint8, and normalise
            them inside.

    Shape:
        - video: ``b c t H W``, or ``b views c t H W`` for ``'fused'`` -> ``b classes``

    Raises:
        TypeError: The model is no TimeSformer under a classifier.
        ValueError: The classifier was not trained, or pixels of any range cannot be of uint8.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        classifier: VideoClassifier,
        shape: tuple[int, int, int, int, int],
        output: str = 'logits',
        with_preprocessing: bool = False,
    ) -> None:
        super().__init__()
        assert output in OUTPUTS
        classifier.need_exact('a model to export')
        _check(classifier)
        if with_preprocessing and classifier.views.form.floats:
            raise ValueError(
                'with_preprocessing takes pixels of uint8, and array files (ArrayInit) have any '
                'numbers; export without it, and normalise as the metadata of the file states'
            )
        model = classifier.model
        self.views, _, t, height, width = shape
        self.output = output
        self.temperature = classifier.temperature
        self.fusion = model.cls_head.average_clips or 'prob'
        self.multi_label = classifier.is_multi_label
        self.backbone = _built_for(model.backbone, t, height, width)
        self.head = copy.deepcopy(model.cls_head)
        self.with_preprocessing = with_preprocessing
        self.swap_colours = with_preprocessing and model.data_preprocessor.to_rgb
        mean, std = normalisation(model)
        self.register_buffer('mean', mean.clone())
        self.register_buffer('std', std.clone())
        self.eval().cpu().requires_grad_(False)

    def forward(self, video: Tensor) -> Tensor:
        if self.output == 'fused':
            video = rearrange(video, 'b views c t H W -> (b views) c t H W')
        if self.with_preprocessing:
            video = self.normalise(video)
        logits = self.head(self.backbone(video))
        if self.output == 'logits':
            return logits
        logits = logits / self.temperature
        if self.output == 'fused' and self.fusion not in ('prob', 'sigmoid'):
            how = 'sum' if self.fusion == 'sum' else 'mean'
            return reduce(logits, '(b views) classes -> b classes', how, views=self.views)
        sigmoids = self.fusion == 'sigmoid' or (self.multi_label and self.output != 'fused')
        probabilities = logits.sigmoid() if sigmoids else logits.softmax(-1)
        if self.output == 'probabilities':
            return probabilities
        return reduce(probabilities, '(b views) classes -> b classes', 'mean', views=self.views)

    def normalise(self, video: Tensor) -> Tensor:
        """Normalise as the recognizer's data preprocessor does.

        Shape:
            - video: ``b c t H W``, RGB of uint8 -> the same of float32, as the backbone takes it
        """
        if self.swap_colours:
            video = video.flip(1)
        return (video.float() - self.mean) / self.std


def normalisation(model: Any) -> tuple[Tensor, Tensor]:
    """Return mean and std of pixels from 0 to 255, in the order of the model's colours.

    Shape:
        - both: ``c 1 1 1``
    """
    preprocessor = model.data_preprocessor
    if getattr(preprocessor, 'mean', None) is None:
        raise ValueError(
            'model.data_preprocessor has no mean and std, so a file could not state how its clips '
            'are normalised; set both (mean=[0, 0, 0], std=[1, 1, 1] change nothing)'
        )
    return preprocessor.mean.cpu(), preprocessor.std.cpu()


def _built_for(backbone: TimeSformer, t: int, height: int, width: int) -> TimeSformer:
    """Return a copy of the backbone whose embeddings have exactly the size of the clip."""
    built = copy.deepcopy(backbone).requires_grad_(False)
    grid = height // built.patch_size, width // built.patch_size
    built.pos_embed = nn.Parameter(resize_positions(built.pos_embed, built.grid, grid), False)
    built.grid = grid
    if built.time_embed is not None:
        built.time_embed = nn.Parameter(resize_times(built.time_embed, t), False)
    return built


def _check(classifier: VideoClassifier) -> None:
    model = classifier.model
    backbone, head = getattr(model, 'backbone', None), getattr(model, 'cls_head', None)
    neck = getattr(model, 'neck', None)
    if not isinstance(backbone, TimeSformer) or not isinstance(head, TimeSformerHead) or neck:
        raise TypeError(
            f'{classifier.inference_config.name} has a {type(backbone).__name__} with '
            f'{"a neck and " if neck else ""}a {type(head).__name__}; exported are '
            'mmtimesformer.TimeSformer and TimeSformerHead, without a neck'
        )
    is_attentive = isinstance(head, AttentiveHead)
    if is_attentive and backbone.out_type != 'tokens':
        raise ValueError(
            f'backbone.out_type={backbone.out_type!r} leaves no tokens for an AttentiveHead; set '
            "it to 'tokens'"
        )
    if not is_attentive and backbone.out_type != 'cls_token':
        raise ValueError(
            f'backbone.out_type={backbone.out_type!r} leaves no class token for a classifier; set '
            "it to 'cls_token'"
        )
    if missing := classifier.load_report.keys('newly initialized'):
        raise ValueError(
            f'checkpoint {classifier.checkpoint} has no weights for {", ".join(missing)}, so the '
            'labels of the file would mean nothing; give the config that it was trained with'
        )
