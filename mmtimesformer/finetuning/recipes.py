"""Choose what is trained, for how long and with how much augmentation, from the size of the data.

=============  ================================================================================
recipe         what is trained
=============  ================================================================================
``probe``      a classifier on frozen features: below :data:`PROBE_BELOW` training videos
``last-blocks``  the last :data:`LAST_BLOCKS` blocks and the classifier: below :data:`FULL_FROM`
``full``       the whole model
=============  ================================================================================

Without pretrained weights the whole model is trained: random features are of no use frozen.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from mmtimesformer.engine.class_balance import IMBALANCED
from mmtimesformer.fileio.free_memory import available_memory

PROBE, LAST_BLOCKS_RECIPE, FULL = RECIPES = ('probe', 'last-blocks', 'full')
PROBE_BELOW = 300  # training videos
FULL_FROM = 2000
LAST_BLOCKS = 4
PATIENCE = 5  # validations without improvement, of about ten of a training
#: Steps for an average of the weights (EMA), and videos for mixup, to be of use.
EMA_STEPS, MIXUP_VIDEOS = 2000, 5000
# Bytes that a training step keeps for each token, channel and layer, in float32. Measured on a CPU:
# 1,409 MiB for a clip of 8 x 224 x 224 in a TimeSformer-B (1,569 tokens, 768 channels, 12 layers).
BYTES_KEPT = 102
BYTES_OF_WEIGHT = 16  # of float32: itself, its gradient, and two averages of AdamW
SHARE = 0.8  # of the free memory that a training may take
DIRECTIONS = {
    *('left', 'right', 'leftward', 'rightward', 'leftwards', 'rightwards', 'clockwise'),
    *('counterclockwise', 'anticlockwise', 'east', 'west', 'eastbound', 'westbound'),
}


@dataclass
class Start:
    """The model that a training starts from.

    Attributes:
        model: Config of the recognizer; its head is replaced.
        test_pipeline: From a video to its views.
        name: In words.
        load_from: Checkpoint with its weights; ``None`` for newly initialized ones.
        interval: Frames from one sampled frame to the next; ``None`` for one frame a segment.
        notes: Sentences for the user.
    """

    model: dict[str, Any]
    test_pipeline: list[dict[str, Any]]
    name: str
    load_from: str | None = None
    interval: int | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return int(self.model['backbone'].get('num_layers', 12))

    def tokens(self) -> int:
        """Number of tokens of a clip."""
        backbone = self.model['backbone']
        size = backbone.get('img_size', 224)
        height, width = (size, size) if isinstance(size, int) else size
        patch = backbone.get('patch_size', 16)
        return 1 + backbone.get('num_frames', 8) * (height // patch) * (width // patch)

    def bytes_of_clip(self, trained_blocks: int) -> int:
        """Bytes that a training step keeps for a clip, about."""
        width = self.model['backbone'].get('embed_dims', 768)
        return BYTES_KEPT * self.tokens() * width * max(1, trained_blocks)

    def bytes_of_weights(self, trained_blocks: int) -> int:
        """Bytes of weights, gradients and averages, about: 16 width² for each divided block."""
        width = self.model['backbone'].get('embed_dims', 768)
        frozen = self.depth - trained_blocks
        return 16 * width**2 * (BYTES_OF_WEIGHT * trained_blocks + 4 * frozen)


@dataclass
class TrainingPlan:
    """How a model is trained.

    Attributes:
        kind: One of :data:`RECIPES`.
        why: The reason, in words.
        frozen: Blocks that are not trained, and with any the embeddings; -1 for none.
        batch_size: Videos that a step sees at a time.
        accumulate: Batches for each step of the optimizer.
        epochs: Of the training.
        lr: Of the optimizer.
        flip: Fraction of clips that are mirrored.
        mixup: Whether clips are mixed.
        ema: Whether an average of the weights is validated and kept.
        notes: Sentences for the user.
        balanced: Why every class is drawn equally often (or weighs equally, in a probe); ``''`` if
            it does not.
        patience: Validations without improvement that end the training; ``None`` for no such end.
    """

    kind: str
    why: str
    frozen: int
    batch_size: int
    accumulate: int
    epochs: int
    lr: float
    flip: float
    mixup: bool
    ema: bool
    notes: list[str] = field(default_factory=list)
    balanced: str = ''
    patience: int | None = None


def free_memory() -> tuple[int, str]:
    """Return the free bytes of the first GPU, else of the machine, and which it is."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0], 'GPU memory'
    free = available_memory()
    return (8 << 30, 'memory (assumed)') if free is None else (free, 'memory')


