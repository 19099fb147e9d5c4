"""The house keeps its shape: imports run downwards, starts are light, files and functions short."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import median

import pytest
from conftest import ROOT

PACKAGES = ("losses", "models", "trainer", "hydra_plugins")
# Above the parts, which are every other module of trainer; a module may import what stands lower and
# the modules of its own layer. The loop and what people look at do not know each other.
LAYERS = {
    **dict.fromkeys(("console", "closing", "tensorboard", "pictures"), (1, "views")),
    "loop": (1, "loop"),
    **dict.fromkeys(("rehearsal", "ensemble", "tasks"), (2, "tasks")),
    **dict.fromkeys(
        [
            *("sweeps.crew", "sweeps.display", "sweeps.gathering", "sweeps.jobs", "sweeps.jointly"),
            *("sweeps.overview", "sweeps.planning", "sweeps.pulse", "sweeps.report", "sweeps.standing"),
        ],
        (2, "tasks"),
    ),
    "build": (3, "build"),
    "claims": (3, "build"),
    "hooks": (4, "hooks"),
}  # of a module, or of a whole package
CONFIG_LIBRARIES = {"hydra", "omegaconf"}
KNOW_CONFIG = {
    "train",
    "trainer.build",
    "trainer.claims",
    "trainer.hooks",
    "trainer.sweeps.composing",
    "trainer.sweeps.listing",
}  # and hydra_plugins, which is Hydra's own namespace
HEAVY = {"matplotlib", "sklearn", "lightning", "pandas", "scipy", "PIL", "datasets"}
MOST_FILE, MOST_FUNCTION, MOST_ENTRYPOINT = 300, 60, 60


def _sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {
    _name(path): ast.parse(path.read_text(encoding="utf-8"), str(path))
    for path in [ROOT / "train.py", *_sources(*PACKAGES)]
}


def _walk(tree: ast.AST, functions: bool) -> Iterator[ast.AST]:
    """Every node; without ``functions`` only what an import of the module runs."""
    for node in ast.iter_child_nodes(tree):
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if functions or not (inside or typing_only):
            yield node
            yield from _walk(node, functions)


@functools.cache
def _imports(module: str, functions: bool = True) -> set[str]:
    """Dotted names that a module imports; ``from package import module`` counts as the module."""
    found: set[str] = set()
    for node in _walk(TREES[module], functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import, line {node.lineno}"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = names & TREES.keys()
            found |= modules or {str(node.module)}
    return found


def _packages(module: str, functions: bool = True) -> set[str]:
    return {name.partition(".")[0] for name in _imports(module, functions)}


def _layer(module: str) -> tuple[int, str]:
    package, _, rest = module.partition(".")
    if package == "trainer":
        return LAYERS.get(rest) or LAYERS.get(rest.partition(".")[0], (0, "parts"))
    return (0, package) if package in ("losses", "models") else (5, "entrypoints")


def _inside(module: str) -> set[str]:
    return {name for name in _imports(module) if name in TREES and name != module}


def test_imports_run_downwards() -> None:
    for module in sorted(TREES):
        height, layer = _layer(module)
        for imported in _inside(module):
            below, other = _layer(imported)
            assert below < height or other == layer, (
                f"{module} ({layer}) must not import {imported} ({other}); see LAYERS in this file"
            )


def test_imports_have_no_cycle() -> None:
    order = TopologicalSorter({module: _inside(module) for module in TREES})
    assert set(order.static_order()) == TREES.keys()  # raises CycleError, which names the cycle


def test_every_layer_is_about_a_module_there_is() -> None:
    assert {f"trainer.{name}" for name in LAYERS} - TREES.keys() == set()


@pytest.mark.parametrize("package", ["losses", "models"])
def test_losses_and_models_import_torch_only(package: str) -> None:
    for module in (name for name in TREES if name.partition(".")[0] == package):
        foreign = _packages(module) - {package, "torch"} - sys.stdlib_module_names
        assert not foreign, f"{module} imports {sorted(foreign)}"


def test_the_trainer_knows_no_particular_loss_or_model() -> None:
    for module in (name for name in TREES if name.startswith("trainer")):
        assert not _packages(module) & {"losses", "models"}, f"{module}: they are chosen by _target_"


def test_only_build_and_the_entrypoint_know_the_config() -> None:
    for module in sorted(TREES):
        if module not in KNOW_CONFIG and not module.startswith("hydra_plugins"):
            assert not _packages(module) & CONFIG_LIBRARIES, f"{module}: config never enters a class"


def test_nothing_heavy_is_imported_at_the_top() -> None:
    for module in sorted(TREES):
        assert not _packages(module, functions=False) & HEAVY, f"{module}: import it where it is used"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("trainer.loop", "matplotlib sklearn tensorboard hydra omegaconf rich torch._dynamo sympy"),
        ("train", "torch numpy matplotlib sklearn tensorboard"),
    ],
    ids=["loop", "train"],
)
def test_a_start_does_not_wait_for_what_it_may_not_need(module: str, absent: str) -> None:
    code = f"import sys, {module}; print(*sorted(set({absent.split()}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], f"import {module} imports these too"


def test_there_is_one_entrypoint() -> None:
    assert [path.name for path in ROOT.glob("*.py")] == ["train.py"]
    guarded = {
        name
        for name, tree in TREES.items()
        if any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body)
    }
    assert guarded == {"train"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert not project.keys() & {"scripts", "gui-scripts", "entry-points"}


def test_no_file_and_no_function_is_too_long() -> None:
    files: dict[str, int] = {}
    functions: dict[str, int] = {}
    for path in [ROOT / "train.py", *_sources(*PACKAGES, "tests", "benchmarks")]:
        text = path.read_text(encoding="utf-8")
        file = str(path.relative_to(ROOT))
        files[file] = len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                functions[f"{file}:{node.lineno} {node.name}"] = node.end_lineno - node.lineno + 1
    long = {name: lines for name, lines in files.items() if lines > MOST_FILE}
    long |= {name: lines for name, lines in functions.items() if lines > MOST_FUNCTION}
    if files["train.py"] > MOST_ENTRYPOINT:
        long["train.py"] = files["train.py"]
    medians = f"medians: {median(files.values())} a file, {median(functions.values())} a function"
    assert not long, f"too long: {long}; {medians}"
