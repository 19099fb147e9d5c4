"""What is plain data, and that nothing else gets into a checkpoint. What is read: test_security.py."""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainer import checkpoint
from trainer.plain import DTYPES, check_plain


def test_a_tree_of_plain_data_passes() -> None:
    leaves = [1, 1.5, True, None, "a", 1j, *(torch.ones(2, dtype=dtype) for dtype in DTYPES)]
    check_plain({"a": leaves, "b": (OrderedDict(c={1, 2}), torch.Size([3]))}, math.inf)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (np.float64(1.0), "numpy.float64"),
        (Path("x"), "PosixPath"),
        (torch.ones(2).to_sparse(), "sparse"),
        (torch.ones(2, dtype=torch.uint16), "uint16"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_could_not_be_read_again_is_refused_when_it_is_written(
    tmp_path: Path, value: Any, named: str
) -> None:
    with pytest.raises(TypeError, match=rf"the state of clip holds a .*{named}.* no checkpoint can"):
        checkpoint.save(tmp_path / "a.ckpt", {"model": {}, "clip": {"history": [value]}})
    assert not list(tmp_path.iterdir())
