"""Images enlarged by whole factors, in three rows."""

import math
from typing import Any

import numpy as np
import pytest

from trainer.pictures.strip import strip


def images(count: int = 12, size: int = 8) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).random((count, 1, size, size))


def test_strip_is_three_rows_of_enlarged_tiles() -> None:
    clean = images()
    picture = strip(np.zeros_like(clean), np.ones_like(clean), clean)
    assert picture.dtype == np.uint8
    # Ten of the twelve images, 8 pixels enlarged to 64, two pixels between.
    assert picture.shape == (3 * 64 + 2 * 2, 10 * 64 + 9 * 2, 3)
    assert (picture[:64, :64] == 0).all()
    assert (picture[66:130, :64] == 255).all()
    assert (picture[64:66] == 255).all()
    tile = picture[132:, :64]
    assert (tile[::8, ::8, 0] == np.rint(255 * clean[0, 0])).all()
    assert (tile[:8, :8] == tile[0, 0]).all()


def test_strip_takes_colour_small_inputs_and_broken_predictions() -> None:
    target = np.random.default_rng(0).random((2, 3, 16, 24))
    prediction = target.copy()
    prediction[0, :, :2] = [[[math.nan]], [[math.inf]], [[-math.inf]]]
    prediction[1] = 7.0
    picture = strip(target[:, :1, ::2, ::2], prediction, target)
    scale = round(64 / 24)
    assert picture.shape == (3 * 16 * scale + 4, 2 * 24 * scale + 2, 3)
    row = 16 * scale + 2
    assert (picture[row, : 24 * scale] == 0).all()
    assert (picture[row, 24 * scale + 2 :] == 255).all()
    assert (picture[2 * row, 0] == np.rint(255 * target[0, :, 0, 0])).all()


def test_strip_of_nothing_is_refused() -> None:
    empty = np.zeros((0, 1, 8, 8))
    with pytest.raises(ValueError, match="at least one image"):
        strip(empty, empty, empty)
