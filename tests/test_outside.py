"""A user's own parts, in the user's own folder, without touching the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from conftest import ROOT, Outcome

Command = Callable[..., Outcome]

PACKAGE = {
    "model.py": """
from torch import nn

class Line(nn.Linear):
    def __init__(self, input_shape, output_shape, bias: bool = True):
        super().__init__(*input_shape, *output_shape, bias=bias)
""",
    "loss.py": """
def log_cosh(scale: float = 1.0):
    return lambda p, t: ((p - t) / scale).cosh().log().mean()
""",
    "clip.py": """
from trainer.clipping import Clipped, total_norm

class Halve:
    norm_type = 2.0

    def __init__(self, times: int = 1):
        self.times = times

    def __call__(self, gradients, norm):
        for g in gradients:
            g.mul_(0.5**self.times)
        return Clipped(norm=total_norm(gradients))

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass
""",
    "data.py": """
import torch
from trainer.data.tensors import TensorData

def line(batch_size: int = 8, seed: int = 0):
    x = torch.linspace(-1, 1, 64)[:, None]
    return TensorData((x, 3 * x), (x, 3 * x), batch_size=batch_size, seed=seed)
""",
}
TARGETS = {
    "model/mine": "_target_: mine.model.Line\nbias: true\n",
    "loss/mine": "_target_: mine.loss.log_cosh\n_partial_: false\nscale: 1.0\n",
    "clip/mine": "_target_: mine.clip.Halve\ntimes: 2\n",
    "data/mine": "_target_: mine.data.line\nbatch_size: 8\n",
}


def write_package(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "__init__.py").touch()
    for name, text in PACKAGE.items():
        (folder / "mine" / name).write_text(text)
    for name, text in TARGETS.items():
        path = folder / "my_conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--config-dir", "my_conf", *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_own_model_loss_clip_and_data_train_from_outside(tmp_path: Path) -> None:
    write_package(tmp_path)
    done = run(tmp_path, "model=mine", "loss=mine", "clip=mine", "data=mine", "optimizer.lr=0.1")
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("outputs/*/*/summary.json")
    summary = json.loads(path.read_text())
    assert summary["status"] == "completed"
    assert summary["metrics"]["val/loss"]["last"] < 1e-3
    assert summary["clip"]["mode"] == "Halve"
    norms = summary["metrics"]["grad/norm"]["last"], summary["metrics"]["grad/norm_clipped"]["last"]
    assert abs(norms[1] - norms[0] / 4) < 1e-6


def test_an_error_in_an_own_package_is_named_with_its_file(command: Command, tmp_path: Path) -> None:
    write_package(tmp_path)
    (tmp_path / "mine" / "model.py").write_text("import nowhere_to_be_found\n")
    outcome = command("--config-dir", "my_conf", "model=mine", "data=mine")
    assert outcome.code == 2
    assert "importing mine.model failed: No module named 'nowhere_to_be_found'" in outcome.err
    assert not (tmp_path / "outputs").exists()


def test_an_own_package_called_models_is_told_that_ours_comes_first(
    command: Command, tmp_path: Path
) -> None:
    write_package(tmp_path)
    (tmp_path / "mine").rename(tmp_path / "models")
    (tmp_path / "my_conf" / "model" / "mine.yaml").write_text("_target_: models.model.Line\n")
    outcome = command("--config-dir", "my_conf", "model=mine", "data=random", "loss=mse")
    assert outcome.code == 2
    assert "there is no model in models" in outcome.err
    assert str(ROOT / "models") in outcome.err
    assert str(tmp_path / "models") in outcome.err
