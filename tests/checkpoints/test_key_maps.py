from collections import Counter

import pytest
import torch

from mmtimesformer import TimeSformer
from mmtimesformer.checkpoints.convert import expected_names
from mmtimesformer.checkpoints.key_maps import FORMATS, detect

from .conftest import SCHEMES, as_huggingface, as_mmaction2, as_official, random_weights, toy


@pytest.mark.parametrize('name', FORMATS)
def test_renaming_is_a_bijection_on_the_known_keys(name: str) -> None:
    form = FORMATS[name]
    for prefix in form.prefixes:
        names = form.names(prefix, depth=3)
        backbone = {k: v for k, v in names.items() if not v[0].startswith('head.')}
        assert max(Counter(backbone.values()).values()) == 1  # no two keys for one place
        written = form.written_names(3, prefix)
        for theirs, (ours, place) in backbone.items():
            if place == 0:
                assert written[ours] == theirs


@pytest.mark.parametrize('scheme', SCHEMES)
def test_our_table_is_exactly_the_state_dict_of_the_model(scheme: str) -> None:
    model = TimeSformer(**toy(attention_type=scheme))
    assert set(expected_names(scheme, depth=2)) == set(model.state_dict())
    without = TimeSformer(**toy(attention_type=scheme, qkv_bias=False))
    assert set(expected_names(scheme, depth=2, qkv_bias=False)) == set(without.state_dict())


@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize(
    ('lay_out', 'name'),
    [(as_official, 'official'), (as_mmaction2, 'mmaction2'), (as_huggingface, 'huggingface')],
)
def test_a_missing_and_a_foreign_key_do_not_hide_the_format(lay_out, name, scheme) -> None:
    laid_out = lay_out(random_weights(scheme))
    for key in list(laid_out):
        damaged = {k: v for k, v in laid_out.items() if k != key}
        damaged['foreign.weight'] = torch.zeros(1)
        found = detect(damaged)
        assert found is not None
        assert found[0].name.removesuffix('_joint') == name, key


def test_weights_of_another_kind_of_model_are_no_format() -> None:
    resnet = {f'layer{i}.0.conv1.weight': torch.zeros(3, 3) for i in range(1, 5)}
    assert detect(resnet) is None
    assert detect({}) is None
    assert detect({'backbone.norm.weight': torch.zeros(3)}) is None


def test_a_huge_block_number_costs_nothing() -> None:
    assert detect({'blocks.999999999999.norm1.weight': torch.zeros(3)}) is None
