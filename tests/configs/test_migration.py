"""docs/migration.md names a config for everything that the four systems ship."""

import re
from pathlib import Path

import mmaction
import pytest

from mmtimesformer.config.find import shipped_configs

PAGE = (Path(__file__).parents[2] / 'docs' / 'migration.md').read_text()
OFFICIAL = [
    *(f'Kinetics/TimeSformer_{scheme}_8x32_224' for scheme in ('divST', 'jointST', 'spaceOnly')),
    *(f'Kinetics/TimeSformer_divST_{clip}' for clip in ('16x16_448', '96x4_224')),
    *(f'SSv2/TimeSformer_divST_{clip}' for clip in ('8_224', '16_448', '64_224')),
]
PADDLE = ['timesformer/timesformer_k400_videos', 'pptimesformer/pptimesformer_k400_videos']


def rows() -> list[tuple[str, str]]:
    lines = [line for line in PAGE.splitlines() if line.startswith('| ')]
    return [tuple(line.strip('| ').split(' | ')) for line in lines]


@pytest.mark.parametrize('name', [*OFFICIAL, *PADDLE])
def test_each_yaml_of_theirs_has_a_config_of_ours(name: str) -> None:
    (ours,) = (right for left, right in rows() if f'`{name}.yaml`' in left)
    assert re.search(r'`([\w-]+)`', ours)[1] in shipped_configs()


def test_each_config_of_mmaction2_has_one_of_ours() -> None:
    folder = Path(mmaction.__file__).parent / '.mim/configs/recognition/timesformer'
    theirs = sorted(folder.glob('timesformer_*.py'))
    assert len(theirs) == 3
    for path in theirs:
        (ours,) = (right for left, right in rows() if f'`{path.name}`' in left)
        assert ours.strip('`') in shipped_configs()


def test_each_config_that_is_named_is_shipped() -> None:
    named = set(re.findall(r'`((?:pp-)?timesformer_[\w-]+xb[\w-]+)`', PAGE))
    assert len(named) > 12
    assert named <= set(shipped_configs())
