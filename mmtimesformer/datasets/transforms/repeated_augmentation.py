"""Several clips of a video from one decoding: decoding is what training waits for.

Most of the time of loading a clip is spent on frames between those of the clip. A second clip of
the same video finds nearly all of them decoded, so that four clips cost little more than one. As
each is cut out at its own time and place, they are four samples; known as *repeated augmentation*
(Hoffer et al., CVPR 2020).

For what it changes in training see :mod:`mmtimesformer.engine.loops.clips_per_video`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mmengine.dataset import pseudo_collate
from mmengine.registry import TRANSFORMS as ALL_TRANSFORMS

from mmtimesformer.datasets.transforms.transform import Transform
from mmtimesformer.registry import FUNCTIONS, TRANSFORMS

Results = dict[str, Any]


@TRANSFORMS.register_module()
class RepeatClips(Transform):
    """Run a pipeline for several clips of a video, decoding once.

    The video is opened once, by the transforms up to one named ``...Init``. What follows up to one
    named ``...Decode`` chooses frames, once for each clip. Then all chosen frames are decoded, each
    once and in order, and the rest of the pipeline is run on each clip. So each has its own random
    numbers, and is what the pipeline alone would give with them.

    It returns a list, which :func:`collate_clips` spreads over the batch.

    Args:
        clips_per_video: How many clips; 1 gives a list of one.
        transforms: The pipeline, from opening a video to packing.

    Raises:
        ValueError: There is no clip to be taken, or no transform decodes.
    """

    def __init__(
        self, clips_per_video: int, transforms: Sequence[dict[str, Any] | Callable[..., Any]]
    ) -> None:
        if not isinstance(clips_per_video, int) or clips_per_video < 1:
            raise ValueError(
                f'clips_per_video={clips_per_video!r} is not a positive whole number; set it'
            )
        self.clips_per_video = clips_per_video
        self.transforms: list[Any] = [
            ALL_TRANSFORMS.build(step) if isinstance(step, dict) else step for step in transforms
        ]
        names = [type(step).__name__ for step in self.transforms]
        self._decode = next((i for i, name in enumerate(names) if name.endswith('Decode')), 0)
        if not names or not names[self._decode].endswith('Decode'):
            raise ValueError(
                f'clips_per_video={clips_per_video} needs a pipeline with a transform that decodes '
                f'(VideoDecode, DecordDecode, …); it has {", ".join(names) or "none"}'
            )
        self._init = max(
            (i for i, name in enumerate(names[: self._decode]) if name.endswith('Init')),
            default=-1,
        )

    def transform(self, results: Results) -> Any:
        """Return a list of clips; ``None`` if a transform gives nothing."""
        opened = _run(self.transforms[: self._init + 1], results)
        clips = [
            _run(self.transforms[self._init + 1 : self._decode], opened and dict(opened))
            for _ in range(self.clips_per_video)
        ]
        clips = self._decode_together(clips) if all(clips) else [None]
        clips = [_run(self.transforms[self._decode + 1 :], clip) for clip in clips]
        return None if any(clip is None for clip in clips) else clips

    def _decode_together(self, clips: list[Results]) -> list[Results | None]:
        """Decode the frames of all clips, each frame once and in order."""
        wanted = [np.asarray(clip['frame_inds']).reshape(-1) for clip in clips]
        frames, places = np.unique(np.concatenate(wanted), return_inverse=True)
        before = clips[0]
        together = _run([self.transforms[self._decode]], {**before, 'frame_inds': frames})
        if together is None:
            return [None]
        gained = {key: value for key, value in together.items() if key not in before}
        images, given = gained.pop('imgs'), set()
        each: list[Results | None] = []
        for clip, part in zip(clips, np.split(places, len(clips)), strict=True):
            mine = []
            for place in part.tolist():  # a frame in two clips is changed by each of them
                mine.append(images[place].copy() if place in given else images[place])
                given.add(place)
            kept = {key: value for key, value in clip.items() if key in together}
            each.append({**kept, **gained, 'imgs': mine})
        return each


@FUNCTIONS.register_module()
def collate_clips(
    batch: Sequence[Any], collate: Callable[[list[Any]], Any] = pseudo_collate
) -> Any:
    """Make a batch of the clips of several videos, those of a video side by side.

    Args:
        batch: For each video its clips, or one clip.
        collate: What makes a batch of clips.
    """
    videos = (video if isinstance(video, list) else [video] for video in batch)
    return collate([clip for video in videos for clip in video])


def _run(transforms: Sequence[Any], results: Results | None) -> Any:
    """Apply transforms one after the other until one gives nothing."""
    for transform in transforms:
        if results is None:
            return None
        results = transform(results)
    return results
