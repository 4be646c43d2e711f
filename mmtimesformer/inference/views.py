"""Turn a video into the views of a model, by its config's test pipeline.

The pipeline has four parts: open the file, choose frames, decode them, resize and crop. Arrays of
frames skip the first part; arrays and windows of a long video skip the third.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmaction.registry import TRANSFORMS

from mmtimesformer.datasets.video_dataset import OTHER_READERS
from mmtimesformer.datasets.video_io.safe_open import check_for_other_reader
from mmtimesformer.inference.inputs import ArrayForm, Given, check_exists

START = {'label': -1, 'start_index': 0, 'modality': 'RGB'}  # as MMAction2's data sets begin


class Views:
    """The views of a video.

    Args:
        pipeline: The configs of the steps.

    Raises:
        ValueError: No step opens a video, or none decodes it.
    """

    def __init__(self, pipeline: Sequence[Mapping[str, Any]]) -> None:
        names = [str(step['type']).rpartition('.')[2] for step in pipeline]
        opens = [i for i, name in enumerate(names) if name.endswith('Init')]
        decodes = [i for i, name in enumerate(names) if name.endswith('Decode')]
        if not opens or not decodes or opens[0] > decodes[0]:
            raise ValueError(
                f'the test pipeline ({", ".join(names)}) does not open and decode a video; begin '
                'it with mmtimesformer.VideoInit, a sampler, and mmtimesformer.VideoDecode'
            )
        self.form = _form_of(pipeline)
        steps = [TRANSFORMS.build(dict(step)) for step in pipeline]
        self._open = steps[: opens[0] + 1]
        self._choose = steps[opens[0] + 1 : decodes[0]]
        self._decode = steps[decodes[0]]
        self._show = steps[decodes[0] + 1 :]
        # Frames that are given have the channels of the second file already
        self._show_given = [step for step in self._show if type(step).__name__ != 'AppendChannels']

    def of(self, given: Given, fps: float | None = None) -> dict[str, Any]:
        """Return the views of a video, see :meth:`of_file` and :meth:`of_array`."""
        if given.frames is not None:
            return self.of_array(given.frames, fps)
        assert given.path is not None
        check_exists(given.path, given.name)
        return self.of_file(given.path, fps)

    def of_file(self, path: Path, fps: float | None = None) -> dict[str, Any]:
        """Return the views of a file or a folder of frames, packed as the model takes them.

        Args:
            path: The file or folder.
            fps: Frames per second of a folder; a file has its own.
        """
        if type(self._open[-1]).__name__ in OTHER_READERS:
            check_for_other_reader(path)
        results = {**START, 'filename': str(path), 'fps': fps}
        return _through([*self._open, *self._choose, self._decode, *self._show], results)

    def of_array(self, frames: np.ndarray, fps: float | None = None) -> dict[str, Any]:
        """Return the views of decoded frames; samplers that count seconds need ``fps``.

        Shape:
            - frames: ``t H W c``, in the form of :attr:`form`
        """
        chosen = self.choose(len(frames), fps)
        return self.of_chosen(chosen, {i: frames[i] for i in frame_numbers(chosen)})

    def choose(self, length: int, fps: float | None = None) -> dict[str, Any]:
        """Choose the frames of a video of so many frames; nothing is decoded."""
        speed = {'avg_fps': fps} if fps else {}
        return _through(self._choose, {**START, 'filename': '', 'total_frames': length, **speed})

    def of_chosen(self, chosen: Mapping[str, Any], frames: Mapping[int, Any]) -> dict[str, Any]:
        """Return the views of frames that :meth:`choose` chose, given by number.

        Raises:
            ValueError: They have other channels than the pipeline opens.
        """
        results = dict(chosen)
        indices = np.asarray(results['frame_inds']).reshape(-1)
        results['imgs'] = [np.ascontiguousarray(frames[int(i)]) for i in indices]
        found = results['imgs'][0].shape[-1]
        if found != self.form.channels:
            raise ValueError(
                f'its frames have {found} channels and test_pipeline gives {self.form.channels}; '
                'sliding windows take no second file (AppendChannels)'
            )
        results['original_shape'] = results['img_shape'] = results['imgs'][0].shape[:2]
        return _through(self._show_given, results)


def _form_of(pipeline: Sequence[Mapping[str, Any]]) -> ArrayForm:
    """Return the form of arrays that may take the place of the files of a pipeline."""
    channels, floats = 3, False
    for step in pipeline:
        name = str(step['type']).rpartition('.')[2]
        if name == 'ArrayInit':
            channels, floats = step['channels'], True
        elif name == 'AppendChannels':
            channels += step.get('channels', 1)
    return ArrayForm(channels, floats)


def frame_numbers(chosen: Mapping[str, Any]) -> list[int]:
    """Return the numbers of the frames that were chosen, each once, in order."""
    return sorted({int(i) for i in np.asarray(chosen['frame_inds']).reshape(-1)})


def _through(steps: Sequence[Any], results: dict[str, Any]) -> dict[str, Any]:
    for step in steps:
        results = step(results)
    return results
