"""What a schedule will do to the learning rate, without training."""

from __future__ import annotations

import copy
import warnings

from trainer.schedulers import Horizon, Schedule


def learning_rates(schedule: Schedule, horizon: Horizon) -> list[float]:
    """The learning rate of the optimizer's first group in every step of a run from here on.

    A schedule that watches a metric (plateau) is given none, and stays where it is. Schedule and
    optimizer are afterwards what they were.

    Args:
        schedule: bound to an optimizer, at its beginning.
        horizon: the length of the run.

    Example:
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        >>> halving = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        >>> learning_rates(Schedule(halving, "step"), Horizon(5, 1, 5))
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    optimizer = schedule.optimizer
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    # A copy that shares what is large and that no schedule touches.
    shared = {id(one): one for one in (*parameters, optimizer.state)}
    twin = copy.deepcopy(schedule, shared)
    rates = []
    with warnings.catch_warnings(action="ignore"):  # torch misses the optimizer's steps
        for step in range(1, horizon.steps + 1):
            rates.append(float(twin.optimizer.param_groups[0]["lr"]))
            twin.step_ended()
            if step % horizon.per_epoch == 0:
                twin.epoch_ended({})
    return rates
