from collections import Counter, defaultdict

import pytest

from mmtimesformer.finetuning.splitting import divide, find_groups, group_of_name
from mmtimesformer.finetuning.video_list import Item


def items_of(numbers: dict[str, int], name: str = '{label}/{i}.mp4') -> list[Item]:
    return [
        Item(name.format(label=label, i=i, g=i // 3, c=i % 3), (label,))
        for label, number in numbers.items()
        for i in range(number)
    ]


@pytest.mark.parametrize(
    ('path', 'group'),
    [
        ('Archery/v_Archery_g03_c02.avi', 'v_Archery_g03'),
        ('x/clip_001_of_video7.mp4', 'video7'),
        ('x/clip 1 of my walk.mp4', 'my walk'),
        ('x/video7_clip_001.mp4', 'video7'),
        ('x/Monday-part2.mov', 'Monday'),
        ('x/a b scene 12', 'a b'),
        ('x/-0dfRz0lQ4_000010_000020.mp4', '-0dfRz0lQ4'),
        ('x/run_03.mp4', ''),
        ('x/clip_001.mp4', ''),
        ('x/party2.mp4', ''),
        ('x/00012.mp4', ''),
        ('x/g03_c02.mp4', ''),
    ],
)
def test_groups_by_file_names(path: str, group: str) -> None:
    assert group_of_name(path)[0] == group


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('test', [0.0, 0.2])
def test_no_group_is_divided_and_every_class_keeps_its_fraction(seed: int, test: float) -> None:
    items = items_of({'a': 60, 'b': 30, 'c': 15}, '{label}/v_{label}_g{g:02d}_c{c:02d}.avi')
    divided = divide(items, 0.2, test, seed)
    places = defaultdict(set)
    for name, part in divided.splits.items():
        for item in part:
            places[group_of_name(item.path)[0]].add(name)
    assert all(len(found) == 1 for found in places.values()) and len(places) == 35
    assert sum(map(len, divided.splits.values())) == 105
    for name in divided.splits.keys() - {'train'}:
        counts = Counter(item.labels[0] for item in divided.splits[name])
        assert counts == {'a': 12, 'b': 6, 'c': 3}
    assert divided.rule == (
        '35 groups by file names like NAME_g03_c02 (group and clip, as in UCF101)'.join(
            ['by class, ', f', seed {seed}']
        )
    )


def test_a_group_across_classes_stays_together() -> None:
    items = [
        Item(f'{label}/{label}{i}.mp4', (label,), group=f'person {i}')
        for label in ('walk', 'run')
        for i in range(10)
    ]
    splits = divide(items).splits
    people = {name: {item.group for item in part} for name, part in splits.items()}
    assert not people['train'] & people['val'] and len(people['val']) == 2


def test_videos_without_groups_are_split_class_by_class() -> None:
    items = items_of({'a': 50, 'b': 10, 'c': 1})
    divided = divide(items)
    assert Counter(i.labels[0] for i in divided.splits['val']) == {'a': 10, 'b': 2}
    assert divided.notes == [
        "class 'c' has no video in val",
        "classes are imbalanced: 'a' has 40 training videos and 'c' has 1",
    ]
    assert divide(items).splits == divided.splits
    assert divide(items, seed=1).splits != divided.splits


def test_names_that_would_make_one_group_of_a_class_are_not_used() -> None:
    groups, how, notes = find_groups(items_of({'a': 4, 'b': 4}, '{label}/holiday_clip_{i}.mp4'))
    assert len(set(groups.values())) == 8 and how == 'every video by itself'
    assert "class 'a' would be one group that cannot be divided" in notes[0]


def test_a_given_split_is_kept_and_a_leak_is_noted() -> None:
    items = [
        Item('x/v_g01_c01.avi', ('x',), split='train'),
        Item('y/w_g01_c01.avi', ('y',), split='train'),
        Item('x/v_g01_c02.avi', ('x',), split='val'),
        Item('y/w_g02_c01.avi', ('y',), split='val'),
    ]
    divided = divide(items)
    assert [len(part) for part in divided.splits.values()] == [2, 2]
    assert divided.rule == 'as your data gives it'
    assert "videos of group 'v_g01' in train and in val" in divided.notes[0]


def test_a_given_split_without_val_gets_one_from_training() -> None:
    items = [
        Item(f'{label}/{i}.mp4', (label,), split='test' if i < 3 else 'train')
        for label in 'ab'
        for i in range(13)
    ]
    splits = divide(items).splits
    assert {name: len(part) for name, part in splits.items()} == {'train': 16, 'val': 4, 'test': 6}


def test_several_labels_and_none_are_split() -> None:
    names = [('a',), ('a', 'b'), ('b', 'c'), ()]
    items = [Item(f'{i}.mp4', names[i % 4]) for i in range(100)]
    splits = divide(items).splits
    counts = Counter(label for item in splits['val'] for label in item.labels or ('none',))
    assert all(4 <= counts[label] <= 16 for label in ('a', 'b', 'c', 'none')), counts
    assert sum(map(len, splits.values())) == 100


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'val': 0.0}, 'above 0, and together below 1'),
        ({'val': 0.7, 'test': 0.4}, 'above 0, and together below 1'),
        ({'val': float('nan')}, 'above 0, and together below 1'),
    ],
)
def test_fractions_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        divide(items_of({'a': 5, 'b': 5}), **options)


def test_given_splits_that_cannot_be_used_are_refused() -> None:
    items = [Item('1.mp4', ('a',), split='val'), Item('2.mp4', ('b',), split='val')]
    with pytest.raises(ValueError, match='no video is of split train'):
        divide(items)
    items = [*(Item(f'{i}.mp4', ('a',), split='train') for i in range(3)), *items]
    with pytest.raises(ValueError, match="class 'b' of split val has no training video"):
        divide(items)
    with pytest.raises(ValueError, match='leave --test out'):
        divide([*items, Item('t.mp4', ('a',), split='test')], test=0.1)
