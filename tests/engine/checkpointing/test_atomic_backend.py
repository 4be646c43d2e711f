"""The clean-up of a ``work_dir`` before a training."""

from pathlib import Path

from mmtimesformer.engine.checkpointing.atomic_backend import sweep_partial_files
from mmtimesformer.engine.checkpointing.resume import NOTE
from mmtimesformer.fileio.atomic import write_atomically


def test_unfinished_checkpoints_are_removed_and_files_that_others_write_now_stay(
    tmp_path: Path,
) -> None:
    with (
        write_atomically(tmp_path / 'epoch_1.pth') as checkpoint,
        write_atomically(tmp_path / NOTE) as note,
        write_atomically(tmp_path / 'result.pkl') as result,
    ):
        assert sweep_partial_files(tmp_path) == sorted([checkpoint, note])
        assert result.is_file() and not checkpoint.exists() and not note.exists()
        checkpoint.touch()
        note.touch()
