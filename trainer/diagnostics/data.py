"""What is in the data: shapes, ranges, outliers by sample number, class balance, duplicates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.data.tensors import Data, Targets

THRESHOLD, SHOWN = 6.0, 5


@dataclass(frozen=True, slots=True)
class Described:
    """One tensor of samples (N, …).

    Attributes:
        name: such as "train inputs".
        shape: of one sample.
        dtype: such as "float32".
        samples: N.
        low: the smallest finite value; of complex ones the smallest magnitude. None without any.
        high: the largest.
        mean: of the finite values.
        std: their standard deviation.
        not_finite: numbers of the samples that hold NaN or infinity.
        outliers: sample number and robust z-score of those beyond `THRESHOLD`, the farthest first.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    samples: int
    low: float | None
    high: float | None
    mean: float | None
    std: float | None
    not_finite: list[int]
    outliers: list[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class DataReport:
    """The splits of some data.

    Attributes:
        tensors: inputs and targets of each split.
        balance: samples of each class by split, where targets are whole numbers.
        repeated: by split, how many samples have the inputs of an earlier one of it.
        shared: pairs (training sample, validation sample) with the same inputs.
        looked_at: by split, how many samples this is about, and of how many.
        order: what the sample numbers count.
    """

    tensors: list[Described]
    balance: dict[str, dict[int, int]]
    repeated: dict[str, int]
    shared: list[tuple[int, int]]
    looked_at: dict[str, tuple[int, int]]
    order: str


def inspect_data(data: Data, most: int = 10_000) -> DataReport:
    """Looks through the training and the validation samples.

    Of data that keeps its samples (as tensors or as a dataset) the samples are looked at as they are
    stored, before noise or augmentation, and their numbers are those of the split. Of any other they
    are those of the first epoch, numbered as they come.

    Args:
        data: any `Data`.
        most: samples per split, spread evenly where there are more.

    Example:
        >>> x = torch.linspace(-1, 1, 100)[:, None]
        >>> x[7] = 50.0
        >>> report = inspect_data(TensorData((x, x > 0), (x[:5], x[:5] > 0), batch_size=10))
        >>> report.tensors[0].outliers[0][0], report.shared[:2]
        (7, [(0, 0), (1, 1)])
    """
    report = DataReport([], {}, {}, [], {}, _order(data))
    seen: dict[str, tuple[list[int], Tensor]] = {}
    for split in ("train", "val"):
        numbers, inputs, targets, whole = _samples(data, split, most)
        if not numbers:
            continue
        report.looked_at[split] = (len(numbers), whole)
        several = targets if isinstance(targets, tuple) else (targets,)
        named = {"inputs": inputs, **{f"targets{_index(i, several)}": t for i, t in enumerate(several)}}
        report.tensors.extend(describe(t, f"{split} {name}", numbers) for name, t in named.items())
        if _is_whole(several[0]):
            report.balance[split] = class_balance(several[0])
        report.repeated[split] = len(inputs) - len(set(_fingerprints(inputs)))
        seen[split] = (numbers, inputs)
    if len(seen) == 2:
        (own, train), (others, val) = seen.values()
        report.shared.extend((own[i], others[j]) for i, j in duplicates(train, val))
    return report


def describe(samples: Tensor, name: str = "", numbers: Sequence[int] | None = None) -> Described:
    """Shape, range, non-finite values and outliers of a tensor of samples (N, …).

    Args:
        samples: (N, …), of any type of number.
        name: what to call it.
        numbers: of the samples; 0 … N − 1 unless said.

    Example:
        >>> describe(torch.tensor([1.0, 2.0, math.nan])).not_finite
        [2]
    """
    numbers = range(len(samples)) if numbers is None else numbers
    flat = (samples.abs() if samples.is_complex() else samples).reshape(len(samples), -1).double().cpu()
    bad = (~flat.isfinite()).any(1)
    values = flat[flat.isfinite()]
    low = high = mean = std = None
    if len(values):
        low, high = (end.item() for end in values.aminmax())
        mean, std = values.mean().item(), values.std(correction=0).item()
    far: list[tuple[int, float]] = []
    if samples.is_floating_point() or samples.is_complex():
        score = robust_z(_features(samples)).abs().nan_to_num(0.0).amax(1)
        order = score.argsort(descending=True).tolist()
        far = [(numbers[i], score[i].item()) for i in order if score[i] > THRESHOLD and not bad[i]]
    return Described(
        name,
        tuple(samples.shape[1:]),
        str(samples.dtype).removeprefix("torch."),
        len(samples),
        *(low, high, mean, std),
        [numbers[i] for i in bad.nonzero().flatten().tolist()],
        far,
    )


def robust_z(values: Tensor) -> Tensor:
    """The modified z-score of each value in its column, 0.6745 (x − median) / MAD, (N, k) to (N, k).

    MAD is the median of |x − median|; where it is 0, because more than half of a column is one value,
    0.7979 (x − median) / mean |x − median| takes its place. A column with two values at most has no
    outliers, and what is not finite none that can be measured (NaN). Of normal data one in 5·10⁸ is
    beyond 6. Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993.

    Example:
        >>> robust_z(torch.tensor([[1.0], [2.0], [3.0], [4.0], [100.0]]))[-1].item() > 60
        True
    """
    wide = values.double()
    wide = torch.where(wide.isfinite(), wide, math.nan)
    away = wide - wide.nanmedian(0).values
    spread = away.abs().nanmedian(0).values / 0.6745
    spread = torch.where(spread > 0, spread, away.abs().nanmean(0) * 1.2533)
    scores = torch.where(spread > 0, away / spread, torch.zeros_like(away))
    for column in range(wide.shape[1]):
        if len(wide[:, column].unique()) <= 2:
            scores[:, column] = 0.0
    return scores


def class_balance(labels: Tensor) -> dict[int, int]:
    """How many of each label there are, by label.

    Example:
        >>> class_balance(torch.tensor([0, 2, 2, 2]))
        {0: 1, 2: 3}
    """
    found, counts = labels.flatten().unique(return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def duplicates(first: Tensor, second: Tensor) -> list[tuple[int, int]]:
    """Pairs (i, j) of samples with ``first[i]`` equal to ``second[j]`` bit for bit; for every j the
    first such i.

    Args:
        first: (N, …).
        second: (M, …).

    Example:
        >>> duplicates(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [2.0]]))
        [(1, 1)]
    """
    places: dict[bytes, int] = {}
    for i, mark in enumerate(_fingerprints(first)):
        places.setdefault(mark, i)
    marks = enumerate(_fingerprints(second))
    return [(places[mark], j) for j, mark in marks if mark in places]


def _samples(data: Data, split: str, most: int) -> tuple[list[int], Tensor, Targets, int]:
    """Numbers, inputs and targets of a split, and how many it has in all."""
    kept: Any = getattr(data, split, None)
    if isinstance(kept, tuple):
        inputs, targets = kept
        numbers = list(range(0, len(inputs), -(-len(inputs) // most) or 1))
        chosen = [t[numbers] for t in (targets if isinstance(targets, tuple) else (targets,))]
        return numbers, inputs[numbers], tuple(chosen), len(inputs)
    if kept is not None:
        numbers = list(range(0, len(kept), -(-len(kept) // most) or 1))
        return (
            numbers,
            *_stacked([(i[None], _batched(t)) for i, t in (kept[n] for n in numbers)]),
            len(kept),
        )
    batches = list(_first(data.validation() if split == "val" else data.batches(0), most))
    if not batches:
        return [], torch.empty(0), torch.empty(0), 0
    inputs, targets = _stacked(batches)
    whole = int(getattr(data, "provenance", {}).get(split, len(inputs)))
    return list(range(len(inputs))), inputs, targets, whole


def _first(batches: Iterator[Any], most: int) -> Iterator[Any]:
    count = 0
    for inputs, targets in batches:
        yield inputs, targets
        count += len(inputs)
        if count >= most:
            return


def _stacked(batches: list[Any]) -> tuple[Tensor, Targets]:
    several = [t if isinstance(t, tuple) else (t,) for _, t in batches]
    return torch.cat([inputs for inputs, _ in batches]), tuple(
        map(torch.cat, zip(*several, strict=True))
    )


def _batched(target: Any) -> tuple[Tensor, ...]:
    several = target if isinstance(target, tuple | list) else (target,)
    return tuple(torch.as_tensor(one)[None] for one in several)


def _features(samples: Tensor) -> Tensor:
    """What a sample is judged by, (N, k): of a vector its entries, of anything larger the mean and the
    deviation of each channel."""
    if samples.is_complex():
        samples = samples.abs()
    if samples.dim() <= 2:
        return samples.reshape(len(samples), -1)
    channels = samples.double().flatten(2)
    return torch.cat([channels.mean(2), channels.std(2, correction=0)], dim=1)


def _fingerprints(samples: Tensor) -> list[bytes]:
    rows = samples.detach().cpu().reshape(len(samples), -1).numpy()
    return [row.tobytes() for row in rows]


def _is_whole(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex())


def _index(place: int, several: Sequence[Tensor]) -> str:
    return f"[{place}]" if len(several) > 1 else ""


def _order(data: Data) -> str:
    kept = getattr(data, "train", None) is not None
    return "samples of the split, as stored" if kept else "samples as the first epoch serves them"
