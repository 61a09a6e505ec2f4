"""Maps are drawn and resampled where the image is."""

from types import SimpleNamespace

import numpy as np
import torch
from matplotlib.figure import Figure

from nnunet_attn.architectures import EMCAD
from nnunet_attn.maps.figure import draw_panel
from nnunet_attn.maps.volume import padded_size, plane_of_image, to_preprocessed, to_tile


def drawn(values: np.ndarray, reach: tuple, tile: np.ndarray, inside: tuple, padded: tuple):
    """The axes with a panel of attention."""
    axes = Figure().subplots()
    found = SimpleNamespace(tile=((), inside), tile_image=tile[None], padded=padded)
    draw_panel(axes, "attention", "title", (values, reach), found)
    return axes


def test_windows_are_drawn_where_they_lie():
    """Windows of 7 on 16 x 10 pixels, and on the same tile padded to 32 x 32 by the network."""
    tile = np.zeros((16, 10))
    axes = drawn(np.ones((3, 2)), (21 / 16, 14 / 10), tile, (15, 9), (16, 10))
    np.testing.assert_allclose(axes.images[1].get_extent(), (-0.5, 13.5, 20.5, -0.5))
    assert axes.get_xlim() == (-0.5, 9.5)
    assert axes.get_ylim() == (15.5, -0.5)
    axes = drawn(np.ones((8, 8)), (), tile, (15, 9), (32, 32))
    assert axes.images[1].get_extent() == [-0.5, 31.5, 31.5, -0.5]
    assert axes.get_ylim() == (15.5, -0.5)


def test_the_slice_of_the_windows_is_that_of_the_marked_voxel():
    values = np.arange(3.0)[:, None, None] * np.ones((3, 4, 4))  # windows of 7 slices on 16
    for depth, window in ((0, 0), (6, 0), (7, 1), (13, 1), (14, 2), (15, 2)):
        axes = drawn(values, (21 / 16, 1, 1), np.zeros((16, 8, 8)), (depth, 4, 4), (16, 8, 8))
        assert (axes.images[1].get_array() == window).all()


def test_maps_of_a_padded_tile_are_cropped():
    padded = padded_size(EMCAD(1, 2), (40, 56))
    assert padded == (64, 64)
    assert padded_size(torch.nn.Identity(), (40, 56)) == (40, 56)
    columns = torch.arange(16.0).expand(1, 16, 16)  # of four pixels
    found = to_tile(columns, (40, 56), padded)
    assert found.shape == (40, 56)
    expected = np.clip((np.arange(56) + 0.5) / 4 - 0.5, 0, 15)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=1e-5)


def test_the_number_of_a_slice_is_that_of_the_image():
    """Three slices are cropped, each other one is two on the preprocessed grid; --slice takes the image's number."""
    back, shape = {"box": (slice(3, 9), slice(0, 5), slice(0, 7)), "cropped": (6, 5, 7)}, (12, 5, 7)
    for transpose, axis in (([0, 1, 2], "z"), ([1, 0, 2], "y"), ([2, 0, 1], "x")):
        model = {"transpose_forward": transpose}
        assert plane_of_image((7, 0, 0), back, shape, model) == (axis, 6)
    assert to_preprocessed((6, 2, 2), back, shape, {"transpose_forward": [0, 1, 2]})[0] in (6, 7)
