import pytest

from mmtimesformer.datasets import PairedSampler
from mmtimesformer.datasets.samplers import DATA_SAMPLERS


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
