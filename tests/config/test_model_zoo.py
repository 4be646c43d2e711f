"""The metafile names published weights with their origin and license."""

from pathlib import Path

import pytest
from mmengine.fileio import load

from mmtimesformer.config.model_zoo import config_names, published_weights, weights_of

ROOT = Path(__file__).parents[2]
NAME = 'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb'
ORIGINS = {
    "MMAction2's model zoo": ('https://download.openmmlab.com/mmaction/', 'Apache-2.0'),
    'the official model zoo': ('https://www.dropbox.com/s/', 'CC-BY-NC-4.0'),
    "PaddleVideo's model zoo": ('https://videotag.bj.bcebos.com/', 'Apache-2.0'),
}


def test_every_config_file_has_a_name() -> None:
    files = {path.stem for path in (ROOT / 'configs' / 'timesformer').glob('*.py')}
    assert set(config_names()) == files


def test_weights_are_those_of_mmaction2s_own_metafile() -> None:
    mmaction = pytest.importorskip('mmaction')
    theirs = Path(mmaction.__file__).parent / '.mim/configs/recognition/timesformer/metafile.yml'
    models = load(theirs)['Models']
    assert len(models) == 3
    for model in models:
        assert weights_of(model['Name']) == weights_of(f'{model["Name"]}.py') == model['Weights']


def test_every_origin_has_its_host_and_its_license() -> None:
    found = [weights for name in config_names() if (weights := published_weights(name))]
    assert {weights.origin for weights in found} == set(ORIGINS)
    for weights in found:
        host, license_name = ORIGINS[weights.origin]
        assert weights.address.startswith(host)
        assert weights.license == license_name


@pytest.mark.parametrize('name', ['timesformer_divST-tiny_moving-shapes', 'no-such-config'])
def test_a_config_without_weights_has_no_address(name: str) -> None:
    assert weights_of(name) is None
