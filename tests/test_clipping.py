"""The conformance suite: what every clip mode found in conf/clip promises, whatever its formula.

A mode added to the folder is held to all of it the same day. The net is that of `clips`: it has a layer
that is always silent, one that starts at zero, sparse rows, tied weights. Its gradients of scale 1 have
a norm near 8."""

from __future__ import annotations

import copy
import io
import math
from pathlib import Path
from typing import Any

import hydra.utils
import pytest
import torch
from clips import Net, bound, clip, copies, found, gradients, same, tensors, train
from conftest import ROOT
from omegaconf import OmegaConf
from torch import nn

from trainer.clipping import NoClip, total_norm
from trainer.data.tensors import TensorData
from trainer.loop import Trainer

MODES = sorted((ROOT / "conf" / "clip").glob("*.yaml"))
DTYPES = [torch.float32, torch.float64, torch.bfloat16]
ORDINARY = [0.04] * 120  # longer than any warm-up
every_mode = pytest.mark.parametrize("path", MODES, ids=lambda path: path.stem)


def build(path: Path) -> Any:
    return hydra.utils.instantiate(OmegaConf.load(path), _convert_="all")


def saved(state: Any) -> Any:
    """What a checkpoint gives back."""
    torch.save(state, buffer := io.BytesIO())
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


NORM_FAMILY = [path for path in MODES if hasattr(build(path), "threshold")]


@every_mode
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
class TestEveryGradient:
    def test_a_small_one_is_left_bit_for_bit(self, path: Path, dtype: torch.dtype) -> None:
        mode, net, _ = bound(build(path), dtype)
        before = copies(gradients(net, 1e-7))
        assert same(clip(mode, found(net)), before)

    def test_a_large_one_is_bounded_and_points_the_same_way_entry_by_entry(
        self, path: Path, dtype: torch.dtype
    ) -> None:
        mode, net, _ = bound(build(path), dtype)
        before = copies(gradients(net, 1e3))
        after = clip(mode, found(net))
        for (name, _), a, b in zip(net.named_parameters(), after, before, strict=True):
            assert a.dtype == dtype
            assert (a.abs() <= b.abs()).all()
            assert (a * b >= 0).all()
            assert ((a != 0) == (b != 0)).all(), f"{name}: an entry is silenced for good"
            if not (isinstance(mode, NoClip) or name in ("embedding.weight", "head.bias")):
                assert a.abs().max() <= 1.0, name  # but the head's, which a mode may leave alone

    def test_the_second_time_nothing_changes(self, path: Path, dtype: torch.dtype) -> None:
        if dtype == torch.bfloat16:
            pytest.skip("a bfloat16 entry is rounded by more than the margin of 1e-6")
        mode, net, _ = bound(build(path), dtype)
        before = copy.deepcopy(mode.state_dict())
        gradients(net, 30.0)
        once = clip(mode, found(net))
        mode.load_state_dict(before)
        assert same(clip(mode, found(net)), once)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_one_bad_entry_leaves_all_as_it_is_and_enters_no_statistic(
        self, path: Path, dtype: torch.dtype, bad: float
    ) -> None:
        # clip_grad_norm_ makes [3, nan, 4] all NaN and [3, inf, 4] to [0, nan, 0]; clip_grad_value_
        # turns [nan, inf, 2] into [nan, 0.5, 0.5], so that the inf is no longer found.
        mode, net, optimizer = bound(build(path), dtype)
        train(mode, net, optimizer, [0.04] * 3)
        state = copies(tensors(mode.state_dict()))
        gradients(net, 1e3)[2][1, 1] = bad
        before = copies(found(net))
        assert same(clip(mode, found(net)), before)
        assert same(tensors(mode.state_dict()), state)

    def test_all_zeros_stay_and_do_not_silence_what_comes_after(
        self, path: Path, dtype: torch.dtype
    ) -> None:
        mode, net, optimizer = bound(build(path), dtype)
        for _ in range(2):
            before = copies(gradients(net, 0.0))
            assert same(clip(mode, found(net)), before)
            optimizer.step()
        before = copies(gradients(net))
        assert all(
            ((a != 0) == (b != 0)).all() for a, b in zip(clip(mode, found(net)), before, strict=True)
        )
        assert all(tensor.isfinite().all() for tensor in tensors(mode.state_dict()))

    def test_entries_of_3e30_come_down_instead_of_to_zero(self, path: Path, dtype: torch.dtype) -> None:
        # clip_grad_norm_'s float32 sum of squares overflows here: [3e30] * 4 becomes [0] * 4.
        mode, net, _ = bound(build(path), dtype)
        gradients(net, 0.0)
        net.mix.weight.grad = torch.full((4, 12), 3e30, dtype=dtype)
        clip(mode, found(net))
        after = net.mix.weight.grad
        assert after.isfinite().all()
        assert (after > 0).all()
        assert isinstance(mode, NoClip) or after.max() <= 1.0
        assert all(tensor.isfinite().all() for tensor in tensors(mode.state_dict()))


