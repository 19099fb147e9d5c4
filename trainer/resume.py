"""Continuing a run: which folder, which command line, which checkpoint.

A run folder is data, from whoever had write access to it. Nothing in it is instantiated: its overrides
are only typed again, on top of your own ``conf/`` and after a check that they choose and set nothing but
values; its stored configuration is only compared with the result; its checkpoints are only tensors.

Nothing heavy is imported here: ``train.py`` expands the command line before Hydra sees it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

import yaml

RUN, SWEEP = Path(".hydra", "overrides.yaml"), "multirun.yaml"  # where Hydra keeps what was typed
OPTION, MIX = r"[\w-]+(/[\w-]+)*", r"\{\w+:[\d.eE+-]+(,\w+:[\d.eE+-]+)*\}"  # {alpha:1,beta:0}
CHOICE = re.compile(rf"[\w-]+=({OPTION}(,{OPTION})*|{MIX}(,{MIX})*)")  # of a sweep several
SETTING = re.compile(r"\+{0,2}[A-Za-z][\w-]*(\.[\w-]+)*=.*", re.DOTALL)
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's: a tenth of the time
FORBIDDEN = re.compile(r"_target_|\$\{|^\+*hydra[.=/]|^\+*resume", re.IGNORECASE)


class CannotResume(ValueError):
    """One line on why a run cannot be continued."""


def expand(arguments: Sequence[str]) -> list[str]:
    """The arguments, with ``resume=<folder>`` replaced by the run's own command line in that folder.

    ``resume=auto`` is the newest unfinished run with the same overrides, or a new run if there is none.
    With ``-m``, or a folder that holds a sweep, the same for a sweep: jobs that are done stay as they
    are (see `trainer.hooks.run`). So they do under ``sweep_dir=<folder>``, beside the sweep's own
    command. A task that does not train leaves ``.hydra/`` as it is, which says what the run is.
    Arguments without either come back as they are.

    Raises:
        CannotResume: if the folder is no run, or its overrides do more than choose and set values.
    """
    arguments = [_sweep_dir(argument) for argument in arguments]
    wanted = [a.removeprefix("resume=") for a in arguments if a.startswith("resume=")]
    rest = [a for a in arguments if not a.startswith("resume=")]
    if not wanted or wanted[-1] in ("", "null"):
        return list(arguments)
    sweeping = any(a in ("-m", "--multirun") or a.startswith("sweep=") for a in rest)
    folder = _newest_unfinished(rest, sweeping) if wanted[-1] == "auto" else Path(wanted[-1])
    if folder is None:
        return rest
    flags, added = _flags_of(rest), _overrides_in(rest)
    task = next((a for a in reversed(added) if a.startswith("task=")), "task=train")
    here = [f"hydra.run.dir={_quoted(folder)}", f"resume={_quoted(folder)}"]
    if task != "task=train":  # what is done with a run does not change what the run is
        here.append("hydra.output_subdir=null")
    if task == "task=plots":  # from the record alone, whatever has become of the run's data
        return [*flags, *added, *here]
    sweep = (folder / SWEEP).exists()
    if sweep and task != "task=train":
        raise CannotResume(f"resume={folder} is a sweep; {task} takes one of its runs, {folder}/0, say")
    stored = overrides_of(folder)
    typed = [a for a in added if a not in stored]
    if sweep:
        return [*dict.fromkeys([*flags, "-m"]), *stored, *typed, f"hydra.sweep.dir={_quoted(folder)}"]
    # A job of a sweep=… is one run; its sweep config may set more than the keys it sweeps.
    here += ["hydra.mode=RUN"] if any(item.startswith("sweep=") for item in stored) else []
    return [*flags, *stored, *typed, *here]


def _sweep_dir(argument: str) -> str:
    key, _, folder = argument.partition("=")
    return f"hydra.sweep.dir={_quoted(Path(folder))}" if key == "sweep_dir" else argument


def overrides_of(folder: Path) -> list[str]:
    """What was typed for the run or the sweep, if it is nothing but choices and values.

    Raises:
        CannotResume: otherwise.
    """
    path = folder / (SWEEP if (folder / SWEEP).exists() else RUN)
    try:
        overrides: Any = yaml.load(path.read_text(encoding="utf-8"), LOADER) or []
        if path.name == SWEEP:
            overrides = overrides["hydra"]["overrides"]["task"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise CannotResume(f"resume={folder} is no run folder: {error}") from None
    if not isinstance(overrides, list) or not all(isinstance(item, str) for item in overrides):
        raise CannotResume(f"{path} must be a list of overrides")
    # What was done with the run last, such as an export, is not what the run is.
    passing = ("resume=", "resume_allow=", "task=")
    kept = [item for item in overrides if not item.startswith(passing)]
    for item in kept:
        chooses = CHOICE.fullmatch(item) or "." in item.partition("=")[0] or _is_value(item)
        if not chooses or not SETTING.fullmatch(item) or FORBIDDEN.search(item):
            raise CannotResume(
                f"{path} holds {item!r}, which does more than choose an option or set a value; if you "
                "wrote it yourself, start the run anew with the full command"
            )
    return kept


def differing_keys(
    folder: Path, config: Mapping[str, Any], allowed: Sequence[str], kept: str = "config.yaml"
) -> list[str]:
    """What the run was configured with that differs now, as ``key (then -> now)``, but for the task,
    the processes that share the work and what is allowed: those keys and everything below them.

    Raises:
        CannotResume: if the stored configuration cannot be read as plain data.
    """
    path = folder / ".hydra" / kept
    try:
        stored = yaml.load(path.read_text(encoding="utf-8"), LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CannotResume(f"{path} cannot be read as plain data: {error}") from None
    then, now = _flat(stored), _flat(config)
    skipped = ("resume", "resume_allow", "task", "trainer.processes", *allowed)
    return [
        f"{key} ({then.get(key, 'absent')} -> {now.get(key, 'absent')})"
        for key in sorted({*then, *now})
        if then.get(key, ...) != now.get(key, ...)
        and not any(key == name or key.startswith(name + ".") for name in skipped)
    ]


def lock(folder: Path) -> TextIO:
    """Makes this process the only one that writes to the folder, until the file returned is closed or
    the process ends, however it ends.

    Raises:
        BlockingIOError: naming the process that holds it.
    """
    file = open(folder / ".lock", "a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "another"
        file.close()
        raise BlockingIOError(f"{folder} is in use by process {owner}") from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _newest_unfinished(arguments: Sequence[str], sweeping: bool) -> Path | None:
    # Hydra's own settings say how a run is started, not what it is, and are kept elsewhere.
    passing = ("resume_allow=", "task=", "hydra.", "hydra/")
    typed = {a for a in _overrides_in(arguments) if not a.startswith(passing)}
    where = f"sweeps/*/{SWEEP}" if sweeping else f"*/*/{RUN}"
    for path in sorted(Path("outputs").glob(where), reverse=True):
        folder = path.parent if sweeping else path.parent.parent
        try:
            same = set(overrides_of(folder)) == typed
        except CannotResume:
            continue
        began = sweeping or (folder / "metrics.jsonl").exists()  # or it was only inspected
        if same and began and _is_unfinished(folder):
            return folder
    return None


def _is_unfinished(folder: Path) -> bool:
    try:
        lock(folder).close()
    except BlockingIOError:
        return False
    return status_of(folder) in (None, "interrupted", "failed")


def status_of(folder: Path) -> str | None:
    """How the run, or the sweep, in the folder ended; None if it was killed before it could say."""
    name = "sweep.json" if (folder / SWEEP).exists() else "summary.json"
    try:
        summary = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(summary.get("status")) if isinstance(summary, dict) else None


def _flags_of(arguments: Sequence[str]) -> list[str]:
    """Flags, each followed by its value if it takes one."""
    valued = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp")
    return [
        word for before, word in pairwise(["", *arguments]) if word.startswith("-") or before in valued
    ]


def _overrides_in(arguments: Sequence[str]) -> list[str]:
    flags = _flags_of(arguments)
    return [word for word in arguments if word not in flags]


def _is_value(item: str) -> bool:
    return item.startswith(("seed=", "objective="))


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return flat
