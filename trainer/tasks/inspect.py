"""What would be trained, without training: data, model, graph, schedule, memory, and who set what."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from trainer import checks
from trainer.console import Console
from trainer.diagnostics import (
    Layer,
    autograd_graph,
    inspect_data,
    layers,
    learning_rates,
    memory,
    without_normalization,
)
from trainer.diagnostics.data import SHOWN, DataReport, Described
from trainer.record import finite
from trainer.schedulers import Horizon
from trainer.tasks.train import Job
from trainer.wording import MISSING, count, number, typed

MOST_CLASSES, MOST_SETTINGS = 12, 100
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Inspect:
    """Reports on data, model, memory and schedule of a run that is not started; of one that
    ``resume=`` names, as it stands.

    Args:
        samples: how many samples of each split are looked at, spread evenly; >= 1.

    Raises:
        ValueError: for a number out of range.
    """

    def __init__(self, samples: int = 10_000) -> None:
        self.samples = checks.whole("samples", samples, at_least=1)

    def run(self, job: Job, folder: Path, console: Console) -> dict[str, Any]:
        """Prints tables and leaves inspect.json, schedule.png, activations.png and the graph in the
        folder; returns a short summary."""
        trainer, data = job.trainer, job.data
        batch = next(data.batches(0))
        console.show(*_parts(job))
        report = inspect_data(data, self.samples)
        console.show(*_data(report, data.output_shape))
        found = layers(trainer.model, batch[0])
        console.show(_layers(found), *_marks(found))
        held = memory(trainer.model, trainer.loss, trainer.optimizer, batch, trainer.precision.autocast)
        horizon = Horizon.of(data.batches_per_epoch, trainer.accumulate, *trainer.limits)
        rates = learning_rates(trainer.schedule, horizon)
        console.show(_memory(held, len(batch[0])), _steps(horizon, rates))
        files = _draw(job, folder, found, rates, batch[0])
        graph, advice = autograd_graph(trainer.model, batch[0]).write(folder)
        path = folder / "inspect.json"
        everything = {
            "choices": job.choices,
            "parts": job.parts,
            "data": asdict(report),
            "layers": [asdict(layer) for layer in found],
            "memory": held,
            "steps": horizon.steps,
            "lr": {"first": rates[0], "largest": max(rates), "last": rates[-1]},
        }
        path.write_text(json.dumps(finite(everything), indent=2) + "\n", encoding="utf-8")
        for file in [*files, *graph, path]:
            console.line(typed(file))
        if advice:
            console.note(advice)
        return {"status": "completed", "reason": "", "seconds": 0.0, "objective": None}


def _draw(
    job: Job, folder: Path, found: Sequence[Layer], rates: Sequence[float], inputs: Any
) -> list[Path]:
    from trainer.pictures.inspect_plot import (  # matplotlib takes a second
        draw_activations,
        draw_schedule,
    )

    trainer = job.trainer
    plain = without_normalization(trainer.model)
    bare = layers(plain, inputs)
    return [
        draw_schedule(rates, job.choices["scheduler"], folder / "schedule.png"),
        draw_activations(found, bare, folder / "activations.png"),
    ]


def _table(*columns: str, left: Sequence[str] = ()) -> Table:
    """A plain table; numbers to the right, the columns in ``left`` to the left."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right", no_wrap=column != "sets")
    return table


def _parts(job: Job) -> list[Table | str]:
    """What each group contributes; marked what is not the part's own default."""
    table = _table("group", "option", "part", "sets", left=("group", "option", "part", "sets"))
    for group, option in job.choices.items():
        settings = job.parts.get(group, {})
        target = str(settings.get("_target_", MISSING))
        own = _defaults(target)
        words = Text()
        for key, value in settings.items():
            if not key.startswith("_"):
                told = str(value)
                told = told if len(told) <= MOST_SETTINGS else told[: MOST_SETTINGS - 1] + "…"
                changed = key in own and own[key] not in (value, inspect.Parameter.empty)
                words.append(f"{key}={told}{'*' if changed else ''}", "bold" if changed else "")
                words.append(" " if changed else "  ")
        words.rstrip()
        table.add_row(group, option, target.rpartition(".")[2], words)
    return [table, "* not the part's own default"]


def _defaults(target: str) -> dict[str, Any]:
    module, _, name = target.rpartition(".")
    try:
        parameters = inspect.signature(getattr(import_module(module), name)).parameters
    except (ImportError, AttributeError, TypeError, ValueError):  # a part named in some other way
        return {}
    plain = {key: parameter.default for key, parameter in parameters.items()}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


