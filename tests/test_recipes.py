"""Every recipe in a short form: it trains, the same command repeats it, and a killed run goes on."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import composed
from conftest import Outcome
from omegaconf import OmegaConf

from benchmarks import recipes, tabular, watermark
from trainer.data.tables import diabetes

Command = Callable[..., Outcome]
SHORT = ["trainer.max_steps=4", "trainer.log_every=1", "checkpoint.every_steps=2"]
LESS = {
    "scheduler.warmup": 1,
    "data.samples": 200,
    "model.width": 16,
}  # of what there is more of in full, where there is


def short(name: str) -> list[str]:
    (job,) = composed(f"python train.py experiment={name}")
    found = {key: OmegaConf.select(job.config, key) for key in LESS}
    return [f"experiment={name}", *SHORT, *(f"{k}={LESS[k]}" for k in LESS if found[k] is not None)]


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_trains_repeats_and_resumes(name: str, command: Command) -> None:
    outcome = command(*short(name), "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    run = Path("run").resolve()
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert (summary["status"], summary["steps"], summary["guard"]["skipped"]) == ("completed", 4, 0)
    assert math.isfinite(summary["metrics"]["val/loss"]["last"])
    (job,) = composed(shlex.join(["python", "train.py", *short(name)]))
    again = job.prepare()
    assert again.trainer.fit(again.data)["metrics"] == summary["metrics"]
    record = (run / "metrics.jsonl").read_bytes()
    (run / "summary.json").unlink()
    (run / "checkpoints" / "step-00000004.ckpt").unlink()  # as killed after the third step
    outcome = command("resume=run")
    assert outcome.code == 0, outcome.err
    assert "resumed at step 2" in outcome.out
    assert (run / "metrics.jsonl").read_bytes() == record


def test_every_bar_is_that_of_a_recipe() -> None:
    assert recipes.BARS.keys() - {*recipes.RECIPES} == set()


@pytest.mark.parametrize(
    ("higher_is_better", "value", "missed"),
    [
        (True, 1.1, False),
        (True, 1.0, True),
        (True, math.nan, True),
        (False, 0.9, False),
        (False, 1.1, True),
    ],
)
def test_a_result_that_is_not_better_than_its_bar_is_shown_as_missed(
    higher_is_better: bool, value: float, missed: bool
) -> None:
    objective = {"tag": "val/x", "value": value, "higher_is_better": higher_is_better}
    bar = recipes.Bar(1.0, "by hand")
    assert recipes.missed(objective, bar) == missed
    line = recipes.row("some", {"objective": objective, "steps": 7}, 61.2, bar)
    assert ("**missed**" in line) == missed
    assert line.startswith("| `some` | `python train.py experiment=some` | `val/x` |")
    assert line.endswith("| 1 (by hand) | 7 | 61 |")


def test_the_table_has_the_recipes_that_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert recipes.main(["tabular", "trainer.max_steps=1"]) == 1  # a step is not enough
    header, rule, line = capsys.readouterr().out.splitlines()
    assert header.count("|") == rule.count("|") == line.count("|")
    assert "`val/mae`" in line
    with pytest.raises(SystemExit):
        recipes.main(["tabula"])
    assert "there is no recipe tabula; there are cnn_classifier" in capsys.readouterr().err


def test_least_squares_is_the_linear_regression_of_scikit_learn() -> None:
    from sklearn.linear_model import LinearRegression

    data = diabetes()
    r2 = LinearRegression().fit(*data.train).score(*data.val)
    assert tabular.least_squares()["r2"] == pytest.approx(r2, abs=1e-4)
    assert -0.1 < tabular.least_squares(columns=0)["r2"] < 0  # the mean of the others


def test_the_detectors_are_told_apart_by_what_they_know() -> None:
    shares = watermark.told_rightly()
    assert 0.9 < shares["mean"] < shares["likelihood ratio"] < 0.95
