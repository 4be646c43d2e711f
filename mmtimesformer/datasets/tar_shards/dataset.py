"""Video data set that reads tar shards: same samples, same order as from single files."""

from collections.abc import Sequence
from typing import Any

import mmtimesformer.datasets.frame_folder_dataset  # noqa: F401 (registers it with this one)
from mmtimesformer.datasets.tar_shards.index import DamagedTarShardError, TarShards, parse_index
from mmtimesformer.datasets.tar_shards.object_store import FsspecBackend
from mmtimesformer.datasets.transforms.decoding import VideoInit, openers
from mmtimesformer.datasets.video_dataset import VideoDataset
from mmtimesformer.datasets.video_io.errors import UnreadableVideo
from mmtimesformer.fileio.storage_error import PATIENCE
from mmtimesformer.registry import DATASETS


@DATASETS.register_module()
class TarShardVideoDataset(VideoDataset):
    """Our :class:`VideoDataset`, whose videos lie in tar shards, see :mod:`.index`.

    The pipeline begins with ``mmtimesformer.VideoInit``. A corrupt video is handled as in
    ``VideoDataset``; a tar shard that cannot be read ends the run.

    Args:
        ann_file: The index: a path, or a URL of any store that fsspec supports.
        pipeline: Transforms.
        data_prefix: ``video`` is the folder of the tar shards, a path or a URL; if empty, that of
            the index.
        storage_options: Options of the store, passed to fsspec.
        patience: Seconds for which reading may fail before the run ends.

    Raises:
        DamagedTarShardError: The index is damaged, or a local tar shard is missing.
        StorageError: The index cannot be read.
        ValueError: The pipeline opens videos in another way.
    """

    file_keys = ('filename', 'member')

    def __init__(
        self,
        ann_file: str,
        pipeline: list[Any],
        data_prefix: dict[str, str] = {'video': ''},  # noqa: B006 (MMEngine copies it)
        storage_options: dict[str, Any] | None = None,
        patience: float = PATIENCE,
        **kwargs: Any,
    ) -> None:
        self.backend = FsspecBackend(patience, **(storage_options or {}))
        super().__init__(ann_file, pipeline, data_prefix, **kwargs)
        for name in openers(self.pipeline.transforms):
            if name != VideoInit.__name__:
                raise ValueError(
                    f'{name} in the pipeline opens files and cannot read tar shards; use '
                    'mmtimesformer.VideoInit and mmtimesformer.VideoDecode'
                )

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the index."""
        try:
            text = self.backend.get_text(self.ann_file)
        except UnicodeDecodeError:
            raise DamagedTarShardError(
                f'the index {self.ann_file} is not text; copy it again'
            ) from None
        entries = parse_index(text, self.ann_file)
        folder = self.data_prefix.get('video') or self.ann_file.rpartition('/')[0]
        self.shards = TarShards(folder, self.backend)
        self.shards.check(entry.member for entry in entries if entry.member)
        videos = []
        for member, name, labels in entries:
            if len(labels) > 1 and not self.multi_class:
                raise ValueError(
                    f'{self.ann_file}: {name} has {len(labels)} labels; set multi_class=True and '
                    'num_classes of the data set'
                )
            if self.multi_class:
                self._check_row(name, labels)
            label = list(labels) if self.multi_class else labels[0] if labels else -1
            # as if the tar shard were a folder
            place = self.shards.path_of(member.shard) if member else self.shards.folder
            filename = f'{place}/{name}'
            videos.append({'filename': filename, 'label': label, 'member': member})
        return videos

    def _check_row(self, name: str, labels: tuple[int, ...]) -> None:
        """Refuse labels that do not fit a multi-hot row, where -1 would be the last class.

        Raises:
            ValueError: ``num_classes`` is not set, or a label is not below it.
        """
        if self.num_classes is None:
            raise ValueError(
                'multi_class=True and num_classes is not set, so the length of the multi-hot rows '
                'is unknown; set num_classes of the data set'
            )
        for label in labels:
            if not 0 <= label < self.num_classes:
                raise ValueError(
                    f'{self.ann_file}: {name} has label {label}, which is not in '
                    f'0..{self.num_classes - 1}; correct the list that the tar shards were written '
                    'from, or set num_classes of the data set'
                )

    def local_folder(self) -> None:
        """Return ``None``: :class:`.index.TarShards` waits for its folder."""

    def load(self, info: dict[str, Any]) -> Any:
        """Run the pipeline on one video, which is meanwhile a file in memory."""
        member = info.pop('member')
        if member is None:
            reason = 'it could not be read when the tar shards were written'
            raise UnreadableVideo(
                f'the video {info["filename"]} is in no tar shard: {reason}; failed.txt next to '
                'the index lists the reason',
                reason,
            )
        with self.shards.opened(member) as path:
            return super().load({**info, 'local_path': path})

    def read_ahead(self, indices: Sequence[int]) -> None:
        """Start to fetch the samples that are read next, in this order."""
        members = (self.get_data_info(index)['member'] for index in indices)
        self.shards.read_ahead([member for member in members if member])

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return the samples of a batch, each fetched while the one before is decoded."""
        self.read_ahead(indices)
        return [self[index] for index in indices]
