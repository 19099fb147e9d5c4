"""Ablations: what they take out, of whatever was chosen, and that all else is the same."""

from __future__ import annotations

import functools
from collections import Counter

import pytest
import torch
from commands import composed
from conftest import ROOT
from omegaconf import OmegaConf
from torch import Tensor

from trainer.clipping import ClipByNorm, NoClip
from trainer.guard import Off, Skip
from trainer.tasks.train import Job

ABLATIONS = sorted(path.stem for path in (ROOT / "conf" / "ablation").glob("*.yaml"))
OTHER_LOSS, OTHER_MODEL = {"no_loss_mix", "nothing"}, {"no_normalization", "nothing"}


@functools.cache
def prepared(*overrides: str) -> Job:
    (one,) = composed(" ".join(["python train.py", *overrides]))
    return one.prepare()


@functools.cache
def begun(ablation: str) -> tuple[dict[str, Tensor], list[Tensor], float]:
    """Initial weights, the first batches, and the loss of the first."""
    job = prepared(f"ablation={ablation}", "seed=3", "trainer.max_steps=1", "trainer.log_every=1")
    weights = {name: tensor.clone() for name, tensor in job.trainer.model.state_dict().items()}
    batches = [
        tensor for batch, _ in zip(job.data.batches(0), range(2), strict=False) for tensor in batch
    ]
    summary = job.trainer.fit(job.data)
    return weights, batches, summary["metrics"]["train/loss"]["first"]


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_an_ablation_starts_from_the_same_weights_batches_and_loss(ablation: str) -> None:
    weights, batches, loss = begun(ablation)
    reference, in_order, first = begun("all")
    assert all(torch.equal(a, b) for a, b in zip(batches, in_order, strict=True))
    if ablation not in OTHER_MODEL:
        assert weights.keys() == reference.keys()
        assert all(torch.equal(weights[name], reference[name]) for name in weights)
    assert (loss == first) == (ablation not in OTHER_LOSS | OTHER_MODEL)


def test_all_is_the_run_without_an_ablation() -> None:
    a, b = prepared("ablation=all").trainer, prepared("seed=0").trainer
    assert vars(a.loss)["alpha"] == vars(b.loss)["alpha"] == 0.7
    assert type(a.clip) is type(b.clip) is ClipByNorm
    assert type(a.guard) is type(b.guard) is Skip


@pytest.mark.parametrize(
    ("ablation", "gone"),
    [
        ("all", set()),
        ("no_clip", {"clip"}),
        ("no_guard", {"guard"}),
        ("no_schedule", {"schedule"}),
        ("no_normalization", {"norm"}),
        ("no_loss_mix", {"mix"}),
        ("nothing", {"clip", "guard", "schedule", "norm", "mix"}),
    ],
)
def test_an_ablation_takes_out_what_it_says_and_nothing_else(ablation: str, gone: set[str]) -> None:
    trainer = prepared(f"ablation={ablation}", "trainer.max_steps=9").trainer
    before = trainer.optimizer.param_groups[0]["lr"]
    trainer.schedule.step_ended()
    present = {
        "clip": not isinstance(trainer.clip, NoClip),
        "guard": not isinstance(trainer.guard, Off),
        "schedule": trainer.optimizer.param_groups[0]["lr"] < before,
        "norm": any("BatchNorm" in type(module).__name__ for module in trainer.model.modules()),
        "mix": sum(vars(trainer.loss)[weight] > 0 for weight in ("alpha", "beta", "gamma")) > 1,
    }
    assert {part for part, there in present.items() if not there} == gone


@pytest.mark.parametrize(
    "chosen",
    [
        ["clip=value"],  # an option of Hydra's would win over the ablation
        ["clip.max_norm=0.5"],  # and a value be refused where the part is gone
        ["experiment=seed_problem"],  # or, set by a recipe, be handed to a part that does not take it
    ],
    ids=["another option", "a value", "a recipe"],
)
def test_an_ablation_takes_out_whatever_was_chosen(chosen: list[str]) -> None:
    job = prepared("ablation=no_clip", *chosen)
    assert isinstance(job.trainer.clip, NoClip)
    assert job.choices["clip"].endswith("-ablated")


def test_where_a_recipe_lacks_some_of_it_the_rest_is_taken_out() -> None:
    trainer = prepared("ablation=nothing", "experiment=seed_problem").trainer
    assert isinstance(trainer.clip, NoClip)
    assert isinstance(trainer.guard, Off)
    assert isinstance(trainer.loss, torch.nn.MSELoss)


@pytest.mark.parametrize(
    "overrides",
    [
        ["ablation=no_clip", "clip=none"],
        ["ablation=no_guard", "guard=off"],
        ["ablation=no_normalization", "model.norm=none"],
        ["ablation=no_loss_mix", "experiment=seed_problem"],
    ],
    ids=" ".join,
)
def test_an_ablation_that_would_change_nothing_is_refused(overrides: list[str]) -> None:
    with pytest.raises(SystemExit, match=f"^{overrides[0]} takes nothing out of this run"):
        prepared(*overrides)


@pytest.mark.parametrize("wrong", ["+ablation.nowhere={a: 1}", "+ablation.clip=5"])
def test_an_ablation_holds_groups_and_what_to_put_there(wrong: str) -> None:
    with pytest.raises(SystemExit, match=r"^ablation must hold groups and what to put there, got"):
        prepared(f"'{wrong}'")


def test_the_sweep_runs_every_ablation_with_the_same_seeds_and_the_reference_first() -> None:
    swept = OmegaConf.load(ROOT / "conf" / "sweep" / "ablation.yaml").hydra.sweeper.params
    assert Counter(swept.ablation.split(",")) == dict.fromkeys(ABLATIONS, 1)
    assert swept.seed == "0,1,2,3,4"
    jobs = composed("python train.py sweep=ablation")
    assert [job.choices["ablation"] for job in jobs] == ["all", "nothing"]
    assert [job.config.seed for job in jobs] == [0, 4]
    assert {job.config.trainer.max_epochs for job in jobs} == {4}
