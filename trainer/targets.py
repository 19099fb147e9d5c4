"""What a ``_target_`` names, and sentences for when it names nothing or takes no such argument."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any


def locate(path: str) -> Callable[..., Any]:
    """The callable of that dotted path.

    Raises:
        ValueError: saying which part of the path is missing, what is there instead and in which file.
    """
    if not isinstance(path, str):  # a YAML may hold anything
        raise ValueError(f"_target_ must be a dotted path, got {path!r}")
    parts = path.split(".")
    found: Any = None
    for length in range(1, len(parts) + 1):
        name = ".".join(parts[:length])
        if found is None or isinstance(found, ModuleType):
            attribute = getattr(found, parts[length - 1], None)
            found = attribute if attribute is not None else _import(name, found, path)
        elif hasattr(found, parts[length - 1]):
            found = getattr(found, parts[length - 1])
        else:
            raise ValueError(_missing(path, parts[length - 1], found))
    if not callable(found):
        raise ValueError(f"_target_ {path} must be callable, got {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def accepted(target: Callable[..., Any], names: Collection[str]) -> set[str]:
    """Those of the names that the target has as parameters of its own."""
    return set(names) & set(_parameters(target))


def check_keywords(target: Callable[..., Any], keywords: Collection[str]) -> None:
    """Refuses a keyword that the target does not take.

    Raises:
        ValueError: naming the keyword and the nearest parameter.
    """
    parameters = _parameters(target)
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for name in keywords:
        if name not in parameters:
            where = getattr(target, "__qualname__", None)
            where = f"{target.__module__}.{where}" if where else repr(target)
            near = difflib.get_close_matches(name, parameters, 1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(parameters)}"
            raise ValueError(f"{name} is not an argument of {where}; {hint}")


@lru_cache(
    maxsize=256
)  # each part of each job of a sweep asks twice, and looking takes half a millisecond
def _parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError):  # some builtins have no signature to look at
        return {"": inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)}


def _import(name: str, parent: ModuleType | None, path: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise ValueError(f"_target_ {path}: importing {name} failed: {error}") from error
        raise ValueError(_missing(path, name.rpartition(".")[2], parent)) from None
    except Exception as error:
        line = f"{type(error).__name__}: {error}"
        raise ValueError(f"_target_ {path}: importing {name} failed: {line}") from error


def _missing(path: str, part: str, parent: Any) -> str:
    if parent is None:
        return (
            f"_target_ {path}: there is no package {part}; it must be installed or lie in the folder "
            "the command is typed in"
        )
    names = [name for name in dir(parent) if not name.startswith("_")]
    if hasattr(parent, "__path__"):
        names += [module.name for module in pkgutil.iter_modules(parent.__path__)]
    near = difflib.get_close_matches(part, names, 3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    file = getattr(parent, "__file__", None)
    searched = f" (searched {file})" if file else ""
    called = getattr(parent, "__name__", type(parent).__name__)
    own = Path.cwd() / called
    if own.is_dir() and file is not None and not Path(file).is_relative_to(own):
        hint = f", which hides your own {own}: give that package another name"
    return f"_target_ {path}: there is no {part} in {called}{searched}{hint}"
