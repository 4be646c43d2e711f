"""Split videos into training, validation and test, so that what belongs together stays together.

Clips of one recording look alike. Spread over training and validation they give a score that new
recordings do not reach. So a group of videos is never divided. Groups come from a column of the
list, else from file names (:data:`NAME_RULES`), else every video is a group of its own.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from mmtimesformer.datasets.preparation.own_data import split_by_class
from mmtimesformer.finetuning.video_list import Item

PIECE = 'clip|part|seg|segment|shot|scene|cut|chunk'
#: Rule → pattern of a file name without folder and ending; its first part in brackets is the group.
NAME_RULES = {
    'NAME_g03_c02 (group and clip, as in UCF101)': r'(.+_g\d+)_c\d+',
    'clip_001_of_NAME': rf'(?:{PIECE})[ _-]?\d+[ _-]of[ _-](.+)',
    'NAME_clip_001 (or part, segment, shot, scene, cut, chunk)': (
        rf'(.+?)[ _.-](?:{PIECE})[ _-]?\d+'
    ),
    'NAME_000010_000020 (start and end, as in Kinetics)': r'(.+)_\d{6}_\d{6}',
}


@dataclass
class Divided:
    """A split.

    Attributes:
        splits: ``'train'``, ``'val'`` and perhaps ``'test'`` → its videos.
        rule: How it was made, in words.
        notes: Sentences for the user.
    """

    splits: dict[str, list[Item]]
    rule: str
    notes: list[str]


def group_of_name(path: str) -> tuple[str, str]:
    """Return the group that a file name states, and by which rule; ``''`` twice if none."""
    name = PurePosixPath(path)
    stem = name.stem if 1 < len(name.suffix) <= 6 else name.name
    for rule, pattern in NAME_RULES.items():
        match = re.fullmatch(pattern, stem, re.IGNORECASE)
        if match:
            return match[1], rule
    return '', ''


def divide(items: Sequence[Item], val: float = 0.2, test: float = 0.0, seed: int = 0) -> Divided:
    """Split videos, class by class, without dividing a group.

    Splits that the list gives are kept. Of those, ``val`` is taken from the training videos where
    it is not given.

    Args:
        items: The videos.
        val: Fraction of the videos to validate on.
        test: Fraction of the videos to test on; 0 for none.
        seed: Another seed is another split.

    Raises:
        ValueError: Fractions are out of range, contradict a given split, or leave nothing.
    """
    given: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        given[item.split or 'train'].append(item)
    is_given = any(item.split for item in items)
    if is_given and 'train' not in given:
        raise ValueError('no video is of split train; give lines or a folder of split train')
    if test and 'test' in given:
        raise ValueError('split test is given by your data; leave --test out')
    wanted = {'val': val} if 'val' not in given else {}
    wanted |= {'test': test} if test else {}
    if any(not 0 < part < 1 for part in wanted.values()) or sum(wanted.values()) >= 1:
        raise ValueError(
            f'--val {val:g} and --test {test:g} are parts of the videos: above 0, and together '
            'below 1'
        )
    notes: list[str] = []
    rule = 'as your data gives it'
    splits = dict(given)
    if wanted:
        groups, how, notes = find_groups(given['train'])
        splits |= _split(given['train'], groups, wanted, seed)
        rule = f'{"what is missing" if is_given else "by class"}, {how}, seed {seed}'
    for name, part in splits.items():
        if not part:
            raise ValueError(
                f'no video is left for split {name}: too few videos (or groups of videos) can be '
                'divided; add videos, or give the split yourself (column split)'
            )
    notes += _leaks(splits) if is_given else []
    return Divided({key: splits[key] for key in ('train', 'val', 'test') if key in splits}, rule,
                   [*notes, *_class_notes(splits)])  # fmt: skip


def find_groups(items: Sequence[Item]) -> tuple[dict[str, str], str, list[str]]:
    """Return the group of each video, how groups were found in words, and notes.

    Groups by file names hold across folders. They are used if each class of two videos or more has
    two groups or more; otherwise every video is a group of its own, and a note explains it.
    """
    if any(item.group for item in items):
        groups = {item.path: item.group or item.path for item in items}
        return groups, f'{_count(groups)} groups by the column group', []
    named = {item.path: group_of_name(item.path) for item in items}
    rules = Counter(rule for _, rule in named.values() if rule)
    single = {item.path: item.path for item in items}
    alone = 'every video by itself'
    if not rules:
        return single, f'{alone} (no column group, and no file name states one)', []
    groups = {path: group or path for path, (group, _) in named.items()}
    words = ' and '.join(rules)
    undivided = _undivided(items, groups)
    if undivided:
        note = (
            f'file names look like {words}, but then class {undivided!r} would be one group that '
            'cannot be divided, so every video is split by itself; if clips of one recording are '
            'among them, name their groups (CSV, column group)'
        )
        return single, alone, [note]
    return groups, f'{_count(groups)} groups by file names like {words}', []


def _count(groups: Mapping[str, str]) -> int:
    return len(set(groups.values()))


def _undivided(items: Sequence[Item], groups: Mapping[str, str]) -> str:
    """Return a class of several videos in one group; ``''`` if there is none."""
    of_class: dict[str, list[str]] = defaultdict(list)
    for item in items:
        for label in item.labels:
            of_class[label].append(groups[item.path])
    return next(
        (name for name, found in of_class.items() if len(found) > 1 and len(set(found)) == 1), ''
    )


def _split(
    items: Sequence[Item], groups: Mapping[str, str], fractions: Mapping[str, float], seed: int
) -> dict[str, list[Item]]:
    if _count(groups) == len(items) and all(len(item.labels) == 1 for item in items):
        found = split_by_class({item.path: item.labels[0] for item in items}, fractions, seed)
        place = {path: name for name, paths in found.items() for path in paths}
    else:
        place = _split_groups(items, groups, fractions, seed)
    return {
        name: [item for item in items if place[item.path] == name] for name in ('train', *fractions)
    }


def _split_groups(
    items: Sequence[Item], groups: Mapping[str, str], fractions: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Move whole groups out of training, rarest class first, until each class has its fraction.

    A group is moved if training keeps a video of each of its classes.
    """
    members: dict[str, Counter[str]] = defaultdict(Counter)
    for item in items:
        members[groups[item.path]].update(item.labels or ('',))
    totals = sum(members.values(), Counter())
    place = dict.fromkeys(members, 'train')
    have: dict[str, Counter[str]] = {name: Counter() for name in fractions}
    have['train'] = Counter(totals)
    for label in sorted(totals, key=lambda name: (totals[name], name)):
        order = sorted(group for group, count in members.items() if count[label])
        random.Random(f'{seed}/{label}').shuffle(order)
        for split, fraction in fractions.items():
            wanted = max(1, round(fraction * totals[label]))
            for group in sorted(order, key=lambda one: members[one][label] > wanted):
                missing, count = wanted - have[split][label], members[group]
                too_many = count[label] > 2 * missing and have[split][label] > 0
                if missing <= 0 or too_many or place[group] != 'train':
                    continue
                if all(have['train'][one] > number for one, number in count.items()):
                    place[group] = split
                    have['train'] -= count
                    have[split] += count
    return {item.path: place[groups[item.path]] for item in items}


