"""What can be chosen, made from ``conf/``: the README's overview and ``docs/options.md``, which
``python tests/readme_table.py`` rewrites."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import groupby
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).resolve().parent.parent
CONF, README, PAGE = ROOT / "conf", ROOT / "README.md", ROOT / "docs" / "options.md"
BEGIN, END = "<!-- options:begin -->", "<!-- options:end -->"
HEAD = """\
# What can be chosen

`group=option` on the command line; the option in bold is the default. Every option is a file,
`conf/<group>/<option>.yaml`, that opens with a command to try and says what each of its numbers is, with
unit and range. This page is made from them (`python tests/readme_table.py`)."""


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


def _name(option: Option) -> str:
    """In bold if it is on unless you choose."""
    is_default = _defaults().get(option.group) == option.name
    return f"**`{option.name}`**" if is_default else f"`{option.name}`"


def overview() -> str:
    """A row for every group: its options."""
    rows = ["| group | options |", "| --- | --- |"]
    for group, members in groupby(options(), key=lambda option: option.group):
        anchor = group.replace("/", "")
        named = " ".join(_name(option) for option in members)
        rows.append(f"| [`{group}`]({PAGE.relative_to(ROOT)}#{anchor}) | {named} |")
    return "\n".join(rows)


def page() -> str:
    """A page with a section for every group: what each option is."""
    lines = [HEAD]
    for group, members in groupby(options(), key=lambda option: option.group):
        lines += ["", f"## {group}", "", "| option | what it is |", "| --- | --- |"]
        lines += [f"| {_name(option)} | {_escaped(option.what_it_is)} |" for option in members]
    return "\n".join(lines) + "\n"


def with_overview(readme: str) -> str:
    """The README's text with the overview between its two markers."""
    before, _, rest = readme.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{README.name} must hold {BEGIN} and, below it, {END}")
    return f"{before}{BEGIN}\n{overview()}\n{END}{after}"


@cache
def _defaults() -> dict[str, str | None]:
    """The option that ``config.yaml`` chooses in each group, in its order."""
    entries = OmegaConf.load(CONF / "config.yaml").defaults
    mappings = [entry for entry in entries if isinstance(entry, DictConfig)]
    pairs = [(str(group), name) for mapping in mappings for group, name in mapping.items()]
    return {group.removeprefix("override ").removeprefix("/"): name for group, name in pairs}


def _escaped(text: str) -> str:
    """Formulas hold characters that mean something to Markdown; code between backticks stays."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*<\[]|(?<!\w)_)", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts).replace("|", r"\|")


if __name__ == "__main__":
    README.write_text(with_overview(README.read_text(encoding="utf-8")), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