@every_mode
class TestEveryRun:
    def test_a_spike_is_held_after_the_warm_up_too(self, path: Path) -> None:
        mode, net, optimizer = bound(build(path))
        train(mode, net, optimizer, ORDINARY)
        before = copies(gradients(net, 1e5))
        after = clip(mode, found(net))
        for name, a, b in zip(dict(net.named_parameters()), after, before, strict=True):
            assert ((a != 0) == (b != 0)).all(), name
            if not (isinstance(mode, NoClip) or name in ("embedding.weight", "head.bias")):
                assert a.abs().max() < 20, name  # √θ = 70 times 0.04 is the loosest

    def test_an_odd_first_gradient_is_got_over(self, path: Path) -> None:
        after = []
        for first in (0.04, 0.0, 1e-30, 1e6):
            mode, net, optimizer = bound(build(path))
            train(mode, net, optimizer, [first, *ORDINARY])
            gradients(net, 0.04, seed=7)
            after.append(total_norm(clip(mode, found(net))).item())
        assert 0.5 * after[0] <= min(after)
        assert max(after) <= 2 * after[0]

    def test_a_layer_that_was_silent_can_still_learn(self, path: Path) -> None:
        mode, net, optimizer = bound(build(path))
        train(mode, net, optimizer, ORDINARY)
        gradients(net, 0.04)
        net.silent.weight.grad = torch.full((4, 4), 0.04)
        clip(mode, found(net))
        assert (net.silent.weight.grad > 1e-6).all()

    def test_rows_without_a_gradient_stay_so(self, path: Path) -> None:
        mode, net, optimizer = bound(build(path))
        train(mode, net, optimizer, [5.0] * 3)
        gradients(net, 5.0)
        clip(mode, found(net))
        assert (net.embedding.weight.grad[:3] != 0).all()
        assert (net.embedding.weight.grad[3:] == 0).all()

    def test_a_gradient_that_is_missing_shifts_nothing(self, path: Path) -> None:
        after = []
        for missing in (False, True):
            mode, net, optimizer = bound(build(path))
            train(mode, net, optimizer, [0.04, 0.1])
            gradients(net, 2.0)
            net.up.weight.grad = None if missing else torch.zeros_like(net.up.weight)
            clip(mode, found(net))
            gradients(net, 3.0)
            after.append(clip(mode, found(net)))
        assert same(*after)

    @pytest.mark.parametrize("cut", [0, 7, 110])
    def test_its_state_goes_through_a_checkpoint(self, path: Path, cut: int) -> None:
        first, net, optimizer = bound(build(path))
        train(first, net, optimizer, [0.04] * cut)
        second, other, twin = bound(build(path))
        other.load_state_dict(net.state_dict())
        twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        second.load_state_dict(saved(first.state_dict()))
        for mode, model, steps in ((first, net, optimizer), (second, other, twin)):
            train(mode, model, steps, [0.05, 3.0, 0.04], seed=500)
            assert all(tensor.isfinite().all() for tensor in tensors(mode.state_dict()))
        assert same(list(net.parameters()), list(other.parameters()))
        assert same(tensors(first.state_dict()), tensors(second.state_dict()))

    def test_no_step_waits_for_the_device(self, path: Path) -> None:
        # A tensor on "meta" has no values: whoever asks for one fails here, and waits on a GPU.
        mode, net = build(path), Net().to("meta")
        optimizer = torch.optim.Adam(net.parameters())
        if hasattr(mode, "bind"):
            mode.bind(net, optimizer)
        for _ in range(2):
            for parameter in net.parameters():
                parameter.grad = torch.ones_like(parameter)
                optimizer.state[parameter] = {"exp_avg_sq": torch.ones_like(parameter)}
            clip(mode, found(net))
        assert all(tensor.is_meta for tensor in tensors(mode.state_dict()))

    def test_a_state_that_was_taken_does_not_move_on(self, path: Path) -> None:
        mode, net, optimizer = bound(build(path))
        train(mode, net, optimizer, [0.04] * 3)
        state = mode.state_dict()
        before = copies(tensors(state))
        train(mode, net, optimizer, [0.07] * 3)
        assert same(tensors(state), before)


