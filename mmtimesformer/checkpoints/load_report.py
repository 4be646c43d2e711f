"""Load report: what happened to every key of a checkpoint."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from mmtimesformer.terminal import safe_text

Action = Literal[
    'renamed', 'seeded', 'resized', 'adapted', 'dropped', 'newly initialized', 'missing', 'unknown'
]
ACTIONS: dict[Action, str] = {
    'renamed': 'loaded, under its new name',
    'seeded': 'not in the checkpoint, computed as noted',
    'resized': 'loaded, in another size',
    'adapted': 'loaded, for another number of input channels',
    'dropped': 'in the checkpoint, not loaded on purpose',
    'newly initialized': 'not in the checkpoint, stays as the model made it',
    'missing': 'needed, but not in the checkpoint',
    'unknown': 'in the checkpoint, but not in any known format',
}


class CheckpointError(ValueError):
    """A checkpoint does not fit; ``load_report`` lists each key, as far as known."""

    def __init__(self, message: str, load_report: 'LoadReport | None' = None) -> None:
        super().__init__(message)
        self.load_report = load_report


@dataclass(frozen=True)
class Entry:
    """One key: what was done, its name in the checkpoint, its new name, and why."""

    action: Action
    key: str
    to: str | None = None
    note: str = ''


@dataclass(repr=False)
class LoadReport:
    """What happened to each key in one conversion or loading.

    Attributes:
        source: The format that was recognised.
        target: Where the weights went: a format, or a model.
        entries: One for each key of the checkpoint, and each that was added.
        warnings: What else the user should know.
    """

    source: str = ''
    target: str = ''
    entries: list[Entry] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, action: Action, key: str, to: str | None = None, note: str = '') -> None:
        self.entries.append(Entry(action, key, to, note))

    def drop(self, to: str, why: str) -> None:
        """Change the entry of this new name to dropped."""
        self.entries = [
            Entry('dropped', entry.key, None, why) if entry.to == to else entry
            for entry in self.entries
            if not (entry.to == to and entry.action in ('seeded', 'resized', 'adapted'))
        ]

    def rename(self, names: Mapping[str, str]) -> None:
        """Change the new names of the entries."""
        self.entries = [
            entry if entry.to is None else replace(entry, to=names.get(entry.to, entry.to))
            for entry in self.entries
        ]

    def keys(self, action: Action) -> list[str]:
        """Return the keys with this action."""
        return [entry.key for entry in self.entries if entry.action == action]

    @property
    def complete(self) -> bool:
        """Whether no key is missing or unknown."""
        return not self.keys('missing') and not self.keys('unknown')

    def check(self) -> 'LoadReport':
        """Raise a :class:`CheckpointError` that names the missing and unknown keys, if any."""
        if self.complete:
            return self
        parts = []
        if self.keys('missing'):
            parts.append(f'lacks {some(self.keys("missing"))}')
        if self.keys('unknown'):
            parts.append(f'has {some(self.keys("unknown"))}, which no known format has')
        raise CheckpointError(
            f'the checkpoint, read as {self.source}, {" and ".join(parts)}; no key may be missing '
            'or unknown: take a complete checkpoint of this model, or remove the unknown keys',
            self,
        )

    def __repr__(self) -> str:
        counts = ', '.join(f'{n} {action}' for action, n in self.counts().items() if n)
        return f'<LoadReport {safe_text(self.source)} -> {safe_text(self.target)}: {counts}>'

    def counts(self) -> dict[Action, int]:
        return {action: len(self.keys(action)) for action in ACTIONS}

    def table(self) -> str:
        """Return the report as lines for a terminal: counts, then all that is more than a new name.

        Blocks are shown as one line, ``blocks.*``.
        """
        lines = [safe_text(f'{self.source} -> {self.target}')]
        counts = {
            action: count
            for action, count in self.counts().items()
            if count or action in ('renamed', 'missing', 'unknown')
        }
        width = max(9, *map(len, counts))
        for action, count in counts.items():
            lines.append(f'{action:>{width}} {count:>5}   {ACTIONS[action]}')
            if action != 'renamed':
                entries = [entry for entry in self.entries if entry.action == action]
                rows = _by_row(entries).items()
                lines += [f'{"":>{width}} {n:>5}   . {what}' for what, n in rows]
        lines += [f'  warning         {safe_text(warning)}' for warning in self.warnings]
        return '\n'.join(lines)

    def as_dict(self) -> dict[str, object]:
        return {
            'source': self.source,
            'target': self.target,
            'counts': self.counts(),
            'entries': [asdict(entry) for entry in self.entries],
            'warnings': self.warnings,
        }


LONGEST_KEY = 120  # characters of a name in messages and tables; those of weights have up to 80


def _by_row(entries: Iterable[Entry]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for entry in entries:
        name = re.sub(r'(?<=[._])\d+(?=[./])', '*', entry.key)
        name = safe_text(name, LONGEST_KEY)
        what = f'{name}: {safe_text(entry.note)}' if entry.note else name
        rows[what] = rows.get(what, 0) + 1
    return rows


def some(keys: Collection[str], at_most: int = 6) -> str:
    """List a few of many names, and how many more there are."""
    shown = ', '.join(safe_text(key, LONGEST_KEY) for key in list(keys)[:at_most])
    more = len(keys) - at_most
    return f'{shown} and {more} more' if more > 0 else shown
