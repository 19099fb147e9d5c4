"""Lines of a picture: few points, and every peak."""

import math

import numpy as np

from trainer.pictures import drawing


def test_a_long_record_is_thinned_but_keeps_its_peaks_and_gaps() -> None:
    steps, values = np.arange(50_000.0), np.ones(50_000)
    values[12_345], values[40_001], values[20_002] = 99.0, -99.0, math.nan
    kept, thin = drawing.thinned(steps, values)
    assert len(kept) <= drawing.MOST_POINTS + 3
    assert (np.diff(kept) > 0).all()
    assert {0.0, 12_345.0, 20_002.0, 40_001.0, 49_999.0} <= set(kept.tolist())
    assert np.nanmax(thin) == 99.0
    assert np.isnan(thin).sum() == 1
