"""Stacked linear layers give what `torch.vmap` of the model gives, and step aside for anything else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.mlp import MLP
from trainer.ensemble.dense import Dense

K, B = 3, 5


class Bent(MLP):
    """Inherits from a model that takes axes in front, and need not take them itself."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.reshape(len(x), self.inputs)).reshape(len(x), *self.output_shape) + len(x)


def rows_of(model: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        f"model.{name}": torch.randn(K, *p.shape, generator=generator, dtype=p.dtype).requires_grad_()
        for name, p in model.named_parameters()
    }


@pytest.mark.parametrize("axis", [None, 0], ids=["shared", "own"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "selu", "gelu", "silu", "tanh"])
@pytest.mark.parametrize(
    "loss", [nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(beta=0.3), nn.HuberLoss(delta=0.7)], ids=repr
)
def test_each_member_has_what_it_has_alone(loss: Any, activation: str, axis: int | None) -> None:
    model = MLP((2, 3), (2,), hidden=(4, 5), activation=activation).double()
    rows = rows_of(model)
    dense = Dense.of(model, loss, rows)
    assert dense is not None
    batch = (B,) if axis is None else (K, B)
    inputs, targets = torch.randn(*batch, 2, 3).double(), torch.randn(*batch, 2).double()
    losses, terms, predictions = dense(inputs, targets, axis)
    gradients = torch.autograd.grad(losses.sum(), list(rows.values()))
    assert terms == {}
    for k in range(K):
        alone = {name.removeprefix("model."): row[k] for name, row in rows.items()}
        own = (inputs, targets) if axis is None else (inputs[k], targets[k])
        expected = torch.func.functional_call(model, alone, (own[0],))
        torch.testing.assert_close(predictions[k], expected, rtol=1e-12, atol=1e-12)
        value = loss(expected, own[1])
        torch.testing.assert_close(losses[k], value, rtol=1e-12, atol=1e-12)
        single = torch.autograd.grad(value, list(alone.values()))
        for gradient, wanted in zip(gradients, single, strict=True):
            torch.testing.assert_close(gradient[k], wanted, rtol=1e-10, atol=1e-12)


def tied() -> nn.Module:
    model = MLP((4,), (4,), hidden=(4, 4))
    model.layers[2].weight = model.layers[0].weight
    return model


def watched() -> nn.Module:
    model = MLP((4,), (1,))
    model.layers[0].register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        (MLP((4,), (1,), norm="layer"), nn.MSELoss()),
        (MLP((4,), (1,), dropout=0.5), nn.MSELoss()),
        (nn.Sequential(nn.Linear(4, 1)), nn.MSELoss()),
        (Bent((4,), (1,)), nn.MSELoss()),
        (tied(), nn.MSELoss()),
        (watched(), nn.MSELoss()),
        (MLP((4,), (1,)), nn.MSELoss(reduction="sum")),
        (MLP((4,), (3,)), nn.CrossEntropyLoss()),
        (MLP((4,), (1,)), lambda predictions, targets: (predictions - targets).abs().mean()),
    ],
    ids=["norm", "dropout", "unknown", "derived", "tied", "hook", "sum", "classes", "function"],
)
def test_anything_else_is_left_to_vmap(model: nn.Module, loss: Any) -> None:
    assert Dense.of(model, loss, rows_of(model)) is None


def test_it_follows_the_rows() -> None:
    model = MLP((4,), (1,))
    rows = rows_of(model)
    dense = Dense.of(model, nn.MSELoss(), rows)
    assert dense is not None
    inputs, targets = torch.randn(B, 4), torch.randn(B, 1)
    before, _, _ = dense(inputs, targets, None)
    with torch.no_grad():
        for row in rows.values():
            row[1] += 1.0
    after, _, _ = dense(inputs, targets, None)
    assert (before == after).tolist() == [True, False, True]
