"""Data classes for the published lists of a data set: videos, splits, class names."""

from dataclasses import dataclass, field
from pathlib import Path

Label = int | tuple[int, ...] | None


@dataclass(frozen=True)
class Listed:
    """One video, as its publisher lists it.

    Attributes:
        names: Names without ending under which it may be found, the likeliest first;
            ``folder/name`` where the name alone could mean two files; or the file itself.
        label: Number of its class, or those of its classes; ``None`` where the publisher keeps
            that secret.
    """

    names: tuple[str, ...]
    label: Label


@dataclass(frozen=True)
class Published:
    """A size that somebody published, and who."""

    size: int  # number of videos
    source: str  # where the figure is quoted from
    about: bool = False  # the figure is rounded, so a difference of 2 % means nothing

    def agrees_with(self, size: int) -> bool:
        """Whether a list of this many videos can be the published one."""
        return abs(size - self.size) <= (0.02 * self.size if self.about else 0)

    def __str__(self) -> str:
        return f'{"about " if self.about else ""}{self.size:,}'


@dataclass
class Split:
    """A list of videos that gets one annotation file."""

    annotation: str  # name of that file
    folder: Path  # of the videos; names in the annotation file are relative to it
    videos: list[Listed]
    option: str = '--videos'  # of the tool, which names the folder
    published: Published | None = None  # how many videos were published, if a figure is


@dataclass
class DataSet:
    """The content of the publishers' files."""

    name: str  # as in the names of the configs
    classes: list[str]  # names, in the order of the labels
    splits: dict[str, Split]
    sources: list[Path] = field(default_factory=list)  # the files that were read
    num_classes: int = 0  # how many were published; 0 where that is the user's choice
    ignore_case: bool = False  # find HandstandPushups where HandStandPushups is listed
    left_out: list[tuple[str, str]] = field(default_factory=list)  # in no split, and why


def unwritable(file: str) -> str:
    """Return why an annotation file cannot hold the name of a file; ``''`` if it can."""
    try:
        file.encode()
    except UnicodeEncodeError:
        return 'is not UTF-8; rename the file'
    if file != file.strip() or len(file.splitlines()) > 1 or '\t' in file:
        return (
            'has a tab or a line break, or begins with a space; an annotation file cannot hold it; '
            'rename the file'
        )
    return ''
