"""The conformance suite: what every clip mode found in conf/clip promises, whatever its formula."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import hydra.utils
import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor

from trainer.clipping import ClipByNorm, ClipByValue, NoClip, rescaled, total_norm

MODES = sorted((ROOT / "conf" / "clip").glob("*.yaml"))
NORM_FAMILY = [ClipByNorm(1.0), ClipByNorm(1.0, 1), ClipByNorm(1.0, math.inf)]


def build(mode: Path) -> Any:
    return hydra.utils.instantiate(OmegaConf.load(mode), _convert_="all")


def gradients(scale: float = 1.0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(5, 3), (5,), (), (2, 5, 1, 1)]
    return [scale * torch.randn(s, generator=generator, dtype=dtype) for s in shapes]


def clip(mode: Any, grads: list[Tensor]) -> list[Tensor]:
    """The gradients after the mode and the multiplication it may leave to the commit."""
    grads = [g.clone() for g in grads]
    clipped = mode(grads, total_norm(grads, mode.norm_type))
    if clipped.coefficient is not None:
        torch._foreach_mul_(grads, clipped.coefficient)
    return grads


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


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


@settings(max_examples=50, deadline=None)
@given(
    scale=st.floats(1e-3, 1e6),
    max_norm=st.floats(1e-3, 1e3),
    norm_type=st.sampled_from([1, 2, math.inf]),
)
def test_norm_brings_the_norm_within_the_bound_and_keeps_the_direction(
    scale: float, max_norm: float, norm_type: float
) -> None:
    grads = gradients(scale)
    after = clip(ClipByNorm(max_norm, norm_type), grads)
    assert total_norm(after, norm_type).item() <= max_norm * (1 + 1e-6)
    flat, flat_after = (torch.cat([g.flatten() for g in x]).double() for x in (grads, after))
    assert torch.cosine_similarity(flat, flat_after, dim=0).item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, math.inf])
def test_norm_equals_the_published_formula_in_float64(norm_type: float) -> None:
    grads = gradients(10.0, torch.float64)
    norm = torch.linalg.vector_norm(torch.cat([g.flatten() for g in grads]), norm_type)
    expected = [g * min(1.0, 1.0 / (norm.item() + 1e-6)) for g in grads]
    for got, want in zip(clip(ClipByNorm(1.0, norm_type), grads), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-14, atol=0)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, math.inf])
def test_total_norm_is_that_of_all_gradients_as_one_vector(norm_type: float) -> None:
    grads = gradients(3.0, torch.float64)
    flat = torch.cat([g.flatten() for g in grads])
    expected = torch.linalg.vector_norm(flat, norm_type)
    torch.testing.assert_close(total_norm(grads, norm_type), expected, rtol=1e-14, atol=0)


def test_value_equals_clamp() -> None:
    grads = gradients(3.0)
    expected = [g.clamp(-0.5, 0.5) for g in grads]
    assert same(clip(ClipByValue(0.5), grads), expected)


def test_value_reports_the_norm_after() -> None:
    grads = [torch.tensor([3.0, -4.0])]
    clipped = ClipByValue(1.0)(grads, total_norm(grads))
    assert clipped.norm is not None
    assert clipped.norm.item() == pytest.approx(math.sqrt(2))


def test_one_formula_serves_many_members() -> None:
    norms = torch.tensor([0.5, 2.0, math.nan, math.inf, 1.0], dtype=torch.float64)
    together = rescaled(norms, 1.0).coefficient
    assert together is not None
    assert together.tolist() == [1.0, 1.0 / (2.0 + 1e-6), 1.0, 1.0, 1.0]
    for norm, expected in zip(norms, together, strict=True):
        alone = rescaled(norm, 1.0).coefficient  # None: nothing to multiply
        assert (1.0 if alone is None else alone) == expected.item()


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, True, "1", None])
@pytest.mark.parametrize("part", [ClipByNorm, ClipByValue])
def test_a_bound_that_cannot_be_meant_is_refused(part: Any, bad: Any) -> None:
    with pytest.raises(ValueError, match=r"^(max_norm|clip_value) must be .* use clip=none"):
        part(bad)


@pytest.mark.parametrize("bad", [0, 3, -2, True, "two", None, math.nan])
def test_a_norm_type_that_is_not_1_2_or_inf_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="norm_type must be 1, 2 or inf"):
        ClipByNorm(1.0, bad)


def test_no_gradient_at_all_is_named() -> None:
    with pytest.raises(ValueError, match="no parameter received a gradient"):
        total_norm([])