def choose(
    start: Start,
    num_train: int,
    classes: list[str],
    *,
    counts: Mapping[str, int] | None = None,
    multi_label: bool = False,
    recipe: str | None = None,
    freeze: int | None = None,
    flip: bool | None = None,
    epochs: int | None = None,
    memory: int | None = None,
) -> TrainingPlan:
    """Choose a recipe.

    Args:
        start: The model.
        num_train: Training videos.
        classes: Their names.
        counts: Training videos of each class that has any.
        multi_label: Whether a video may have several labels.
        recipe: One of :data:`RECIPES`, instead of the choice by size.
        freeze: Number of blocks to freeze, instead of the recipe's.
        flip: Whether to mirror half of the clips; if not given, unless a class name has a word of
            direction.
        epochs: Instead of the choice by size.
        memory: Free bytes; if not given, those there are.

    Raises:
        ValueError: The recipe cannot be used, or no clip fits into the memory.
    """
    kind, why = _kind(start, num_train, recipe)
    where = 'given'
    if memory is None:
        memory, where = free_memory()
    frozen = _frozen(start, kind, freeze)
    most = 16 if start.load_from is None else 8
    batch = _batch_size(start, frozen, memory, most, num_train)
    notes = []
    if batch < 1 and recipe is None and freeze is None and kind == FULL and start.load_from:
        kind, why = LAST_BLOCKS_RECIPE, f'a clip of the whole model needs more than {_gib(memory)}'
        frozen = _frozen(start, kind, None)
        batch = _batch_size(start, frozen, memory, most, num_train)
    if batch < 1:
        raise ValueError(
            f'a training step of one clip needs about '
            f'{_gib(start.bytes_of_clip(start.depth - max(frozen, 0)))} and there are '
            f'{_gib(memory)} ({where}); set --freeze to more blocks, or --recipe probe'
        )
    target = max(batch, min(most, num_train))
    accumulate = max(1, target // batch)
    steps = max(1, num_train // (batch * accumulate))
    if epochs is None:
        epochs = _epochs(steps, start.load_from is None)
    mirrored, reason = _flip(classes, flip)
    notes.append(reason)
    mixup = kind == FULL and num_train >= MIXUP_VIDEOS and not multi_label
    ema = kind != PROBE and start.load_from is not None and steps * epochs >= EMA_STEPS
    notes.append(
        f'mixup {"on" if mixup else "off"} (on for the whole model from {MIXUP_VIDEOS:,} videos '
        f'of one label each), average of weights (EMA) {"on" if ema else "off"} (on for pretrained '
        f'models from {EMA_STEPS:,} steps; here {steps * epochs:,})'
    )
    balanced = _balance(kind, counts or {})
    patience = _patience(start, kind, num_train)
    if patience:
        notes.append(
            f'early stopping after {patience} validations without improvement (pretrained weights '
            f'on fewer than {FULL_FROM:,} videos); the best checkpoint is kept'
        )
    lr = 7e-4 if start.load_from is None else 2.5e-4
    return TrainingPlan(
        kind,
        why,
        frozen,
        batch,
        accumulate,
        epochs,
        lr,
        mirrored,
        mixup,
        ema,
        notes,
        balanced,
        patience,
    )


def _kind(start: Start, num_train: int, recipe: str | None) -> tuple[str, str]:
    if start.load_from is None:
        if recipe not in (None, FULL):
            raise ValueError(
                f'--recipe {recipe} freezes weights, and without --pretrained they are random; '
                'give --pretrained CHECKPOINT, or --recipe full'
            )
        return FULL, 'without pretrained weights everything is trained'
    if recipe is not None:
        return recipe, 'as given by --recipe'
    videos = f'{num_train:,} training videos'
    if num_train < PROBE_BELOW:
        return PROBE, f'{videos} are fewer than {PROBE_BELOW}'
    if num_train < FULL_FROM:
        return LAST_BLOCKS_RECIPE, f'{videos} are from {PROBE_BELOW} to {FULL_FROM:,}'
    return FULL, f'{videos} are {FULL_FROM:,} or more'


def _frozen(start: Start, kind: str, freeze: int | None) -> int:
    if freeze is not None:
        if start.load_from is None and freeze > 0:
            raise ValueError(
                f'--freeze {freeze} freezes random weights; give --pretrained CHECKPOINT'
            )
        if freeze > start.depth:
            raise ValueError(
                f'--freeze {freeze} is more than the {start.depth} blocks of the model; set it to '
                f'{start.depth} at most'
            )
        return freeze or -1
    if kind == PROBE:
        return start.depth
    return max(start.depth - LAST_BLOCKS, 0) or -1 if kind == LAST_BLOCKS_RECIPE else -1


def _batch_size(start: Start, frozen: int, memory: int, most: int, num_train: int) -> int:
    """Return the largest power of two of clips that fits; 0 if none does."""
    trained = start.depth - max(frozen, 0)
    left = SHARE * memory - start.bytes_of_weights(trained)
    fitting = int(left // start.bytes_of_clip(trained))
    fitting = min(fitting, most, max(1, num_train // 2))
    return 2 ** int(math.log2(fitting)) if fitting >= 1 else 0


def _epochs(steps: int, from_scratch: bool) -> int:
    """Return how many epochs give 3,000 steps from scratch, 1,000 from pretrained weights."""
    least, most, wanted = (20, 400, 3000) if from_scratch else (20, 60, 1000)
    return min(max(math.ceil(wanted / steps), least), most)


def _flip(classes: list[str], flip: bool | None) -> tuple[float, str]:
    if flip is not None:
        return 0.5 * flip, f'mirrored clips {"on" if flip else "off"}, as given by --flip'
    for name in classes:
        words = re.findall(r'[a-z]+', name.lower().replace('counter-', 'counter'))
        if found := sorted(DIRECTIONS.intersection(words)):
            return 0.0, f'mirrored clips off: class {name!r} has the word {found[0]!r} (--flip on)'
    return 0.5, 'mirrored clips on: no class name has a word of direction (--flip off)'


def _balance(kind: str, counts: Mapping[str, int]) -> str:
    """Return why classes are balanced, and how; ``''`` if they are not."""
    if len(counts) < 2:
        return ''
    largest, smallest = (find(counts, key=counts.__getitem__) for find in (max, min))
    if counts[largest] < IMBALANCED * counts[smallest]:
        return ''
    return (
        f'{"class weights" if kind == PROBE else "balanced sampler"}: {largest!r} has '
        f'{counts[largest]:,} training videos, {IMBALANCED} times or more those of {smallest!r} '
        f'({counts[smallest]:,})'
    )


def _patience(start: Start, kind: str, num_train: int) -> int | None:
    small = start.load_from is not None and kind != PROBE and num_train < FULL_FROM
    return PATIENCE if small else None


def _gib(number: float) -> str:
    return f'{number / 2**30:.1f} GiB'
