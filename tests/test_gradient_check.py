"""The gradient check passes what is right, dropout, kinks and all, and names what is wrong."""

from __future__ import annotations

import doctest

import pytest
import torch
from broken import Branches, Noisy, Overwrites, Rounds, WrongBackward, batch, model, same, tensors_of
from torch import Tensor, nn

from losses.uncertainty import UncertaintyLoss
from models.cnn import CNN
from models.rnn import RNN
from trainer.diagnostics import check_gradients, gradients

MSE = nn.MSELoss()


def test_a_correct_model_passes_with_dropout_batchnorm_and_kinks() -> None:
    middle = nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5)
    check = check_gradients(model(*middle), nn.L1Loss(), batch())
    assert check.passed
    assert check.worst is not None
    assert check.worst < 1e-6
    assert check.looked_at.startswith("6 tensors, ")


@pytest.mark.parametrize("seed", range(5))
def test_many_kinks_are_no_errors(seed: int) -> None:
    torch.manual_seed(seed)
    images = CNN((1, 8, 8), (3,), channels=8, depth=2)
    inputs = torch.randn(8, 1, 8, 8).clamp(min=0)
    inputs[:, :, :4] = 0.0  # as around a digit: where nothing moves, nothing has a slope
    assert check_gradients(images, nn.CrossEntropyLoss(), (inputs, torch.arange(8) % 3)).passed


def test_tokens_a_recurrence_and_tied_weights_pass() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(7, (3, 5))
    network = RNN((5,), (7, 5), width=4, depth=2, dropout=0.3, tied=True)
    assert check_gradients(network, nn.CrossEntropyLoss(), (tokens, tokens)).passed


def test_a_zero_initialised_end_does_not_hide_what_is_before_it() -> None:
    network = model(WrongBackward(2.0))
    nn.init.zeros_(network[2].weight)  # type: ignore[arg-type]
    check = check_gradients(network, MSE, batch())
    assert {failure.name for failure in check.failures} == {"0.weight", "0.bias"}


@pytest.mark.parametrize(
    ("factor", "cause"),
    [(2.0, "2 times too large"), (-1.0, "sign"), (0.5, "0.5 times"), (1.001, "wrong backward")],
)
def test_a_wrong_backward_is_named_with_index_and_both_values(factor: float, cause: str) -> None:
    check = check_gradients(model(WrongBackward(factor)), MSE, batch())
    assert check.verdict == "FAIL"
    assert {failure.name for failure in check.failures} == {"0.weight", "0.bias"}
    first = check.failures[0]
    assert first.index is not None
    assert len(first.index) == (2 if first.name == "0.weight" else 1)
    analytic, numeric = (float(text.split(" ")[0]) for text in (first.got, first.expected))
    assert analytic == pytest.approx(factor * numeric, rel=1e-4)
    assert cause in first.cause


def test_a_single_wrong_entry_in_a_large_tensor_is_found_by_the_direction() -> None:
    class OneRow(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
            gradient = gradient.clone()
            gradient[:, 3] = 0.0
            return gradient

    class Masks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return OneRow.apply(x)  # type: ignore[no-any-return,no-untyped-call]

    check = check_gradients(model(Masks()), MSE, batch(), coordinates=1)
    assert "0.weight" in {failure.name for failure in check.failures}


def test_a_detached_branch_is_named() -> None:
    check = check_gradients(Branches(), MSE, batch())
    assert {failure.name for failure in check.failures} == {"right.weight", "right.bias"}
    assert "cut" in check.failures[0].cause
    assert check.failures[0].got == "no gradient"


def test_a_value_that_is_overwritten_is_named_by_its_module() -> None:
    (failure,) = check_gradients(model(Overwrites(silently=False)), MSE, batch()).failures
    assert "1.squash (Sigmoid)" in failure.name
    assert "in place" in failure.cause
    silent = check_gradients(model(Overwrites(silently=True)), MSE, batch())
    assert "0.weight" in {failure.name for failure in silent.failures}


def test_a_loss_that_does_not_repeat_has_no_slope() -> None:
    (failure,) = check_gradients(model(Noisy()), MSE, batch()).failures
    assert failure.name == "loss"
    assert "determinism" in failure.cause


def test_a_model_cut_off_from_its_loss_and_one_bound_to_float32_are_told() -> None:
    (failure,) = check_gradients(model(), lambda p, t: (p - t).detach().mean(), batch()).failures
    assert "does not require grad" in failure.got

    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ torch.eye(5)

    (failure,) = check_gradients(model(Fixed()), MSE, batch()).failures
    assert "float64" in failure.cause


def test_weights_of_the_loss_are_checked_unless_their_gradient_is_their_own() -> None:
    terms = {"l1": nn.L1Loss(), "mse": MSE}
    assert check_gradients(model(), UncertaintyLoss(terms), batch()).looked_at.startswith("5 tensors")
    rounding = model(Rounds())
    assert "0.weight" in {failure.name for failure in check_gradients(rounding, MSE, batch()).failures}
    rounding[0].own_gradient = ("weight", "bias")  # type: ignore[assignment]
    check = check_gradients(rounding, MSE, batch())
    assert check.passed
    assert check.notes == ("with a gradient of their own, not checked: 0.weight, 0.bias",)


def test_a_frozen_parameter_is_left_out_and_complex_weights_are_not() -> None:
    network = model()
    network[0].weight.requires_grad = False
    assert check_gradients(network, MSE, batch()).looked_at.startswith("3 tensors")

    class Rotates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.turn = nn.Parameter(torch.randn(4, 3, dtype=torch.complex64))

        def forward(self, x: Tensor) -> Tensor:
            return (x.to(self.turn.dtype) @ self.turn).abs()

    assert check_gradients(Rotates(), MSE, batch()).passed


def test_nothing_has_changed_afterwards() -> None:
    network = model(nn.BatchNorm1d(5), nn.Dropout(0.5))
    network[1].eval()
    MSE(network(batch()[0]), batch()[1]).backward()
    before, generator = tensors_of(network), torch.get_rng_state()
    check_gradients(network, MSE, batch())
    assert same(before, tensors_of(network))
    assert torch.equal(generator, torch.get_rng_state())
    assert [module.training for module in network] == [True, False, True, True]


def test_two_checks_say_the_same() -> None:
    wrong = model(WrongBackward(1.5))
    assert check_gradients(wrong, MSE, batch()) == check_gradients(wrong, MSE, batch())


def test_the_example_in_the_documentation_runs() -> None:
    result = doctest.testmod(gradients)
    assert (result.failed, result.attempted) == (0, 3)
