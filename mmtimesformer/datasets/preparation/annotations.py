"""Write annotation files, class names, a manifest, and the list of missing videos."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmtimesformer.cli import require_file
from mmtimesformer.datasets.preparation import COMPLETE, INCOMPLETE
from mmtimesformer.datasets.preparation.finding import VideoFolder
from mmtimesformer.datasets.preparation.listing import DataSet, Label, Split, unwritable
from mmtimesformer.fileio.atomic import write_json_atomically, write_lines_atomically
from mmtimesformer.terminal import echo, echo_lines, safe_text


@dataclass
class FoundVideos:
    """What of a split is on the disk: files with their labels, and names with what is wrong."""

    split: Split
    files: list[tuple[str, Label]]
    missing: list[tuple[str, str]]

    @property
    def complete(self) -> bool:
        published = self.split.published
        listed = len(self.split.videos)
        return not self.missing and (published is None or published.agrees_with(listed))


def prepare(data: DataSet, out: Path, allow_missing: bool = False) -> int:
    """Find the videos, write everything below ``out``, and print a summary.

    Annotation files hold ``video label`` a line, as
    MMAction2's ``VideoDataset`` reads them, split by a tab where a name has a space.

    Args:
        data: The content of the publishers' files.
        out: Folder of the data set.
        allow_missing: Call the data set complete whatever is missing.

    A file whose name cannot stand in an annotation file counts as missing, and so do folders that
    cannot be read; both are listed with the reason.

    Returns:
        ``COMPLETE`` or ``INCOMPLETE``.

    Raises:
        FileNotFoundError: Nothing of a split is there.
        ValueError: No file of a split has a name that can stand in an annotation file.
    """
    folders: dict[Path, VideoFolder] = {}
    found: dict[str, FoundVideos] = {}
    for name, split in data.splits.items():
        require_file(split.folder, 'the video folder', f'set {split.option}', Path.is_dir)
        if split.folder not in folders:
            folders[split.folder] = VideoFolder(split.folder, data.ignore_case)
        found[name] = _find_videos(name, split, folders[split.folder])
    for name, part in found.items():
        _leave_out_unwritable(name, part)
    delimiter = _choose_delimiter([file for part in found.values() for file, _ in part.files])
    faults = [(Path(file), why) for file, why in data.left_out]
    faults += [
        (path / file, why)
        for path, folder in folders.items()
        for file, why in folder.skipped.faults
    ]

    for part in found.values():
        lines = [delimiter.join([file, *_words(label)]) for file, label in part.files]
        write_lines_atomically(out / part.split.annotation, lines)
    write_lines_atomically(out / 'classes.txt', data.classes)
    missing = [
        f'{name}\t{safe_text(video)}\t{why}'
        for name, part in found.items()
        for video, why in part.missing
    ]
    missing += [f'-\t{safe_text(file)}\t{why}' for file, why in faults]
    if missing:
        write_lines_atomically(out / 'missing.txt', missing)
    else:
        (out / 'missing.txt').unlink(missing_ok=True)
    write_json_atomically(out / 'manifest.json', _manifest(data, found, delimiter))

    notes = _notes(data, found, folders, delimiter, out)
    echo_lines(_table(found))
    for note in notes:
        echo(f'- {note}')
    classes_complete = data.num_classes in (0, len(data.classes))
    if classes_complete and not faults and all(part.complete for part in found.values()):
        echo(f'{data.name} is complete: {out}')
        return COMPLETE
    echo(f'{data.name} is not complete{" (allowed)" if allow_missing else ""}: {out}')
    return COMPLETE if allow_missing else INCOMPLETE


def _words(label: Label) -> list[str]:
    """Write a label, several, or none."""
    labels = label if isinstance(label, tuple) else () if label is None else (label,)
    return [str(number) for number in labels]


def _find_videos(name: str, split: Split, folder: VideoFolder) -> FoundVideos:
    files: list[tuple[str, Label]] = []
    missing: list[tuple[str, str]] = []
    for video in split.videos:
        file = folder.find(video)
        if file is None:
            missing.append((video.names[0], 'not found'))
        elif not folder.files[file]:
            missing.append((video.names[0], f'empty file {file}'))
        else:
            files.append((file, video.label))
    if not files:
        raise FileNotFoundError(_nothing_there(name, split, folder))
    return FoundVideos(split, files, missing)


def _nothing_there(name: str, split: Split, folder: VideoFolder) -> str:
    if not split.videos:
        return f'split {name} has no video; give a longer list, or classes of more videos'
    wanted = ' or '.join(split.videos[0].names)
    there = f'there is {next(iter(folder.files))}' if folder.files else 'there is no video at all'
    return (
        f'none of the {len(split.videos):,} videos of split {name} is below {split.folder} (wanted '
        f'for example {wanted}, with any ending; {there}); set {split.option}'
    )


def _leave_out_unwritable(name: str, part: FoundVideos) -> None:
    """Move files whose names would not come back from an annotation file to the missing ones.

    Raises:
        ValueError: No file is left.
    """
    reasons = {file: unwritable(file) for file, _ in part.files}
    part.missing += [(file, why) for file, why in reasons.items() if why]
    part.files = [(file, label) for file, label in part.files if not reasons[file]]
    if not part.files:
        file, why = next(iter(reasons.items()))
        raise ValueError(f'the name of {file!r} {why} (split {name}, {len(reasons):,} videos)')


def _choose_delimiter(files: list[str]) -> str:
    """Take the space, MMAction2's default; the tab where a name has a space."""
    return '\t' if any(' ' in file for file in files) else ' '


