"""Import labels of videos from an annotation tool, whichever wrote the file.

Label Studio is in :mod:`.label_studio`, CVAT in :mod:`.cvat`; the other side of both is the CSV
file of :mod:`.labels_csv`.
"""

from pathlib import Path

from mmtimesformer.fileio.safe_text import read_json
from mmtimesformer.finetuning.cvat import import_cvat
from mmtimesformer.finetuning.imported_labels import Imported
from mmtimesformer.finetuning.label_studio import LOCAL_FILES, import_label_studio

LARGEST = 256 << 20  # bytes of an export


def import_labels(
    path: Path, prefix: str = LOCAL_FILES, suffix: str = '.mp4', unreviewed: bool = False
) -> Imported:
    """Read an export of Label Studio (JSON, JSON-MIN) or CVAT (Datumaro), by its content.

    Raises:
        ValueError: It is neither, or has a video twice, or no labels.
    """
    content = read_json(path, LARGEST)
    try:
        if isinstance(content, list):
            imported = import_label_studio(content, prefix, unreviewed)
        elif isinstance(content, dict):
            imported = import_cvat(content, suffix)
        else:
            raise ValueError('it is no export of Label Studio or CVAT')
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None
    paths = [video.path for video in imported.videos]
    if len(set(paths)) < len(paths):
        twice = next(one for i, one in enumerate(paths) if one in paths[:i])
        raise ValueError(f'{path}: {twice} is labeled twice; keep one')
    if not paths:
        raise ValueError(f'{path}: none of the {len(imported.left_out):,} videos has a label')
    return imported
