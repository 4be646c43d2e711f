"""Frames become the array that a model is given."""

from typing import Any

import cv2
import numpy as np

from mmtimesformer.datasets.transforms.transform import Transform
from mmtimesformer.registry import TRANSFORMS


@TRANSFORMS.register_module()
class FormatClips(Transform):
    """Put the frames of clips into one array, channels first.

    The array is that of MMAction2's ``FormatShape(input_format='NCTHW')``, in another order in
    memory: planes of one colour lie together, where ``FormatShape`` gives a view of frames whose
    colours alternate. The channels are separated here, by vector instructions; else that is done
    element by element when a batch is stacked, in the process that trains.

    Required keys: ``imgs``, ``num_clips``, ``clip_len``. Changed and added keys: ``imgs``,
    ``input_shape``.

    Shape:
        - imgs: a list of ``H W c``, crop by crop, clip by clip -> ``(crops clips) c t H W``

    Raises:
        ValueError: Frames have different sizes, or do not fill clips.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        frames, clip_len = results['imgs'], results['clip_len']
        sizes = {frame.shape for frame in frames}
        if len(sizes) > 1:
            raise ValueError(
                f'frames of {" and ".join(map(str, sorted(sizes)))} make no clip; end the '
                'transforms of the pipeline with a crop or a resize to one size'
            )
        if len(frames) % (clip_len * results['num_clips']):
            raise ValueError(
                f'{len(frames)} frames do not make up clips of {clip_len}, '
                f'{results["num_clips"]} for each crop'
            )
        height, width, channels = sizes.pop()
        views = len(frames) // clip_len
        clips = np.empty((views, channels, clip_len, height, width), frames[0].dtype)
        for i, frame in enumerate(frames):
            # cv2 writes into the planes that it is given if they are of the right kind.
            cv2.split(frame, list(clips[i // clip_len, :, i % clip_len]))
        results['imgs'] = clips
        results['input_shape'] = clips.shape
        return results
