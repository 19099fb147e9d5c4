"""What the tests share: the repository's folder, one thread, and a command line run in this process."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TextIO

import omegaconf._utils
import pytest
import torch
import yaml
from hydra._internal.hydra import Hydra

import trainer.build  # noqa: F401  its import adds the folder one is in to where packages are looked for

gc.disable()  # until all is imported, which makes no garbage and would take a fifth longer
ROOT = Path(__file__).parent.parent
SMALL = ["data=random", "model=mlp", "loss=mse", "trainer.max_steps=8", "trainer.log_every=4"]


LOADER = omegaconf._utils.get_yaml_loader()
composed_mode = Hydra.get_mode


class Remembering:
    """OmegaConf's loader, which parses no text twice: each command reads two dozen files of ``conf/``,
    in Python, and that would be a tenth of the time that all tests take."""

    known: ClassVar[dict[str, Any]] = {}

    def __init__(self, stream: str | TextIO) -> None:
        self.stream = stream

    def get_single_data(self) -> Any:
        """What the text holds; whoever asks copies it into nodes of its own."""
        text = self.stream if isinstance(self.stream, str) else self.stream.read()
        if text not in self.known:
            if not isinstance(self.stream, str):
                self.stream.seek(0)  # its name is part of what is said of an error
            self.known[text] = yaml.load(self.stream, Loader=LOADER)
        return self.known[text]

    def dispose(self) -> None:
        """There is nothing to give back."""


def mode(hydra: Hydra, config_name: str, overrides: list[str]) -> Any:
    """Hydra composes every command twice, the first time only to see whether it sets ``hydra.mode``,
    which in ``conf/`` the sweeps alone do."""
    may = any(word.startswith(("sweep=", "+sweep=", "hydra.mode=")) for word in overrides)
    return composed_mode(hydra, config_name, overrides) if may else None


omegaconf._utils.get_yaml_loader = lambda: Remembering
Hydra.get_mode = mode


def pytest_collection_finish() -> None:
    """What was imported stays, so no pass for garbage need go through it."""
    gc.freeze()
    gc.enable()


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def run_folders(self) -> list[Path]:
        """Every folder a run was recorded in."""
        return sorted(path.parent for path in self.folder.rglob("metrics.jsonl"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tests run beside others on few cores, where OpenMP's spinning threads starve each other."""
    torch.set_num_threads(1)
    return


@pytest.fixture(autouse=True)
def own_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a test imports from a folder of its own is forgotten: the next may call another the same."""
    before, folders = set(sys.modules), str(tmp_path_factory.getbasetemp())
    yield
    for name in set(sys.modules) - before:
        places = vars(sys.modules[name]).get("__path__") or [vars(sys.modules[name]).get("__file__")]
        if any(str(place).startswith(folders) for place in places):
            del sys.modules[name]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Runs ``train.py`` with the arguments in an empty folder, in this process; it draws no curves."""
    import train

    monkeypatch.setattr(
        "trainer.pictures.curves.draw_curves", lambda folder: None
    )  # a third of the time
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        try:
            code = train.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err, tmp_path)

    return run
