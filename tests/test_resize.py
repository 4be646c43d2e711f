import numpy as np
import pytest
import torch
from PIL import Image

from mmtimesformer.checkpoints import convert_state_dict
from mmtimesformer.resize import resize_positions, resize_times
from tests.checkpoints.conftest import as_official, random_weights

WAYS = ('grid', 'legacy-1d-nearest')


@pytest.mark.parametrize('mode', WAYS)
def test_the_same_grid_gives_the_very_same_tensor(mode: str) -> None:
    positions, times = torch.randn(1, 1 + 2 * 5, 3), torch.randn(1, 7, 3)
    assert resize_positions(positions, (2, 5), (2, 5), mode) is positions
    assert resize_times(times, 7, mode) is times


@pytest.mark.parametrize('mode', WAYS)
@pytest.mark.parametrize('grid', [(3, 3), (4, 7), (1, 11), (2, 2)])
def test_a_constant_grid_stays_constant(grid: tuple[int, int], mode: str) -> None:
    positions = torch.full((1, 1 + 2 * 5, 3), 0.7)
    resized = resize_positions(positions, (2, 5), grid, mode)
    assert resized.shape == (1, 1 + grid[0] * grid[1], 3)
    torch.testing.assert_close(resized, torch.full_like(resized, 0.7))


@pytest.mark.parametrize('grid', [(24, 32), (12, 16), (5, 7), (3, 20)])
def test_positions_are_resized_as_pillow_resizes_a_picture(grid: tuple[int, int]) -> None:
    """Bicubic with antialias, by an implementation that is not torch's."""
    picture = torch.rand(12, 16)
    positions = torch.cat([torch.zeros(1, 1, 1), picture.reshape(1, -1, 1)], 1)
    resized = resize_positions(positions, (12, 16), grid)[0, 1:, 0].reshape(grid)
    expected = Image.fromarray(picture.numpy()).resize(grid[::-1], Image.Resampling.BICUBIC)
    torch.testing.assert_close(resized, torch.tensor(np.array(expected)), rtol=0, atol=1e-5)


def test_rows_and_columns_are_not_mixed_up() -> None:
    rows = torch.arange(3.0).repeat_interleave(5).reshape(1, 15, 1)
    resized = resize_positions(torch.cat([torch.zeros(1, 1, 1), rows], 1), (3, 5), (6, 4))
    image = resized[0, 1:, 0].reshape(6, 4)
    assert (image.diff(dim=0) > 0).all()  # grows down the rows
    torch.testing.assert_close(image, image[:, :1].expand(6, 4))  # and nowhere else


def test_the_class_tokens_position_is_not_resized() -> None:
    positions = torch.randn(1, 10, 3)
    assert torch.equal(resize_positions(positions, (3, 3), (5, 4))[:, 0], positions[:, 0])


def test_times_on_a_line_stay_on_it() -> None:
    times = torch.linspace(0, 1, 8).reshape(1, 8, 1)
    resized = resize_times(times, 16)[0, :, 0]
    torch.testing.assert_close(resized[1:-1].diff(), torch.full((13,), 1 / 14))


def test_the_legacy_way_takes_the_nearest_along_one_line() -> None:
    positions = torch.cat([torch.zeros(1), torch.arange(1.0, 5)]).reshape(1, 5, 1)
    resized = resize_positions(positions, (2, 2), (4, 4), 'legacy-1d-nearest')[0, 1:, 0]
    assert resized.tolist() == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4
    times = torch.tensor([[1.0], [2.0]]).reshape(1, 2, 1)
    assert resize_times(times, 4, 'legacy-1d-nearest')[0, :, 0].tolist() == [1, 1, 2, 2]


def test_the_legacy_way_puts_7_percent_of_the_patches_of_448_pixels_where_they_were() -> None:
    patches = torch.arange(196.0).reshape(1, 196, 1)
    whole = torch.cat([torch.zeros(1, 1, 1), patches], 1)
    line = resize_positions(whole, (14, 14), (28, 28), 'legacy-1d-nearest')[0, 1:, 0]
    on_grid = patches.reshape(14, 14).repeat_interleave(2, 0).repeat_interleave(2, 1).flatten()
    assert 0.06 < (line == on_grid).float().mean() < 0.08


def test_a_grid_that_does_not_hold_the_positions_is_refused() -> None:
    with pytest.raises(ValueError, match='has 10 rows, but .* 2 x 5 patches need 11'):
        resize_positions(torch.zeros(1, 10, 3), (2, 5), (3, 3))


def test_a_conversion_resizes_to_a_size_that_is_not_square() -> None:
    weights = random_weights()
    converted, load_report = convert_state_dict(
        as_official(weights), num_frames=8, img_size=(10, 30)
    )
    assert converted['backbone.pos_embed'].shape == (1, 1 + 2 * 6, 20)
    assert converted['backbone.time_embed'].shape == (1, 8, 20)
    assert load_report.keys('resized') == ['time_embed', 'pos_embed']
    assert torch.equal(
        converted['backbone.pos_embed'], resize_positions(weights['pos_embed'], (3, 3), (2, 6))
    )