def _leaks(splits: Mapping[str, Sequence[Item]]) -> list[str]:
    """Return a note if a group lies in two of the given splits."""
    seen: dict[str, str] = {}
    for name, part in splits.items():
        for item in part:
            group = item.group or group_of_name(item.path)[0]
            if group and seen.setdefault(group, name) != name:
                return [
                    f'your split has videos of group {group!r} in {seen[group]} and in {name}: its '
                    'score may be better than that on new recordings'
                ]
    return []


def _class_notes(splits: Mapping[str, Sequence[Item]]) -> list[str]:
    counts = {
        name: Counter(label for item in part for label in item.labels)
        for name, part in splits.items()
    }
    notes = []
    for name, found in counts.items():
        lost = sorted(counts['train'].keys() - found.keys())
        if name != 'train' and lost:
            notes.append(f'{_names(lost)} {"has" if len(lost) == 1 else "have"} no video in {name}')
        unknown = sorted(found.keys() - counts['train'].keys())
        if name != 'train' and unknown:
            raise ValueError(
                f'{_names(unknown)} of split {name} has no training video; correct the split'
            )
    largest, smallest = counts['train'].most_common()[0], counts['train'].most_common()[-1]
    if largest[1] >= 10 * smallest[1]:
        notes.append(
            f'classes are imbalanced: {largest[0]!r} has {largest[1]:,} training videos and '
            f'{smallest[0]!r} has {smallest[1]:,}'
        )
    return notes


def _names(names: Sequence[str]) -> str:
    more = f' and {len(names) - 3} more' if len(names) > 3 else ''
    return f'class {", ".join(map(repr, names[:3]))}{more}'
