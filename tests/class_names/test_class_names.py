from pathlib import Path

import pytest

from mmtimesformer.class_names import DATA_SETS, class_names_of, stated_data_set
from mmtimesformer.datasets.preparation.publishers import read_diving48, read_ssv2

EXPECTED = {  # data set → first and last names, and one in the middle with its label
    'kinetics400': ('abseiling', 'zumba', 5, 'archery'),
    'kinetics600': ('abseiling', 'zumba', 1, 'acting in play'),
    'kinetics700': ('abseiling', 'zumba', 1, 'acting in play'),
    'sthv2': (
        'Approaching something with your camera',
        'Wiping something off of something',
        3,
        'Bending something until it breaks',
    ),
    'ucf101': ('ApplyEyeMakeup', 'YoYo', 35, 'HammerThrow'),  # "36 HammerThrow" in classInd.txt
    'hmdb51': ('brush_hair', 'wave', 50, 'wave'),
    'diving48': (
        'Back 15som 05Twis FREE',
        'Reverse Dive NoTwis TUCK',
        30,
        'Forward Dive NoTwis STR',
    ),
}


@pytest.mark.parametrize('data_set', DATA_SETS)
def test_lists_have_every_class_once_in_the_order_of_the_labels(data_set: str) -> None:
    names = class_names_of(data_set)
    first, last, label, name = EXPECTED[data_set]
    assert len(names) == len(set(names)) == DATA_SETS[data_set]
    assert (names[0], names[-1], names[label]) == (first, last, name)
    assert all(one == one.strip() and one for one in names)
    key = str.lower if data_set == 'ucf101' else str
    assert list(names) == sorted(names, key=key)  # of all seven, the published order


def test_larger_kinetics_hold_what_the_smaller_ones_share() -> None:
    """Most classes of Kinetics-400 are in -600, and most of -600 in -700."""
    small, middle, large = (set(class_names_of(f'kinetics{n}')) for n in (400, 600, 700))
    assert len(small & middle) > 360 and len(middle & large) > 590


@pytest.mark.parametrize(
    ('texts', 'num_classes', 'expected'),
    [
        (['data/kinetics400/classes.txt'], 400, 'kinetics400'),
        (['timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb.py'], 400, 'kinetics400'),
        (['TimeSformer_divST_8x32_224_K600.pyth'], 600, 'kinetics600'),
        (['timesformer-base-finetuned-k400'], 400, 'kinetics400'),
        (['kinetics'], 700, 'kinetics700'),
        (['kinetics'], 12, None),
        (['Kinetics-400'], 400, 'kinetics400'),
        (['ssv2'], 174, 'sthv2'),
        (['something-something-v2-labels.json'], 174, 'sthv2'),
        (['TimeSformer_divST_8_224_SSv2.pyth'], 174, 'sthv2'),
        (['timesformer_divST_1xb8-8x16x1-20e_ucf101-split1-rgb'], 101, 'ucf101'),
        (['Diving48_V2_train.json'], 48, 'diving48'),
        ([None, '', 'epoch_15.pth', 'model_k400.pth'], 400, 'kinetics400'),
        # never by the number alone, nor against what is stated
        (['epoch_15.pth'], 400, None),
        (['your_own_classes.txt', 'kinetics_of_fish'], 5, None),
        (['kinetics400.pth'], 10, None),
        (['ucf101-split1', 'model_k400.pth'], 400, None),
        (['from_k400_to_k600.pth'], 600, None),
        (['mk400x.pth'], 400, None),
    ],
)
def test_a_data_set_is_taken_from_what_is_stated(
    texts: list[str], num_classes: int, expected: str | None
) -> None:
    assert stated_data_set(texts, num_classes) == expected


def test_an_unknown_data_set_is_refused() -> None:
    with pytest.raises(ValueError, match="no class names of 'jester'; there are those of kinetics"):
        class_names_of('jester')


def test_every_shipped_list_states_its_source() -> None:
    folder = Path(__file__).parents[2] / 'mmtimesformer' / 'class_names'
    readme = (folder / 'README.md').read_text()
    assert {file.stem for file in folder.glob('*.txt')} == set(DATA_SETS)
    assert all(f'| `{data_set}.txt` | {n} |' in readme for data_set, n in DATA_SETS.items())


def test_lists_are_those_that_the_publishers_lists_give(tmp_path: Path) -> None:
    """Publishers' own files, written here, read by the tool that prepares the data sets."""
    import json

    sthv2, diving48 = class_names_of('sthv2'), class_names_of('diving48')
    (tmp_path / 'labels.json').write_text(json.dumps({n: str(i) for i, n in enumerate(sthv2)}))
    entry = {'id': 1, 'template': 'Holding [something]'}
    for split in ('train', 'validation'):
        (tmp_path / f'{split}.json').write_text(json.dumps([entry]))
    assert tuple(read_ssv2(tmp_path, tmp_path).classes) == sthv2
    vocabulary = [name.split(' ') for name in diving48]
    assert all(len(words) == 4 for words in vocabulary)
    (tmp_path / 'Diving48_vocab.json').write_text(json.dumps(vocabulary))
    for split in ('train', 'test'):
        text = json.dumps([{'vid_name': 'a', 'label': 0}])
        (tmp_path / f'Diving48_V2_{split}.json').write_text(text)
    assert tuple(read_diving48(tmp_path, tmp_path).classes) == diving48
