"""Bad input: one line naming value, rule and remedy, exit 2, nothing created."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, SMALL, Outcome

NO_CLIP = "use clip=none to train without clipping"
LINES = {
    "clip.max_norm=-1": f"clip.max_norm must be > 0, got -1; {NO_CLIP}",
    "clip.max_norm=0": f"clip.max_norm must be > 0, got 0; {NO_CLIP}",
    "clip.max_norm=abc": f"clip.max_norm must be a finite number > 0, got 'abc'; {NO_CLIP}",
    "clip=value clip.clip_value=0": f"clip.clip_value must be > 0, got 0; {NO_CLIP}",
    "clip.norm_type=0": "clip.norm_type must be 1, 2 or inf, got 0; 2 is the usual choice",
    "clip=null": "Config group override must be a string or a list. Got NoneType; use <group>=none",
    "clip=nrm": "Could not find 'clip/nrm'",
    "clip.max_nrm=1": "Key 'max_nrm' is not in struct",
    "seed=-1": "seed must be a whole number >= 0 and < 4294967296, got -1",
    "seed=4294967296": "seed must be a whole number >= 0 and < 4294967296, got 4294967296",
    "seed=null": "seed must be a whole number >= 0 and < 4294967296, got None",
    "seed=abc": "seed must be a whole number >= 0 and < 4294967296, got 'abc'",
    "optimizer.lr=nan": "optimizer.lr must be a finite number > 0, got nan",
    "optimizer.lr=inf": "optimizer.lr must be a finite number > 0, got inf",
    "optimizer.lr=-1e-3": "optimizer.lr must be > 0, got -0.001",
    "optimizer.lr=true": "optimizer.lr must be a finite number > 0, got True",
    "optimizer.betas=[1.0,0.9]": "optimizer.betas[0] must be >= 0 and < 1, got 1.0",
    "optimizer.weight_decay=-1": "optimizer.weight_decay must be >= 0, got -1",
    "data.batch_size=0": "data.batch_size must be a whole number >= 1, got 0",
    "data.batch_size=1.5": "data.batch_size must be a whole number >= 1, got 1.5",
    "data.samples=0": "data.samples must be a whole number >= 1, got 0",
    "trainer.max_epochs=0": "trainer.max_epochs must be a whole number >= 1, got 0",
    "trainer.max_steps=0": "trainer.max_steps must be a whole number >= 1, got 0",
    "trainer.log_every=0": "trainer.log_every must be a whole number >= 1, got 0",
    "trainer.accumulate=0": "trainer.accumulate must be a whole number >= 1, got 0",
    "trainer.device=cuda:99": "trainer.device must be one this machine has, got 'cuda:99'",
    "trainer.device=tpu": "trainer.device must be auto, cpu, cuda or cuda:<n>, got 'tpu'",
    "trainer.precision=fp8": "trainer.precision must be one of fp64, fp32, bf16, fp16, got 'fp8'",
    "loss=combined loss.alpha=-1": "loss.alpha must be a finite number >= 0, got -1",
    "loss=combined loss.alpha=nan": "loss.alpha must be a finite number >= 0, got nan",
    "loss=combined loss.alpha=0 loss.beta=0 loss.gamma=0": "must not all be 0",
    "loss=masked loss.background=-1": "loss.background must be a finite number >= 0, got -1",
    "loss=masked loss.image=nan": "loss.image must be a number >= 0 and <= 1, got nan",
    "loss=masked": "loss=masked does not fit model=mlp predicting (1,) float32 and data=random with "
    "targets (1,) float32, a sample: ValueError: targets must be a tuple (target, mask)",
    "loss=cross_entropy": "loss=cross_entropy does not fit model=mlp predicting (1,) float32 and",
    "loss=cross_entropy loss.z_loss=-1": "loss.z_loss must be a finite number >= 0, got -1",
    "loss=huber loss.delta=0": "loss=huber does not fit",
    "loss=gradnorm loss.alpha=-1": "loss.alpha must be a finite number >= 0, got -1",
    "loss=gradnorm ~loss.terms.l1": "loss.terms must be at least two losses by name, got",
    "loss=dwa loss.window=0": "loss.window must be a whole number >= 1, got 0",
    "loss=dwa loss.temperature=0": "loss.temperature must be a finite number >= 0.01, got 0",
    "loss=dwa loss.terms.l1._target_=torch.nn.L1": "loss: ",
    "scheduler=step scheduler.interval=day": "scheduler.interval must be one of step, epoch",
    "scheduler.warmup=1000": "scheduler.warmup must be a whole number >= 0 and < ",
    "scheduler=noam scheduler.warmup=0": "scheduler.warmup must be a whole number >= 1",
    "scheduler=sequential": "scheduler.lengths must sum to less than the run's ",
    "scheduler=sequential scheduler.interval=step scheduler.schedules.1.gamma=0 scheduler.lengths=[3]": (
        "scheduler.schedules[1]: gamma must be > 0, got 0"
    ),
    "optimizer=rmsprop optimizer.alpha=1": "optimizer.alpha must be >= 0 and < 1, got 1",
    "decay=biases": "decay must be one of matrices, all, got 'biases'",
    "scheduler=plateau scheduler.factor=1": "scheduler.factor must be > 0 and < 1, got 1",
    "scheduler=plateau scheduler.monitor=val/los": "scheduler.monitor must be one of",
    "checkpoint.keep=0": "checkpoint.keep must be a whole number >= 1, got 0",
    "guard.max_consecutive=-1": "guard.max_consecutive must be a whole number >= 0, got -1",
    "objective=val/psnr": "objective must be one of val/loss, train/loss, grad/norm, got 'val/psnr'",
    "model=unet": "model=unet on data=random: input_shape must be (channels, height, width), got (10,)",
    "model=cnn": "model=cnn on data=random: input_shape must be (channels, height, width), got (10,)",
    "data=digits_denoise model=transformer": "input_shape must be (length,), that of a text of tokens",
    "model.activation=rleu": "model.activation must be one of relu, leaky_relu, selu, gelu, silu, tanh",
    "model.dropout=1": "model.dropout must be a number >= 0 and < 1, got 1; 0 is none",
    "init=kaiming init.scale=0": "init.scale must be a finite number > 0, got 0",
    "init=zero_residual": "init=zero_residual: model must have residual branches, as model=transformer",
    "model.hidden=[0]": "model.hidden must be a list of whole numbers >= 1, got [0]",
    "model._target_=models.mlp.MPL": "there is no MPL in models.mlp",
    "model._target_=models.mlp": "_target_ models.mlp must be callable, got module",
    "model._target_=modls.mlp.MLP": "there is no package modls",
    "+model.hiden=[3]": "hiden is not an argument of models.mlp.MLP; did you mean hidden?",
    "clip.max_norm=0.1,1": "To sweep over it, add --multirun",
    "clip.max_norm=${nope}": "Interpolation key 'nope' not found",
    "clip.max_norm=${clip.max_norm}": "Recursive interpolation detected",
    "-m hydra.launcher._target_=hydra_plugins.hydra_far_launcher.far.Far seed=1,2": (
        "hydra/launcher=vectorized needs a package that is not installed: pip install hydra-far-launcher"
    ),
    "-m hydra.launcher.strategy=fast seed=1,2": "hydra.launcher.strategy must be one of auto, stacked,",
    "-m hydra/sweeper=search hydra.launcher.strategy=fast": "hydra.launcher.strategy must be one of",
    "-m clip.max_norm=1,-1": f"clip.max_norm must be > 0, got -1; {NO_CLIP}",
    "-m clip.max_norm=range(0)": "the sweep is empty",
    "-m seed=1,1": "the sweep holds the same job twice",
    "-m optimizer.lr=1e-3,1,0.001": "the sweep holds the same job twice",
    "-m seed=1,2 hydra.sweep.subdir=same": "hydra.sweep.subdir must differ from job to job, got 'same'",
    "-m seed=range(10000000)": (
        "the sweep must have at most 10000 jobs, got 10001 or more; split it, or raise "
        "hydra.callbacks.preflight.most_jobs"
    ),
    "-m hydra.callbacks.preflight.most_jobs=many seed=0,1": "preflight.most_jobs must be a whole number",
    "-m hydra.callbacks.preflight.most_jobs=3 seed=range(4)": "at most 3 jobs, got 4 or more",
    "-m seed=range(1000000000000)": "the sweep must have at most 10000 jobs, got 10001 or more",
    "-m seed=range(9999) clip.max_norm=range(1,9999)": "at most 10000 jobs, got 99970002 or more",
    "-m clip=glob(nothing*)": "the sweep is empty",
    "-m hydra/launcher=basic seed=1,1": "the sweep holds the same job twice",
    "-m hydra/launcher=basic seed=range(10000000)": "the sweep must have at most 10000 jobs",
    "hydra.run.dir=/proc/none/run": "the run folder cannot be made",
}


@pytest.mark.parametrize("arguments", LINES)
def test_bad_input_is_refused_in_a_line_and_leaves_nothing(
    arguments: str, command: Callable[..., Outcome]
) -> None:
    words = arguments.split(" ")
    flags = [word for word in words if word == "-m"]
    outcome = command(*flags, *SMALL, *words[len(flags) :])
    assert outcome.code == 2
    assert LINES[arguments] in outcome.err
    assert "Traceback" not in outcome.err
    assert list(outcome.folder.iterdir()) == []
    if not any(word in outcome.err for word in ("Could not", "Ambiguous", "multirun")):
        assert len(outcome.err.strip().splitlines()) == 1


def test_a_command_that_cannot_be_composed_is_refused_in_three_seconds(tmp_path: Path) -> None:
    """On two busy cores it takes longer, so it is compared with what Python and Hydra need to start."""
    seconds = {}
    for name, words in {
        "hydra": ["-c", "import hydra, omegaconf"],
        "ours": [str(ROOT / "train.py"), "clip.max_nrm=1"],
    }.items():
        began = time.perf_counter()
        code = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True).returncode
        seconds[name] = time.perf_counter() - began
        assert code == (2 if name == "ours" else 0)
    assert seconds["ours"] < 3 + 10 * seconds["hydra"]
    assert not list(tmp_path.iterdir())


def test_a_command_that_cannot_be_composed_does_not_wait_for_torch(tmp_path: Path) -> None:
    script = "import sys, train; code = train.main(); print(code, 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script, "clip.max_nrm=1"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "2 False\n", done.stderr


YAML = {
    "empty": (b"", "clip must name a _target_"),
    "a list": (b"- 1\n- 2\n", "clip=mine: clip must name a _target_, got [1, 2]"),
    "not UTF-8": (b"\xff\xfe\x00_", "clip/mine.yaml is not UTF-8 text"),
    "tab-indented": (b"a:\n\tb: 1\n", "clip/mine"),
    "a duplicate key": (b"_target_: a.B\n_target_: a.C\n", "duplicate key"),
    "a python tag": (b"a: !!python/object/apply:os.system ['true']\n", "clip/mine"),
}


@pytest.mark.parametrize("kind", YAML)
def test_a_yaml_that_cannot_be_read_is_named(
    kind: str, command: Callable[..., Outcome], tmp_path: Path
) -> None:
    content, expected = YAML[kind]
    folder = tmp_path / "my_conf" / "clip"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_bytes(content)
    outcome = command("--config-dir", "my_conf", *SMALL, "clip=mine")
    assert outcome.code == 2
    assert expected in outcome.err
    assert "Traceback" not in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["my_conf"]