def _data(report: DataReport, output_shape: tuple[int, ...]) -> list[Table | str | Text]:
    columns = ("", "samples", "shape", "dtype", "low", "mean", "high", "std", "not finite", "outliers")
    table = _table(*columns, left=("",))
    for one in report.tensors:
        figures = [number(value, 3) for value in (one.low, one.mean, one.high, one.std)]
        bad = Text(str(len(one.not_finite)), "bold red" if one.not_finite else "")
        shape = "×".join(map(str, one.shape)) or "a number"
        table.add_row(
            one.name, str(one.samples), shape, one.dtype, *figures, bad, str(len(one.outliers))
        )
    lines: list[Table | str | Text] = [table]
    notes = [Text(f"numbers are of the {report.order}")]
    for split, (some, whole) in report.looked_at.items():
        if some < whole:
            notes.append(Text(f"{split}: {some} of {whole} samples were looked at (task.samples)"))
    notes += [note for one in report.tensors for note in _strange(one)]
    notes += [_balance(split, classes) for split, classes in report.balance.items()]
    for split, repeated in report.repeated.items():
        if repeated:
            notes.append(Text(f"{split}: {count(repeated, 'sample')} with the inputs of an earlier one"))
    if report.shared:
        pairs = ", ".join(f"{i} = {j}" for i, j in report.shared[:SHOWN])
        more = ", …" if len(report.shared) > SHOWN else ""
        told = f"in both splits: {count(len(report.shared), 'validation sample')}"
        notes.append(Text(f"{told}, train = val {pairs}{more}", "bold red"))
    elif len(report.looked_at) == 2:
        notes.append(Text("no validation sample has the inputs of a training sample"))
    return [*lines, Text("\n").join(notes)]


def _strange(one: Described) -> list[Text]:
    notes = []
    if one.not_finite:
        numbers = ", ".join(map(str, one.not_finite[:SHOWN]))
        notes.append(Text(f"{one.name}: not finite in sample {numbers}", "bold red"))
    if one.outliers:
        told = ", ".join(f"{sample} ({number(score, 3)})" for sample, score in one.outliers[:SHOWN])
        more = ", …" if len(one.outliers) > SHOWN else ""
        notes.append(Text(f"{one.name}: robust z beyond 6 in sample {told}{more}", "yellow"))
    return notes


def _balance(split: str, classes: Mapping[int, int]) -> Text:
    whole, least, most = sum(classes.values()), min(classes.values()), max(classes.values())
    if len(classes) <= MOST_CLASSES:
        told = ", ".join(f"{label}: {n}" for label, n in classes.items())
    else:
        ranked = sorted(classes, key=lambda label: -classes[label])
        named = [f"{label}: {classes[label]}" for label in (*ranked[:3], *ranked[-3:])]
        told = ", ".join([*named[:3], "…", *named[3:]])
    ratio = f"the commonest {number(most / least, 2)} times the rarest"
    return Text(f"{split}: {whole} labels of {len(classes)} classes, {ratio}; {told}")


def _layers(found: Sequence[Layer]) -> Table:
    columns = ("module", "kind", "output", "parameters", "MACs", "scale", "")
    table = _table(*columns, left=("module", "kind", ""))
    for layer in found:
        shape = "×".join(map(str, layer.output)) or MISSING
        figures = [f"{n:,}" if n else MISSING for n in (layer.parameters, layer.macs)]
        mark = Text(layer.mark, "bold red")
        table.add_row(layer.name or "(model)", layer.kind, shape, *figures, number(layer.scale, 3), mark)
    whole = (sum(layer.parameters for layer in found), sum(layer.macs for layer in found))
    table.add_row("in all", "", "", *(f"{n:,}" for n in whole), "", "", style="bold")
    return table


def _marks(found: Sequence[Layer]) -> list[str]:
    lines = ["MACs are of one sample, scale is the root mean square of the outputs of the first batch"]
    marked = {layer.mark for layer in found}
    if marked & {"vanishing", "exploding"}:
        lines.append(
            "vanishing, exploding: a hundredth of 1 and of the inputs' scale, or a hundred times both; "
            "another init=, normalization or scaled inputs help"
        )
    if "zero" in marked:
        lines.append("zero: nothing comes out, which is right for a residual branch that begins at zero")
    return ["\n".join(lines)]


def _memory(held: Mapping[str, int], batch: int) -> Table:
    table = _table("memory, estimated", "", left=("memory, estimated",))
    for name, size in held.items():
        table.add_row(f"{name}, batch of {batch}" if name == "activations" else name, _size(size))
    table.add_row("in all", _size(sum(held.values())), style="bold")
    return table


def _steps(horizon: Horizon, rates: Sequence[float]) -> str:
    length = f"{count(horizon.steps, 'step')} in {count(horizon.epochs, 'epoch')}"
    first, largest, last = (number(rate, 3) for rate in (rates[0], max(rates), rates[-1]))
    return f"{length}, learning rate {first} at first, {largest} at most, {last} at last"


def _size(size: float) -> str:
    for unit in UNITS[:-1]:
        if size < 1024:
            return f"{size:.3g} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1024
    return f"{size:.3g} {UNITS[-1]}"
