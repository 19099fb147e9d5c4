"""What does not repeat, at once or after a checkpoint, is caught by its name."""

from __future__ import annotations

import doctest

import torch
from broken import Forgetful, Noisy, NoisyWayBack, batch, model, same, tensors_of
from torch import nn

from losses.dwa import DynamicWeightAverageLoss
from trainer.clipping import ZClip
from trainer.diagnostics import check_determinism, check_resume, repeats
from trainer.optimizers import Muon
from trainer.schedulers import Schedule

MSE = nn.MSELoss()


def adam(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters())


def test_dropout_and_batchnorm_repeat() -> None:
    network = model(nn.BatchNorm1d(5), nn.Dropout(0.5))
    check = check_determinism(network, MSE, adam(network), batch(), clip=ZClip())
    assert check.passed
    assert check.worst == 0


def test_the_module_that_does_not_repeat_is_named() -> None:
    network = model(nn.ReLU(), Noisy(), nn.ReLU())
    check = check_determinism(network, MSE, adam(network), batch())
    assert check.failures[0].name == "2"
    assert check.failures[0].index == (0, 0)
    assert check.failures[0].got != check.failures[0].expected.split(" ")[0]
    assert "loss of step 1" in {failure.name for failure in check.failures}
    assert check.worst is not None
    assert check.worst > 0


def test_a_backward_pass_that_does_not_repeat_is_told_by_the_weights_before_it() -> None:
    network = model(NoisyWayBack())
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    names = {failure.name for failure in check_determinism(network, MSE, optimizer, batch()).failures}
    assert "0.weight" in names
    assert "loss of step 1" not in names


def test_autocast_repeats_too() -> None:
    network = model()
    assert check_determinism(network, MSE, adam(network), batch(), precision="bf16").passed
    assert check_resume(network, MSE, adam(network), batch(), precision="fp16").passed


def test_a_checkpoint_brings_back_everything_there_is() -> None:
    network = model(nn.BatchNorm1d(5), nn.Dropout(0.5), Forgetful(saved=True))
    loss = DynamicWeightAverageLoss({"l1": nn.L1Loss(), "mse": MSE}, window=2)
    optimizer = Muon(network.parameters(), model=network)
    schedule = Schedule(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5), "step")
    before, rates = tensors_of(network, loss, optimizer), schedule.state_dict()
    check = check_resume(network, loss, optimizer, batch(), clip=ZClip(warmup=4), scheduler=schedule)
    assert check.passed, str(check)
    assert check.looked_at.startswith("5 parts ")
    assert same(before, tensors_of(network, loss, optimizer))
    assert schedule.state_dict() == rates
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 1e-3]


def test_what_is_in_no_state_dict_is_told_by_what_it_changes() -> None:
    network = model(Forgetful())
    check = check_resume(network, MSE, adam(network), batch())
    assert check.failures[0].name == "loss of step 1"
    assert "state_dict" in check.failures[0].cause
    assert "2.weight" in {failure.name for failure in check.failures}


def test_a_state_that_no_checkpoint_holds_is_named() -> None:
    class Odd(nn.Linear):
        def get_extra_state(self) -> object:
            return object()

        def set_extra_state(self, state: object) -> None:
            pass

    network = nn.Sequential(Odd(4, 3))
    (failure,) = check_resume(network, MSE, adam(network), batch()).failures
    assert failure.name == "checkpoint"
    assert "the state of model" in failure.got


def test_the_steps_taken_leave_no_trace() -> None:
    network = model(nn.BatchNorm1d(5))
    optimizer, clip = adam(network), ZClip()
    MSE(network(batch()[0]), batch()[1]).backward()
    optimizer.step()
    before, state = tensors_of(network, optimizer), repr(clip.state_dict())
    generator = torch.get_rng_state()
    check_determinism(network, MSE, optimizer, batch(), clip=clip)
    check_resume(network, MSE, optimizer, batch(), clip=clip)
    assert same(before, tensors_of(network, optimizer))
    assert repr(clip.state_dict()) == state
    assert torch.equal(generator, torch.get_rng_state())


def test_the_examples_in_the_documentation_run() -> None:
    result = doctest.testmod(repeats)
    assert (result.failed, result.attempted) == (0, 8)
