"""The README's table of options, made from ``conf/``: ``python tests/readme_table.py`` rewrites it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).resolve().parent.parent
CONF, README = ROOT / "conf", ROOT / "README.md"
BEGIN, END = "<!-- options:begin -->", "<!-- options:end -->"


@dataclass(frozen=True)
class Option:
    """One YAML of a config group. It opens with its launch line, then says what it is."""

    path: Path

    @property
    def group(self) -> str:
        """The folder, as in ``group=name``."""
        return self.path.parent.relative_to(CONF).as_posix()

    @property
    def name(self) -> str:
        """The file, without its ending."""
        return self.path.stem

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the file, less a ``# @package`` that has to stand first."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return lines[1:] if lines[0].startswith("# @package") else lines

    @property
    def launch(self) -> str:
        """The command in the first line."""
        return self.lines[0].removeprefix("# ")

    @property
    def doc(self) -> str:
        """What the comment under the launch line says, as one paragraph."""
        length = next((i for i, line in enumerate(self.lines) if not line.startswith("#")), None)
        return " ".join(" ".join(line.lstrip("#").split()) for line in self.lines[1:length]).strip()

    @property
    def what_it_is(self) -> str:
        """The first sentence of the doc."""
        return re.split(r"(?<=\.) (?=[A-Z])", self.doc)[0]


def options() -> list[Option]:
    """Every option: groups in the order of ``config.yaml``, further ones after them."""
    order = list(_defaults())
    found = [Option(path) for path in CONF.rglob("*.yaml") if path.parent != CONF]
    rank = {group: at for at, group in enumerate(order)}
    return sorted(found, key=lambda o: (rank.get(o.group, len(order)), o.group, o.name))


def options_table() -> str:
    """The table in Markdown: a row for every option, in bold those that are on unless you choose."""
    rows = ["| group | option | what it is |", "| --- | --- | --- |"]
    defaults, last = _defaults(), ""
    for option in options():
        group = "" if option.group == last else f"`{option.group}`"
        is_default = defaults.get(option.group) == option.name
        name = f"**`{option.name}`**" if is_default else f"`{option.name}`"
        rows.append(f"| {group} | {name} | {_escaped(option.what_it_is)} |")
        last = option.group
    return "\n".join(rows)


def with_table(readme: str) -> str:
    """The README's text with the table between its two markers."""
    before, _, rest = readme.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{README.name} must hold {BEGIN} and, below it, {END}")
    return f"{before}{BEGIN}\n{options_table()}\n{END}{after}"


def _defaults() -> dict[str, str | None]:
    """The option that ``config.yaml`` chooses in each group, in its order."""
    entries = OmegaConf.load(CONF / "config.yaml").defaults
    mappings = [entry for entry in entries if isinstance(entry, DictConfig)]
    pairs = [(str(group), name) for mapping in mappings for group, name in mapping.items()]
    return {group: name for group, name in pairs if not group.startswith("override ")}


def _escaped(text: str) -> str:
    """Formulas hold characters that mean something to Markdown; code between backticks stays."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*<\[]|(?<!\w)_)", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts).replace("|", r"\|")


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
