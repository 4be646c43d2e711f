"""Class names of public data sets, in the order of their labels.

They are used where a config or checkpoint states its data set, and no names are given or stored.
The number of classes alone never selects a list. Sources: ``README.md`` in this folder.
"""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent

#: Data set → its number of classes.
DATA_SETS = {
    'kinetics400': 400,
    'kinetics600': 600,
    'kinetics700': 700,
    'sthv2': 174,
    'ucf101': 101,
    'hmdb51': 51,
    'diving48': 48,
}
# What configs, checkpoints and their files call them, without signs and in lower case. Kinetics
# without a number (as the official configs write it) is that of the model's number of classes.
SPELLINGS = {
    r'k(?:inetics)?(400|600|700)': 'kinetics{}',
    r'(?:ssv2|sthv2|somethingsomethingv2)()': 'sthv2',
    r'ucf101()': 'ucf101',
    r'hmdb51()': 'hmdb51',
    r'diving48()': 'diving48',
}


@cache
def class_names_of(data_set: str) -> tuple[str, ...]:
    """Return the class names of a data set of :data:`DATA_SETS`, in the order of the labels.

    Raises:
        ValueError: There is no list for this data set.
    """
    if data_set not in DATA_SETS:
        raise ValueError(
            f'there are no class names of {data_set!r}; there are those of {", ".join(DATA_SETS)}'
        )
    return tuple((FOLDER / f'{data_set}.txt').read_text(encoding='utf-8').splitlines())


def stated_data_set(texts: Iterable[str | None], num_classes: int) -> str | None:
    """Return the data set that a config or checkpoint states, if it has this number of classes.

    Args:
        texts: Names of data sets, configs, annotation files or checkpoints, in order of preference,
            such as ``'kinetics'``, ``'data/ucf101/classes.txt'``,
            ``'TimeSformer_divST_8x32_224_K400.pth'``. A text states a data set by a word of its
            own; a text with the words of two data sets states none.
        num_classes: Of the model.

    Returns:
        A key of :data:`DATA_SETS`; ``None`` if no text states one, or if the first that is stated
        has another number of classes.
    """
    for text in texts:
        found = {one for one in DATA_SETS if one in _stated_in(text or '', num_classes)}
        if len(found) == 1:
            (data_set,) = found
            return data_set if DATA_SETS[data_set] == num_classes else None
    return None


def _stated_in(text: str, num_classes: int) -> set[str]:
    words = re.split(r'[^a-z0-9]+', text.lower())
    # also `something-something-v2`, `kinetics-400`, `UCF 101`: two or three words as one
    joined = [''.join(words[i : i + n]) for n in (1, 2, 3) for i in range(len(words))]
    found = {
        name.format(match[1])
        for word in joined
        for spelling, name in SPELLINGS.items()
        if (match := re.fullmatch(spelling, word))
    }
    if not found and 'kinetics' in words:
        found = {f'kinetics{num_classes}'}
    return found
