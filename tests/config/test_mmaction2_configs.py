"""Each config that MMAction2 ships passes the check, or is refused for a missing package."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mmaction
import pytest
from mmengine.config import Config

from mmtimesformer.config.validate import check_config

CONFIGS = sorted((Path(mmaction.__file__).parent / '.mim/configs/recognition').rglob('*.py'))
# One of each kind of model, data loader, schedule and hook; the others run in make test-all.
SAMPLE = (
    'c3d_sports1m-pretrained_8xb30-16x1x1-45e_ucf101-rgb',
    'ircsn_ig65m-pretrained-r152_8xb12-32x2x1-58e_kinetics400-rgb',
    'mvit-small-p244_k400-maskfeat-pre_8xb32-16x4x1-100e_kinetics400-rgb',
    'r2plus1d_r34_8xb8-32x2x1-180e_kinetics400-rgb',
    'slowonly_r50-in1k-pre-nl-embedded-gaussian_8xb16-4x16x1-steplr-150e_kinetics400-rgb',
    'slowfast_r50_8xb8-8x8x1-256e_kinetics400-rgb',
    'swin-base-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb',
    'tanet_imagenet-pretrained-r50_8xb8-dense-1x1x8-100e_kinetics400-rgb',
    'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb',
    'tsm_imagenet-pretrained-r50_8xb16-1x1x8-50e_sthv2-rgb',
    'tpn-tsm_imagenet-pretrained-r50_8xb8-1x1x8-150e_sthv1-rgb',
    'tsn_imagenet-pretrained-dense161_8xb32-1x1x3-100e_kinetics400-rgb',
    'uniformerv2-base-p16-res224_clip_u8_kinetics710-rgb',
    'vit-base-p16_videomae-k400-pre_16x4x1_kinetics-400',
)
STEP, BACKBONE = 'PytorchVideoWrapper', 'model.backbone.type'
# Refused where the package is missing.
MISSING = {
    'mvit-base-p244_32x3x1_kinetics400-rgb': (STEP, 'pytorchvideo'),
    'mvit-base-p244_u32_sthv2-rgb': (STEP, 'pytorchvideo'),
    'mvit-large-p244_40x3x1_kinetics400-rgb': (STEP, 'pytorchvideo'),
    'mvit-large-p244_u40_sthv2-rgb': (STEP, 'pytorchvideo'),
    'mvit-small-p244_32xb16-16x4x1-200e_kinetics400-rgb': (STEP, 'pytorchvideo'),
    'mvit-small-p244_k400-maskfeat-pre_8xb32-16x4x1-100e_kinetics400-rgb': (STEP, 'pytorchvideo'),
    'mvit-small-p244_k400-pre_16xb16-u16-100e_sthv2-rgb': (STEP, 'pytorchvideo'),
    'tsn_imagenet-pretrained-dense161_8xb32-1x1x3-100e_kinetics400-rgb': (BACKBONE, 'torchvision'),
    'tsn_imagenet-pretrained-rn101-32x4d_8xb32-1x1x3-100e_kinetics400-rgb': (BACKBONE, 'mmcls'),
    'tsn_imagenet-pretrained-swin-transformer_32xb8-1x1x8-50e_kinetics400-rgb': (BACKBONE, 'timm'),
    'tsn_imagenet-pretrained-swin-transformer_8xb32-1x1x3-100e_kinetics400-rgb': (BACKBONE, 'timm'),
    'uniformerv2-base-p16-res224_clip-kinetics710-kinetics-k400-pre_16xb32-u8_mitv1-rgb': (
        STEP, 'pytorchvideo'
    ),
    'uniformerv2-base-p16-res224_clip-kinetics710-pre_8xb32-u8_kinetics400-rgb': (
        STEP, 'pytorchvideo'
    ),
    'uniformerv2-base-p16-res224_clip-kinetics710-pre_8xb32-u8_kinetics600-rgb': (
        STEP, 'pytorchvideo'
    ),
    'uniformerv2-base-p16-res224_clip-kinetics710-pre_8xb32-u8_kinetics700-rgb': (
        STEP, 'pytorchvideo'
    ),
    'uniformerv2-base-p16-res224_clip_8xb32-u8_kinetics400-rgb': (STEP, 'pytorchvideo'),
    'uniformerv2-base-p16-res224_clip_8xb32-u8_kinetics700-rgb': (STEP, 'pytorchvideo'),
    'uniformerv2-base-p16-res224_clip_u8_kinetics710-rgb': (STEP, 'pytorchvideo'),
}  # fmt: skip
# What fails under MMAction2 itself.
WRONG = {
    'tsm_imagenet-pretrained-r50_8xb16-1x1x16-50e_kinetics400-rgb': (
        'val_dataloader.dataset.pipeline.2.io_backend: DecordDecode has no such argument'
    ),
    'tsm_imagenet-pretrained-r50_8xb16-1x1x16-50e_sthv2-rgb': (
        'test_dataloader.pipeline: DataLoader has no such argument'
    ),
}


def with_stand_ins(path: Path, folder: Path) -> Any:
    """Read a config; its data sets become lists of one video."""
    (folder / 'video').touch()
    cfg = Config.fromfile(path)
    cfg.work_dir = str(folder)
    for stage in ('train', 'val', 'test'):
        for dataset in data_sets((cfg.get(f'{stage}_dataloader') or {}).get('dataset')):
            # a video and its label, or a folder of frames, their number and a label
            line = ['video', '0'] if dataset.type == 'VideoDataset' else ['video', '1', '0']
            dataset.ann_file = str(folder / f'{stage}.txt')
            Path(dataset.ann_file).write_text(dataset.get('delimiter', ' ').join(line))
            dataset.data_prefix = {key: str(folder) for key in dataset.get('data_prefix', ())}
    return cfg


def data_sets(dataset: Any) -> Any:
    if dataset is not None and 'ann_file' in dataset:
        yield dataset
    for inner in [(dataset or {}).get('dataset'), *(dataset or {}).get('datasets', ())]:
        if inner is not None:
            yield from data_sets(inner)


def check(cfg: Any) -> None:
    for purpose in ('train', 'test'):
        if cfg.get(f'{purpose}_dataloader') is not None:
            check_config(cfg, purpose)


@pytest.mark.parametrize(
    'path',
    [pytest.param(x, marks=() if x.stem in SAMPLE else pytest.mark.slow) for x in CONFIGS],
    ids=lambda path: path.stem,
)
def test_a_config_of_mmaction2_passes_or_lacks_a_package(path: Path, tmp_path: Path) -> None:
    cfg = with_stand_ins(path, tmp_path)
    place, package = MISSING.get(path.stem, ('', ''))
    if path.stem in WRONG:
        with pytest.raises(TypeError, match=WRONG[path.stem]):
            check(cfg)
        return
    if package and find_spec(package) is None:
        with pytest.raises(ValueError, match=f'{place}.* needs the package {package}, which is no'):
            check(cfg)
        if place == BACKBONE:
            return
        for stage in ('train', 'val', 'test'):
            for dataset in data_sets((cfg.get(f'{stage}_dataloader') or {}).get('dataset')):
                dataset.pipeline = [step for step in dataset.pipeline if step.type != STEP]
    check(cfg)


def test_all_configs_are_there() -> None:
    names = {path.stem for path in CONFIGS}
    assert len(CONFIGS) == 119
    assert {*SAMPLE, *MISSING, *WRONG} <= names
