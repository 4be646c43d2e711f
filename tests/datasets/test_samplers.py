"""Samplers: pairs stay together, classes are drawn equally, processes share an epoch."""

from collections import Counter
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset
from sklearn.utils.class_weight import compute_class_weight

from mmtimesformer.datasets import ClassBalancedSampler, PairedSampler
from mmtimesformer.datasets.class_counts import balanced_weights, class_counts, classes_of
from mmtimesformer.datasets.samplers import DATA_SAMPLERS
from mmtimesformer.datasets.video_dataset import VideoDataset


def test_twins_follow_each_other_and_nobody_is_left_out() -> None:
    order = list(PairedSampler(range(14), seed=5))
    assert sorted(order) == list(range(14))
    assert all(other == one + 1 and one % 2 == 0 for one, other in zip(*[iter(order)] * 2))  # noqa: B905


def test_pairs_are_shuffled_anew_every_epoch_and_alike_for_one_seed() -> None:
    sampler, same, other = (PairedSampler(range(100), seed=seed) for seed in (5, 5, 6))
    first = list(sampler)
    assert first != list(range(100))
    assert first == list(same) and first != list(other)
    sampler.set_epoch(1)
    assert first != list(sampler)


def test_without_shuffling_the_order_is_that_of_the_file() -> None:
    assert list(PairedSampler(range(6), shuffle=False, seed=5)) == list(range(6))


@pytest.mark.parametrize('round_up, lengths', [(True, [6, 6, 6]), (False, [6, 4, 4])])
def test_processes_share_the_pairs(
    round_up: bool, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = []
    for rank in range(3):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, 3))
        sampler = PairedSampler(range(14), seed=5, round_up=round_up)
        shares.append(list(sampler))
        assert len(sampler) == len(shares[-1])
    assert [len(share) for share in shares] == lengths
    assert set().union(*shares) == set(range(14))


def test_a_video_without_a_twin_is_refused() -> None:
    with pytest.raises(ValueError, match='7 videos are not pairs.*train_dataloader.sampler.type'):
        PairedSampler(range(7), seed=5)


def test_a_config_finds_it_by_name(default_scope: str | None) -> None:
    built = DATA_SAMPLERS.build(dict(type='mmtimesformer.PairedSampler', dataset=range(4), seed=5))
    assert isinstance(built, PairedSampler)


class Labelled:
    """Samples of which only the classes matter."""

    metainfo: dict[str, Any] = {}

    def __init__(self, classes: list[list[int]]) -> None:
        self.classes = classes

    def __len__(self) -> int:
        return len(self.classes)

    def get_cat_ids(self, index: int) -> list[int]:
        return self.classes[index]


IMBALANCED = Labelled([[0]] * 20 + [[1]] * 5 + [[3]])


def balanced(dataset: Any = IMBALANCED, epoch: int = 0, **settings: Any) -> list[int]:
    sampler = ClassBalancedSampler(dataset, **({'seed': 5} | settings))
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert len(order) == len(sampler)
    return order


def test_classes_are_drawn_equally_and_so_are_the_videos_of_a_class() -> None:
    order = balanced()
    labels = Counter(IMBALANCED.classes[i][0] for i in order)
    assert sum(labels.values()) == 26 and set(labels.values()) <= {8, 9}
    drawn = Counter(order)
    assert max(drawn[i] for i in range(20)) == 1  # 8 or 9 of the 20
    assert {drawn[i] for i in range(20, 25)} <= {1, 2}
    assert drawn[25] == labels[3]


def test_the_drawing_depends_on_seed_and_epoch_alone() -> None:
    np.random.default_rng().random()
    assert balanced() == balanced()
    orders = {tuple(balanced(seed=seed, epoch=epoch)) for seed in (5, 6) for epoch in (0, 1)}
    assert len(orders) == 4  # also (5, 1) and (6, 0)


def test_a_video_of_several_labels_is_drawn_for_each_and_one_without_labels_as_well() -> None:
    several = Labelled([[0]] * 30 + [[0, 1]] + [[]])
    drawn = Counter(balanced(several))
    assert drawn[30] >= 10 and drawn[31] >= 10 and sum(drawn[i] for i in range(30)) in (10, 11)


@pytest.mark.parametrize('round_up, lengths', [(True, [9, 9, 9]), (False, [9, 9, 8])])
def test_processes_draw_one_order_together(
    round_up: bool, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = []
    for rank in range(3):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, 3))
        shares.append(balanced(round_up=round_up))
    monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda: (0, 1))
    assert [len(share) for share in shares] == lengths
    together = [one for step in zip_longest(*shares) for one in step if one is not None]
    assert together[:26] == balanced()


@pytest.mark.parametrize('several', [False, True])
def test_wrappers_show_the_classes_of_what_they_wrap(several: bool, tmp_path: Path) -> None:
    lines = ['a.mp4 0', 'b.mp4 2 1' if several else 'b.mp4 2', 'c.mp4']
    (tmp_path / 'list.txt').write_text('\n'.join(lines))
    settings = {'multi_class': True, 'num_classes': 3} if several else {}
    dataset = VideoDataset(str(tmp_path / 'list.txt'), [], **settings)
    own = [[0], [1, 2] if several else [2], []]
    assert classes_of(dataset) == own
    assert classes_of(RepeatDataset(dataset, times=2)) == own * 2
    assert classes_of(ConcatDataset([dataset, dataset])) == own * 2
    balanced = ClassBalancedDataset(dataset, oversample_thr=0.5)
    assert sorted(classes_of(balanced)) == sorted([*own, *own[:2]])


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(TypeError, match='range has no get_cat_ids'):
        list(ClassBalancedSampler(range(4), seed=0))
    with pytest.raises(ValueError, match='shuffle=False: ClassBalancedSampler draws in random'):
        ClassBalancedSampler(IMBALANCED, shuffle=False)


def test_weights_are_those_of_scikit_learn() -> None:
    labels = [0] * 20 + [1] * 5 + [3]
    counts = class_counts([[one] for one in labels], 5)
    assert counts.tolist() == [20, 5, 0, 1, 0]
    theirs = compute_class_weight('balanced', classes=np.array([0, 1, 3]), y=labels)
    weights = balanced_weights(counts)
    assert [weights[i] for i in (0, 1, 3)] == pytest.approx(theirs.tolist(), rel=1e-5)
    assert weights[2] == weights[4] == 1
