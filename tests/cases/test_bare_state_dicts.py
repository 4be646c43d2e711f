"""W11: a bare state dict of a model whose frames are not square loads into the identical model."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from mmtimesformer import TimeSformer
from mmtimesformer.checkpoints import (
    CheckpointError,
    adapt_checkpoint,
    load_checkpoint,
    read_checkpoint,
    read_model_checkpoint,
    save_checkpoint,
)
from mmtimesformer.checkpoints.convert import WRITABLE
from mmtimesformer.engine.checkpointing.pretrained import Pretrained
from tests.checkpoints.conftest import (
    PATCH,
    SCHEMES,
    VIDEO_FILES,
    Recognizer,
    as_jax,
    of_images,
    random_weights,
    toy,
)

WIDE = (2 * PATCH, 10 * PATCH)  # 20 patches, of no square
CHANCE = (4 * PATCH, 9 * PATCH)  # 36 patches, as many as 6 x 6
SQUARE = (6 * PATCH, 6 * PATCH)


def bare(model: torch.nn.Module, path: Path) -> Path:
    if path.suffix == '.safetensors':
        from safetensors.torch import save_file

        save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    return path


def build(kind: type, **changes: Any) -> torch.nn.Module:
    return kind(**changes) if kind is Recognizer else kind(**toy(**changes))


def assert_same(model: torch.nn.Module, other: torch.nn.Module) -> None:
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def load_by_mmengine(model: torch.nn.Module, path: Path) -> None:
    """Load as tools/test.py does: MMEngine reads, then the hook adapts, then MMEngine loads."""
    checkpoint = read_model_checkpoint(str(path))
    adapt_checkpoint(checkpoint, model)
    model.load_state_dict(checkpoint['state_dict'])


@pytest.mark.filterwarnings('ignore:pos_embed has 36 patches')
@pytest.mark.parametrize('size', [WIDE, CHANCE], ids=['20 patches', '36 patches'])
@pytest.mark.parametrize('load', [load_checkpoint, load_by_mmengine, 'init_cfg'])
@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
@pytest.mark.parametrize('kind', [TimeSformer, Recognizer])
@pytest.mark.parametrize('scheme', SCHEMES)
def test_a_bare_state_dict_loads_into_the_identical_model_bit_for_bit(
    scheme, kind, ending, load, size, tmp_path
) -> None:
    model = build(kind, attention_type=scheme, img_size=size, num_frames=5)
    path = bare(model, tmp_path / f'a{ending}')
    again = build(kind, attention_type=scheme, img_size=size, num_frames=5)
    if load == 'init_cfg':
        Pretrained(str(path))(again)
    else:
        load(again, path)
    assert_same(again, model)


@pytest.mark.parametrize('kind', VIDEO_FILES)
def test_a_file_of_another_system_without_a_size_takes_the_grid_of_the_model(
    kind, tmp_path
) -> None:
    weights = random_weights()
    weights['pos_embed'] = torch.randn(1, 1 + 2 * 10, weights['pos_embed'].shape[-1])
    VIDEO_FILES[kind](weights, tmp_path / 'a')
    for load in (load_checkpoint, load_by_mmengine):
        model = Recognizer(img_size=WIDE)
        load(model, tmp_path / 'a')
        assert torch.equal(model.backbone.pos_embed, weights['pos_embed'])


@pytest.mark.parametrize('to', WRITABLE)
@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
@pytest.mark.parametrize('size', [WIDE, CHANCE], ids=['20 patches', '36 patches'])
def test_every_format_keeps_a_grid_that_is_not_square(to, ending, size, tmp_path) -> None:
    model = Recognizer(img_size=size)
    if to == 'huggingface' and ending == '.pth' and size == CHANCE:
        with pytest.raises(CheckpointError, match='end the path with .safetensors'):
            save_checkpoint(model, tmp_path / 'a.pth', to)
        return
    save_checkpoint(model, tmp_path / f'a{ending}', to)
    again = Recognizer(img_size=size)
    load_checkpoint(again, tmp_path / f'a{ending}')
    assert_same(again, model)


def test_of_two_grids_that_fit_the_metadata_decides(tmp_path) -> None:
    square = Recognizer(img_size=SQUARE)
    save_checkpoint(square, tmp_path / 'a.pth')
    model = Recognizer(img_size=CHANCE)
    load_report = load_checkpoint(model, tmp_path / 'a.pth')
    assert load_report.keys('resized') == ['pos_embed']
    assert '6 x 6 to 4 x 9 patches' in load_report.table()


def test_of_two_grids_that_fit_a_bare_file_the_choice_is_a_warning(tmp_path) -> None:
    path = bare(TimeSformer(**toy(img_size=SQUARE)), tmp_path / 'a.pth')
    with pytest.warns(UserWarning, match=r'6 x 6 or 4 x 9; taken as 4 x 9.*--source-size 30'):
        load_checkpoint(TimeSformer(**toy(img_size=CHANCE)), path)


def test_a_square_image_vit_of_as_many_patches_is_resized(tmp_path) -> None:
    weights = random_weights('space_only', grid=6)
    import numpy as np

    with (tmp_path / 'a.npz').open('wb') as file:
        np.savez(file, **as_jax(of_images(weights)))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        load_report = load_checkpoint(TimeSformer(**toy(img_size=CHANCE)), tmp_path / 'a.npz')
    assert '6 x 6 to 4 x 9 patches' in load_report.table()


def test_mmaction2s_file_of_two_possible_grids_is_refused(tmp_path) -> None:
    VIDEO_FILES['mmaction2'](random_weights(grid=6), tmp_path / 'a')
    with pytest.raises(CheckpointError, match='6 x 6 or 4 x 9; give the height and width'):
        load_checkpoint(Recognizer(img_size=CHANCE), tmp_path / 'a')
    load_report = load_checkpoint(Recognizer(img_size=CHANCE), tmp_path / 'a', source_size=SQUARE)
    assert '6 x 6 to 4 x 9 patches' in load_report.table()


def test_a_source_size_that_contradicts_the_metadata_is_refused(tmp_path) -> None:
    save_checkpoint(Recognizer(img_size=CHANCE), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='source_size=30 x 30 differs from img_size=20 x 45'):
        load_checkpoint(Recognizer(img_size=CHANCE), tmp_path / 'a.pth', source_size=SQUARE)


def test_a_conversion_without_a_size_keeps_the_positions_and_says_what_it_does_not_know(
    tmp_path,
) -> None:
    model = Recognizer(img_size=WIDE)
    bare(model, tmp_path / 'a.pth')
    weights = read_checkpoint(tmp_path / 'a.pth')
    assert weights.grid is None
    assert '--source-size' in weights.load_report.warnings[0]
    save_checkpoint(weights, tmp_path / 'b.pth')
    again = Recognizer(img_size=WIDE)
    load_checkpoint(again, tmp_path / 'b.pth')
    assert_same(again, model)
    with pytest.raises(CheckpointError, match='20 patches .* which is not a square grid'):
        save_checkpoint(read_checkpoint(tmp_path / 'a.pth'), tmp_path / 'hf', 'huggingface')


def test_a_conversion_to_the_size_that_it_has_is_the_identity(tmp_path) -> None:
    model = Recognizer(img_size=WIDE)
    bare(model, tmp_path / 'a.pth')
    weights = read_checkpoint(tmp_path / 'a.pth', img_size=WIDE)
    assert weights.img_size == WIDE
    assert torch.equal(weights.tensors['pos_embed'], model.backbone.pos_embed)


def test_a_conversion_of_two_possible_grids_is_refused(tmp_path) -> None:
    bare(Recognizer(img_size=CHANCE), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=r'6 x 6 or 4 x 9; give .* \(--source-size\)'):
        read_checkpoint(tmp_path / 'a.pth', img_size=CHANCE)
    weights = read_checkpoint(tmp_path / 'a.pth', img_size=CHANCE, source_size=CHANCE)
    assert not weights.load_report.keys('resized')


def test_another_number_of_patches_still_needs_its_size(tmp_path) -> None:
    path = bare(Recognizer(img_size=WIDE), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='20 patches of 5 pixels, which is not a square grid'):
        load_checkpoint(Recognizer(img_size=(15, 25)), path)
