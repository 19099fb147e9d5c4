"""What a trainer sees of the stack that it is a member of: its own row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from trainer.clipping import AutoClip, ClipByNorm, ClipByValue, Clipped, NoClip, ZClip, total_norm
from trainer.data.tensors import Batch, Data
from trainer.ensemble.run import Common
from trainer.loop import Trainer

# Modes that do not ask which tensor is which: they get the row as one, which costs them a fraction.
NORM_ONLY = (NoClip, ClipByNorm, AutoClip, ZClip)
WHOLE_ROW = (*NORM_ONLY, ClipByValue)


class Member:
    """Stands in for the `Gradients` and for the `Transaction` of a trainer while it is in a stack.

    The trainer goes through its step as it does alone; the gradients, their norm and the largest buffer
    come from the stack, which has computed them for all, and a commit is only noted where the stack can
    do it for all.

    Args:
        trainer: which.
        number: of its row.
        common: what it shares with the others.
    """

    def __init__(self, trainer: Trainer, number: int, common: Common) -> None:
        self.number, self.common, self.clip = number, common, trainer.clip
        self.alone = (trainer.gradients, trainer.transaction)
        self.shares = trainer.gradients.shares
        self.parameters = trainer.parameters
        self.gradients = [p.grad for p in trainer.parameters if p.grad is not None]
        whole = type(trainer.clip) in WHOLE_ROW
        self.seen = [common.stack.rows[number]] if whole else self.gradients
        self.step_in(trainer)
        self.validates = trainer._validate
        trainer._validate = self.validate  # type: ignore[method-assign]

    def by_itself(self, batches: Sequence[Batch]) -> list[Tensor]:
        """Norm of the gradients, loss and terms without the stack; `attach` has to follow."""
        loss, terms, gradients = self.alone[0](batches)
        return [total_norm(gradients), loss, *terms.values()]

    def attach(self) -> None:
        """Makes the rows the parameters' gradients again."""
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient

    def step_in(self, trainer: Trainer) -> None:
        """From now on the trainer's steps are the stack's."""
        self.attach()
        trainer.gradients = trainer.transaction = self  # type: ignore[assignment]
        self.common.updates.adopt(self.number)

    def step_out(self, trainer: Trainer) -> None:
        """From now on the trainer takes its steps by itself, on its row."""
        trainer.gradients, trainer.transaction = self.alone
        self.common.updates.release(self.number)

    def leave(self, trainer: Trainer) -> None:
        """Gives the trainer back what it had, and tensors of its own."""
        self.step_out(trainer)
        del trainer._validate
        self.common.stack.release(self.number)

    def __call__(
        self, batches: Sequence[Batch], log_due: bool = False
    ) -> tuple[Tensor, Mapping[str, Tensor], list[Tensor]]:
        """The loss, its terms and the gradients, which are there already."""
        means = {name: values[self.number] for name, values in self.common.means.items()}
        return means.pop(""), means, self.seen

    def validate(self, data: Data) -> dict[str, float]:
        """What `Trainer` records of validation, measured for all together if it could be."""
        found = self.common.validated
        if found is None:
            return self.validates(data)
        return {f"val/{name}": value for name, value in found[self.number].items()}

    def begin(self) -> None:
        """The stack has copied the buffers."""

    def measure(self, gradients: list[Tensor], norm_type: float) -> tuple[Tensor, Tensor | None]:
        """The norm of the gradients, and the largest buffer."""
        largest = self.common.largest
        buffers = None if largest is None else largest[self.number]
        if type(self.clip) not in NORM_ONLY:  # it measures again, and compares
            return total_norm(gradients, norm_type), buffers
        return self.common.norms[norm_type][self.number], buffers

    def roll_back(self) -> None:
        """Restores the buffers."""
        self.common.stack.roll_back(self.number)

    def commit(
        self,
        gradients: list[Tensor],
        clipped: Clipped,
        lr_factor: float = 1.0,
        refused: Tensor | None = None,
    ) -> None:
        """Notes the update; takes it where the stack cannot."""
        updates = self.common.updates
        if refused is None and updates.note(self.number, clipped, lr_factor):
            return
        _, transaction = self.alone
        transaction.commit(self.gradients, clipped, lr_factor, refused)
        if refused is None:
            updates.adopt(self.number)
