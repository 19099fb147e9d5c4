"""Jobs that only set values are composed once, and are what Hydra makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from trainer import hooks  # noqa: F401  # whose resolver the config names
from trainer.sweeps.composing import Composing, Yaml

FIXED = ["experiment=seed_problem", "trainer.max_epochs=2"]
JOBS = [
    [*FIXED, "clip.max_norm=0.1", "seed=0", "optimizer.lr=1e-3"],
    [*FIXED, "clip.max_norm=1", "seed=3", "optimizer.lr=0.5"],
    [*FIXED, "clip.max_norm=null", "seed='4'", "optimizer.lr=${seed}"],
]


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3", job_name="train"):
        yield GlobalHydra.instance().config_loader()


def composed(loader: Any) -> tuple[Composing, list[int], Any]:
    calls: list[int] = []
    hydras = loader.load_sweep_config

    def counted(master_config: Any, sweep_overrides: Any) -> Any:
        calls.append(1)
        return hydras(master_config, sweep_overrides)

    master = loader.load_configuration("config", [], RunMode.MULTIRUN)
    return Composing(counted), calls, master


def test_the_configs_are_hydras_own(loader: Any) -> None:
    composing, calls, master = composed(loader)
    for job in JOBS:
        mine, hydras = composing(master, job), loader.load_sweep_config(master, job)
        assert OmegaConf.to_yaml(mine) == OmegaConf.to_yaml(hydras)
        assert composing(master, job) is mine
    assert len(calls) == 1


def test_what_is_more_than_a_value_goes_hydras_way(loader: Any) -> None:
    composing, calls, master = composed(loader)
    several = (
        ["clip=norm"],
        ["clip=value"],
        ["optimizer.betas=[0.8,0.9]"],
        ["optimizer.betas=[0.7,0.9]"],
    )
    for job in (*several, ["+more=1"], ["+more=2"]):
        texts = [make(master, [*FIXED, *job]) for make in (composing, loader.load_sweep_config)]
        assert OmegaConf.to_yaml(texts[0]) == OmegaConf.to_yaml(texts[1])
    assert len(calls) == 6


def test_a_key_that_is_not_there_is_refused_as_hydra_does(loader: Any) -> None:
    composing, _, master = composed(loader)
    composing(master, [*FIXED, "clip.max_norm=1"])
    with pytest.raises(Exception, match=r"Could not override 'clip\.maxnorm'"):
        composing(master, [*FIXED, "clip.maxnorm=1"])


def test_the_text_of_a_config_is_omegaconfs(loader: Any) -> None:
    composing, _, master = composed(loader)
    write = Yaml()
    for job in JOBS:
        config = composing(master, job)
        assert write(config) == OmegaConf.to_yaml(config)
        assert write(config.hydra, "hydra") == OmegaConf.to_yaml(OmegaConf.masked_copy(config, "hydra"))