def _table(found: dict[str, FoundVideos]) -> str:
    rows = [('split', 'listed', 'published', 'found', 'missing', 'annotation file')]
    rows += [
        (
            name,
            f'{len(part.split.videos):,}',
            str(part.split.published or '–'),
            f'{len(part.files):,}',
            f'{len(part.missing):,}',
            part.split.annotation,
        )
        for name, part in found.items()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(
        '  '.join(
            cell.ljust(width) if i in (0, 5) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _notes(
    data: DataSet,
    found: dict[str, FoundVideos],
    folders: dict[Path, VideoFolder],
    delimiter: str,
    out: Path,
) -> list[str]:
    notes = []
    if data.num_classes not in (0, len(data.classes)):
        notes.append(
            f'{len(data.classes)} classes are named, {data.num_classes} were published: labels are '
            'not those of published models'
        )
    for name, part in found.items():
        published = part.split.published
        if published and not published.agrees_with(len(part.split.videos)):
            notes.append(
                f'the list of {name} has {len(part.split.videos):,} videos, {published} were '
                f'published (quoted from {published.source})'
            )
    for path, folder in folders.items():
        parts = [part for part in found.values() if part.split.folder == path]
        listed = {file for part in parts for file, _ in part.files}
        unlisted = sum(folder.files[file] for file in folder.files.keys() - listed)
        if unlisted:
            notes.append(f'{unlisted:,} videos below {path} are in no list')
        if folder.skipped.note():
            notes.append(f'{folder.skipped.note()} (below {path})')
        if folder.skipped.faults:
            notes.append(
                f'{len(folder.skipped.faults):,} files or folders below {path} cannot be read; '
                f'{out / "missing.txt"} names each'
            )
    number = sum(len(part.missing) for part in found.values())
    if number:
        notes.append(f'{number:,} videos are missing; {out / "missing.txt"} names each')
    if any(isinstance(label, tuple) for part in found.values() for _, label in part.files):
        notes.append(
            f'videos have several labels: write multi_class=True, num_classes={len(data.classes)} '
            'next to ann_file in each dataset of the config'
        )
    if delimiter == '\t':
        notes.append(
            'some names have spaces, so the annotation files are split by tabs: write '
            "delimiter='\\t' next to ann_file in each dataset of the config"
        )
    return notes


def _manifest(data: DataSet, found: dict[str, FoundVideos], delimiter: str) -> dict[str, Any]:
    splits = {}
    for name, part in found.items():
        published = part.split.published
        splits[name] = {
            'annotation': part.split.annotation,
            'videos': part.split.folder.as_posix(),
            'listed': len(part.split.videos),
            'found': len(part.files),
            'missing': len(part.missing),
            'published': str(published) if published else None,
            'published_source': published.source if published else None,
        }
    return {
        'dataset': data.name,
        'num_classes': len(data.classes),
        'delimiter': delimiter,
        'splits': splits,
        'sources': {
            file.name: f'sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}'
            for file in sorted(data.sources)
        },
    }
