"""The conformance suite: what every clip mode found in conf/clip promises, whatever its formula."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import hydra.utils
import pytest
import torch
from clips import clip, gradients, same
from conftest import ROOT
from omegaconf import OmegaConf

from trainer.clipping import ClipByNorm, ClipByValue, NoClip, total_norm

MODES = sorted((ROOT / "conf" / "clip").glob("*.yaml"))


def build(mode: Path) -> Any:
    return hydra.utils.instantiate(OmegaConf.load(mode), _convert_="all")


@pytest.mark.parametrize("mode", MODES, ids=lambda m: m.stem)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
class TestEveryMode:
    def test_leaves_a_small_gradient_bit_for_bit(self, mode: Path, dtype: torch.dtype) -> None:
        grads = gradients(1e-4, dtype)
        assert same(clip(build(mode), grads), grads)

    def test_keeps_dtype_and_never_lengthens(self, mode: Path, dtype: torch.dtype) -> None:
        clipper, grads = build(mode), gradients(1e3, dtype)
        after = clip(clipper, grads)
        assert [g.dtype for g in after] == [dtype] * len(grads)
        norms = [total_norm(g, clipper.norm_type).item() for g in (after, grads)]
        assert norms[0] <= norms[1]

    def test_clipping_twice_changes_nothing_more(self, mode: Path, dtype: torch.dtype) -> None:
        if dtype == torch.bfloat16:
            pytest.skip("a bfloat16 entry is rounded by more than the margin of 1e-6")
        once = clip(build(mode), gradients(1e3, dtype))
        assert same(clip(build(mode), once), once)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_does_not_touch_a_non_finite_gradient(
        self, mode: Path, dtype: torch.dtype, bad: float
    ) -> None:
        # clip_grad_norm_ makes every entry NaN after one NaN, and after one inf NaN there and 0
        # elsewhere; clip_grad_value_ turns the inf into an ordinary value.
        grads = gradients(1e3, dtype)
        grads[0][1, 1] = bad
        after = clip(build(mode), grads)
        assert all(torch.equal(a, b) for a, b in zip(after[1:], grads[1:], strict=True))
        assert torch.equal(after[0].nan_to_num(7.0), grads[0].nan_to_num(7.0))

    def test_takes_all_zero_gradients(self, mode: Path, dtype: torch.dtype) -> None:
        grads = [torch.zeros_like(g) for g in gradients(dtype=dtype)]
        assert same(clip(build(mode), grads), grads)

    def test_brings_entries_of_3e30_down_instead_of_to_zero(
        self, mode: Path, dtype: torch.dtype
    ) -> None:
        # clip_grad_norm_'s float32 sum of squares overflows here, and it zeroes everything.
        grads = [torch.full((4,), 3e30, dtype=dtype), torch.full((2,), -3e30, dtype=dtype)]
        after = torch.cat(clip(build(mode), grads)).double()
        assert torch.isfinite(after).all()
        assert (after.abs() > 0).all()
        if not isinstance(build(mode), NoClip):
            assert after.abs().max() <= 1.0

    def test_restores_its_state(self, mode: Path, dtype: torch.dtype) -> None:
        first, second = build(mode), build(mode)
        clip(first, gradients(10.0, dtype))
        second.load_state_dict(first.state_dict())
        grads = gradients(3.0, dtype)
        assert same(clip(first, grads), clip(second, grads))


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, True, "1", None])
@pytest.mark.parametrize("part", [ClipByNorm, ClipByValue])
def test_a_bound_that_cannot_be_meant_is_refused(part: Any, bad: Any) -> None:
    with pytest.raises(ValueError, match=r"^(max_norm|clip_value) must be .* use clip=none"):
        part(bad)