@pytest.mark.parametrize("path", NORM_FAMILY, ids=lambda path: path.stem)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_of_many_members_each_is_clipped_as_it_would_be_alone(path: Path, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    norms = torch.rand(60, 5, generator=generator, dtype=dtype) + 0.5
    norms[40] *= 50
    norms[3, 1] = norms[20, 1] = math.nan  # refused, of this member alone
    norms[:4, 2] = math.inf
    norms[::2, 3] = 0.0
    norms[0, 4] = 1e6
    together = build(path)
    alone = [build(path) for _ in range(5)]
    for step in norms:
        before = step.clone()
        clipped = together([], step)
        assert torch.equal(step.nan_to_num(7), before.nan_to_num(7))
        for member, mode in enumerate(alone):
            single = mode([], step[member]).coefficient
            expected = torch.tensor(1.0 if single is None else single, dtype=dtype)
            assert torch.equal(clipped.coefficient[member], expected)
    for member, mode in enumerate(alone):
        stacked = tensors(together.state_dict())
        for a, b in zip(stacked, tensors(mode.state_dict()), strict=True):
            assert torch.equal(a[..., member], b)
    again = build(path)
    again.load_state_dict(saved(together.state_dict()))
    pair = [mode([], 9 * norms[0]).coefficient for mode in (together, again)]
    assert torch.equal(*pair)


def tokens(batch_size: int, samples: int = 44) -> TensorData:
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 12, (samples,), generator=generator)
    return TensorData((x, (5 * x + 1) % 12), (x[:4], x[:4]), batch_size=batch_size)


def trainer(path: Path, dtype: str, **changes: Any) -> Trainer:
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), 0.01, fused=True)
    settings: dict[str, Any] = {"max_epochs": 3, "precision": dtype, "log_every": 3}
    return Trainer(net, nn.CrossEntropyLoss(), optimizer, clip=build(path), **(settings | changes))


@every_mode
class TestEveryTraining:
    def test_accumulating_batches_equals_one_batch_as_large(self, path: Path) -> None:
        runs = [trainer(path, "fp64", accumulate=k) for k in (4, 1)]
        for run, size in zip(runs, (4, 16), strict=True):
            run.fit(tokens(size))  # 44 leaves a last batch that is smaller
        assert runs[0].step == runs[1].step
        for a, b in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)

    def test_a_run_resumed_in_the_middle_of_the_warm_up_ends_the_same(self, path: Path) -> None:
        whole = trainer(path, "fp32", max_epochs=None, max_steps=40)
        whole.fit(tokens(8))
        first = trainer(path, "fp32", max_epochs=None, max_steps=7)
        first.fit(tokens(8))
        rest = trainer(path, "fp32", max_epochs=None, max_steps=40)
        rest.load_state_dict(saved(first.state_dict()))
        rest.fit(tokens(8))
        assert same(tensors(rest.model.state_dict()), tensors(whole.model.state_dict()))
        assert same(tensors(rest.clip.state_dict()), tensors(whole.clip.state_dict()))

    def test_tied_weights_are_clipped_once_and_what_it_does_is_recorded(
        self, path: Path, tmp_path: Path
    ) -> None:
        run = trainer(path, "fp32")
        summary = run.fit(tokens(8), tmp_path)
        assert len(run.parameters) == len({id(p) for p in run.parameters}) == 10
        assert run.model.head.weight is run.model.embedding.weight
        assert summary["guard"]["skipped"] == 0
        recorded = {tag: values["last"] for tag, values in summary["metrics"].items()}
        assert 0 < recorded["grad/norm_clipped"] <= recorded["grad/norm"]
        assert 0 <= recorded["grad/clipped"] <= 1
        assert recorded.get("grad/threshold", 1.0) > 0
