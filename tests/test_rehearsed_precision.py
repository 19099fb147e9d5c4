"""A format that a device lacks an operation for is found before the run begins."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_rehearsal import NAMES, batch, data, refusal, trainer
from torch import Tensor, nn

from trainer.rehearsal import rehearse


class Lacking(torch.autograd.Function):
    """Fails in float16 only, on the way there or back, as an operation that has no kernel for it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, back: bool) -> Tensor:
        ctx.back = back
        if x.dtype == torch.float16 and not back:
            raise RuntimeError("not implemented for 'Half'")
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        if gradient.dtype == torch.float16 and ctx.back:
            raise RuntimeError("not implemented for 'Half'")
        return gradient, None


class Narrow(nn.Linear):
    def __init__(self, back: bool) -> None:
        super().__init__(3, 1)
        self.back = back

    def forward(self, x: Tensor) -> Tensor:
        return Lacking.apply(super().forward(x), self.back)


@pytest.mark.parametrize("back", [False, True], ids=["there", "back"])
def test_a_format_that_an_operation_lacks_is_refused_with_a_remedy(back: bool) -> None:
    model = Narrow(back)
    for precision in ("fp32", "bf16"):
        rehearse(trainer(model, precision=precision), data(batch(3, 1)), NAMES)
    line = refusal(trainer(model, precision="fp16"), data(batch(3, 1)))
    assert line == (
        "trainer.precision=fp16 must be one that model=mine can be computed in on cpu: RuntimeError: "
        "not implemented for 'Half'; use trainer.precision=fp32"
    )
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_fails_in_every_format_is_not_put_down_to_this_one() -> None:
    line = refusal(trainer(nn.Linear(4, 1), precision="fp16"), data(batch(3, 1)))
    assert line.startswith("model=mine does not take the inputs of data=theirs")
