"""Data set of videos that are folders of JPG or PNG frames, by MMAction2's or the official lists.

Samples, corrupt videos and transforms are those of our ``VideoDataset``: a missing or damaged frame
makes a video unreadable, and never ends a run.
"""

from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from mmtimesformer.datasets.frame_lists import (
    FORMATS,
    ListedFrames,
    read_frame_list,
    read_ssv2_frames,
)
from mmtimesformer.datasets.transforms.decoding import Video, VideoInit, openers
from mmtimesformer.datasets.video_dataset import VideoDataset
from mmtimesformer.datasets.video_io.errors import UnreadableVideo
from mmtimesformer.datasets.video_io.frame_folder import ASSUMED_FPS, FrameNames
from mmtimesformer.registry import DATASETS


@DATASETS.register_module()
class FrameFolderDataset(VideoDataset):
    """Our :class:`VideoDataset` for folders of frames; a list may also name video files.

    Three kinds of lists:

    - MMAction2's rawframes, ``folder total_frames label`` a line. A folder must hold that many;
    - plain ones, ``folder label`` a line;
    - those of the official loader for Something-Something-V2: ``ann_file`` is
      ``something-something-v2-train.json``, with ``label_file`` and ``frame_list``.

    The pipeline begins with ``mmtimesformer.VideoInit``; samplers count frames from 0, whatever
    the first file's number.

    Args:
        ann_file: The list.
        pipeline: Transforms.
        data_prefix: ``video`` is the folder that names in the list are relative to (``img``, as in
            MMAction2's ``RawframeDataset``, means the same).
        filename_tmpl: Name of a frame by its number, such as ``'img_{:05}.jpg'``; other files are
            ignored. Empty if the folders hold frames alone, of any numbering.
        start_index: Number of the first frame; ``None`` for 0 or 1, as found.
        list_format: ``'rawframes'``, ``'plain'`` or ``'auto'``, by the number of columns.
        label_file: ``something-something-v2-labels.json``.
        frame_list: ``train.csv`` or ``val.csv`` of the official loader: a row for each frame.
        fps: Frames per second; ``None`` for 30. Samplers that count seconds use it.
        kwargs: As in ``VideoDataset``, such as ``num_targets``: numbers in the place of the label.

    Raises:
        FileNotFoundError: A list does not exist.
        ValueError: A list is wrong, an argument is out of range, or the pipeline opens videos in
            another way.
    """

    file_keys = ('filename', 'frames')

    def __init__(
        self,
        ann_file: str,
        pipeline: list[Any],
        data_prefix: dict[str, str] = {'video': ''},  # noqa: B006 (MMEngine copies it)
        filename_tmpl: str = '',
        start_index: int | None = None,
        list_format: str = 'auto',
        label_file: str = '',
        frame_list: str = '',
        fps: float | None = None,
        **kwargs: Any,
    ) -> None:
        if list_format not in FORMATS:
            raise ValueError(
                f'list_format={list_format!r} is not known; set it to one of {", ".join(FORMATS)}'
            )
        if fps is not None and not fps > 0:
            raise ValueError(f'fps={fps} is not positive; set fps, or None for {ASSUMED_FPS:g}')
        if bool(label_file) != bool(frame_list):
            raise ValueError(
                'label_file and frame_list belong together (the official lists of '
                'Something-Something-V2); set both or none'
            )
        if frame_list and kwargs.get('num_targets') is not None:
            raise ValueError(
                f'num_targets={kwargs["num_targets"]} is for numbers and frame_list gives classes; '
                'remove one of the two'
            )
        self.names = FrameNames(filename_tmpl, start_index)
        self.list_format, self.fps = list_format, fps
        self.label_file, self.frame_list = label_file, frame_list
        super().__init__(ann_file, pipeline, _as_video_prefix(data_prefix), **kwargs)
        found = set(openers(self.pipeline.transforms))
        if self.pipeline.transforms and found != {VideoInit.__name__}:
            raise ValueError(
                f'the pipeline opens videos by {", ".join(found) or "nothing"}; begin it with '
                'mmtimesformer.VideoInit, and decode by mmtimesformer.VideoDecode'
            )

    def listed(self) -> list[ListedFrames]:
        """Read the list.

        Raises:
            FileNotFoundError: A file does not exist.
            ValueError: It is wrong.
        """
        path = Path(self.ann_file)
        if self.frame_list:
            root = Path(self.data_root or '')
            return read_ssv2_frames(path, root / self.label_file, root / self.frame_list)
        absolute = not self.data_prefix.get('video')
        return read_frame_list(
            path,
            self.list_format,
            self.delimiter,
            self.names,
            self.multi_class,
            absolute,
            self.num_targets,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the list."""
        if self.fps is None:
            print_log(
                f'{self.ann_file}: folders of frames have no frame rate, {ASSUMED_FPS:g} frames '
                'per second are assumed; set fps of the data set',
                logger='current',
            )
        return [self._info(one) for one in self.listed()]

    def fault_of(self, one: ListedFrames) -> str:
        """Return why the frames of a listed video cannot be found; ``''`` if they can.

        Nothing is decoded; of a list of files the first and the last are looked up.
        """
        info = self._info(one)
        try:
            video = Video(info['filename'], frames=info['frames'], fps=self.fps)
        except UnreadableVideo as error:
            return f'{info["filename"]}: {error.reason}'
        if isinstance(one.frames, FrameNames):
            return ''
        ends = (video.path / one.frames[i] for i in (0, -1))
        return next((f'{path}: it does not exist' for path in ends if not path.exists()), '')

    def _info(self, one: ListedFrames) -> dict[str, Any]:
        root = Path(self.data_prefix.get('video') or '')
        is_list = self.multi_class or self.num_targets is not None
        label: Any = one.labels if is_list else (one.labels or [-1])[0]
        filename = str(root / one.name)
        return {'filename': filename, 'label': label, 'frames': one.frames, 'fps': self.fps}


def _as_video_prefix(prefix: dict[str, str]) -> dict[str, str]:
    """Rename ``img``, as MMAction2's ``RawframeDataset`` calls the folder."""
    if 'img' in prefix and 'video' not in prefix:
        return {'video' if key == 'img' else key: value for key, value in prefix.items()}
    return dict(prefix)
