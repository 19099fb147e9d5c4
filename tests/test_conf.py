"""Every YAML of every group, found by glob: what it says, what it names, and that it trains."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import pytest
from commands import composed
from omegaconf import OmegaConf
from readme_table import CONF, Option, options

from trainer import targets

OPTIONS = options()
RECIPES = [option for option in OPTIONS if option.group in ("ablation", "experiment", "sweep")]
PARTS = [option for option in OPTIONS if option not in RECIPES]
OURS = ("trainer.", "models.", "losses.", "hydra_plugins.trimtab_launcher.")
EXTRAS = "hydra_plugins.hydra_"  # installed on request, and tried in test_gathering.py

# What build hands to a part, so that no YAML repeats it.
INJECTED = {
    *("input_shape", "output_shape", "seed", "params", "optimizer", "horizon", "objective"),
    *("model", "loss", "clip", "guard", "checkpoints", "scheduler"),
    *("diagnostics", "refusals"),
}
# (part, key) whose value is on purpose not the Python default, and why.
ON_PURPOSE = {
    ("guard/stop", "max_consecutive"): "stop is skip at its strictest",
    ("guard/stop", "spike_z"): "a finite step does not end a run",
    ("diagnostics/off", "layers"): "nothing is measured",
    ("diagnostics/off", "activations"): "nothing is measured",
    ("diagnostics/full", "every"): "every logged step",
    **{
        ("diagnostics/full", key): "whatever can be measured"
        for key in ("parameters", "histograms", "shares")
    },
    ("trainer/default", "max_epochs"): "what the main job needs; a bare Trainer should end sooner",
    ("trainer/ddp", "max_epochs"): "as in trainer/default",
    ("trainer/ddp", "processes"): "they are what it is there for",
    ("trainer/fsdp", "max_epochs"): "as in trainer/default",
    ("trainer/fsdp", "processes"): "they are what it is there for",
}
FORMULA = re.compile(r"[=←·²|‖]")  # asked for in the groups that are mathematics


def _id(option: Option) -> str:
    return f"{option.group}/{option.name}"


def _content(option: Option) -> dict[str, Any]:
    content = OmegaConf.to_container(OmegaConf.load(option.path))
    assert isinstance(content, dict), f"{_id(option)} must hold keys"
    inherited: dict[str, Any] = {}
    if option in PARTS:
        above = [name for name in content.pop("defaults", []) if name != "_self_"]
        siblings = {other.name: other for other in PARTS if other.group == option.group}
        for name in above:
            inherited |= _content(siblings[name])
    return inherited | {str(key): value for key, value in content.items()}


def _nodes() -> dict[str, dict[str, Any]]:
    """Every node with a ``_target_``: the parts of the groups, and those in ``config.yaml`` itself."""
    nodes = {_id(option): _content(option) for option in PARTS}
    root = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"))
    assert isinstance(root, dict)
    parts = {key: value for key, value in root.items() if isinstance(value, dict)}
    return nodes | {str(key): node for key, node in parts.items() if "_target_" in node}


NODES = _nodes()
OUR_NODES = [name for name, node in NODES.items() if node["_target_"].startswith(OURS)]


def _keys(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if not key.startswith("_")}


def _parameters(node: Mapping[str, Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(targets.locate(node["_target_"])).parameters


def test_there_is_an_option_wherever_config_yaml_chooses_one() -> None:
    assert PARTS
    assert {option.group for option in RECIPES} == {"ablation", "experiment", "sweep"}
    assert "checkpoint" in NODES


# What a launch line cannot do in an empty folder, and what is said then.
NEED_A_FILE = {
    ("task", "evaluate"): "resume must name a run folder",
    ("task", "export"): "resume must name a run folder",
    ("task", "plots"): "resume must name a run folder",
    ("task", "replay"): "resume must name a run folder",
    ("data", "csv"): r"data\.path must be a \.csv file that exists, got 'table.csv'",
    ("data", "huggingface"): r"data\.path must be a folder or a .* got 'table\.parquet'",
    ("data", "image_folder"): r"data\.path must be a folder that exists, got 'pictures'",
    ("data", "npz"): r"data\.path must be a \.npz file that exists, got 'arrays\.npz'",
    ("data", "text_file"): r"data\.path must be a text file that exists, got 'book\.txt'",
}


@pytest.mark.parametrize("option", OPTIONS, ids=_id)
def test_opens_with_a_launch_line_that_chooses_it_and_builds(option: Option) -> None:
    assert option.lines[0].startswith("# python train.py "), "line 1 must be the launch line"
    jobs = composed(option.launch)
    differing = {OmegaConf.to_yaml(job.config) for job in jobs}
    listed = option.group == "sweep" and option.name != "search"  # which draws as it goes
    assert len(differing) == len(jobs) >= 1 + listed
    for job in jobs:
        assert job.choices[option.group] == option.name, f"{option.launch} does not choose it"
        if needs := NEED_A_FILE.get((option.group, option.name)):
            with pytest.raises(SystemExit, match=needs):
                job.prepare()
        else:
            job.prepare()


@pytest.mark.parametrize("option", OPTIONS, ids=_id)
def test_says_what_it_is(option: Option) -> None:
    assert option.lines[1] == "#", "an empty comment line under the launch line"
    assert len(option.doc) > 20
    assert option.doc.endswith((".", ")")), "whole sentences"
    mathematical = option.group in ("loss", "clip", "optimizer", "scheduler", "fault")
    if mathematical and option.name != "none":
        assert FORMULA.search(option.doc), "its formula"


@pytest.mark.parametrize("name", [*map(_id, PARTS), "config"])
def test_every_key_has_a_comment(name: str) -> None:
    path = CONF / f"{name}.yaml"
    lines = path.read_text(encoding="utf-8").split("\nhydra:")[0].splitlines()
    for above, line in zip(["", *lines], lines, strict=False):
        key = re.match(r" *([A-Za-z]\w*):", line)
        if key and key[1] != "defaults":
            assert "  # " in line or above.startswith("#"), f"{key[1]}: its unit or rule"


@pytest.mark.parametrize("name", [n for n in NODES if not NODES[n]["_target_"].startswith(EXTRAS)])
def test_every_key_is_a_parameter_of_the_target(name: str) -> None:
    assert set(_keys(NODES[name])) - set(_parameters(NODES[name])) == set()
    assert set(_keys(NODES[name])) & INJECTED == set(), "build hands these over"


@pytest.mark.parametrize("name", OUR_NODES)
def test_every_parameter_of_ours_is_a_key(name: str) -> None:
    assert set(_parameters(NODES[name])) - INJECTED - set(_keys(NODES[name])) == set()


def _differing(name: str) -> set[str]:
    """Keys of a node whose value is not the default in Python."""
    parameters, keys = _parameters(NODES[name]), _keys(NODES[name])
    plain = {key: tuple(v) if isinstance(v, list) else v for key, v in keys.items()}
    defaults = {key: parameters[key].default for key in keys if key in parameters}
    return {
        key
        for key, default in defaults.items()
        if default is not inspect.Parameter.empty and plain[key] != default
    }


@pytest.mark.parametrize("name", OUR_NODES)
def test_defaults_in_yaml_and_python_agree(name: str) -> None:
    excused = {key for part, key in ON_PURPOSE if part == name}
    assert _differing(name) == excused  # and an excuse that is no longer needed is dropped


def test_every_excuse_is_about_a_part_there_is() -> None:
    assert {part for part, _ in ON_PURPOSE} - set(NODES) == set()
