"""What the diabetes recipe is measured against: ordinary least squares on the same patients.

``python -m benchmarks.tabular`` prints mean absolute error and R² on the validation patients: of the
mean of the training patients, and of the linear regression, in which there is nothing to tune.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from trainer.data.tables import diabetes


def least_squares(columns: int = 10) -> dict[str, float]:
    """The metrics of the linear regression on the first columns; on none, of the mean."""
    data = diabetes()
    (x, y), (x_val, y_val) = ([tensor.double() for tensor in part] for part in (data.train, data.val))  # type: ignore[union-attr]
    weights = torch.linalg.lstsq(_with_one(x[:, :columns]), y).solution
    predictions = _with_one(x_val[:, :columns]) @ weights
    return {
        name: metric.function(predictions, y_val).mean().item() for name, metric in data.metrics.items()
    }


def _with_one(inputs: Tensor) -> Tensor:
    return pad(inputs, (0, 1), value=1.0)


def main() -> None:
    """Prints the two lines."""
    for name, columns in (("mean of the others", 0), ("least squares", 10)):
        figures = least_squares(columns)
        print(f"{name:<20} mae {figures['mae']:.2f}   r2 {figures['r2']:.3f}")


if __name__ == "__main__":
    main()
