"""The README says what is so: its table, its commands, its paths, its example of your own part."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from commands import START, composed
from conftest import ROOT
from readme_table import PAGE, README, page, with_overview

TEXT = README.read_text(encoding="utf-8")
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"outputs"}
FILES = {path.name for name in FOLDERS if name[0] != "." for path in (ROOT / name).rglob("*.*")}
SOURCE = re.compile(r"\.(py|ya?ml|toml|md)$")
# A block under <!-- file: my_conf/model/mine.yaml --> is that file of the reader's own.
OWN_FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```\w*\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE))


def _commands() -> list[str]:
    """Every ``python train.py …`` in a code block or between backticks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", TEXT)
    lines = [line for text in [*blocks, *spans] for line in text.replace("\\\n", " ").splitlines()]
    parts = [part.split("  #")[0].strip() for line in lines for part in line.split("&&")]
    return list(dict.fromkeys(part for part in parts if part.startswith(START + " ")))


COMMANDS = _commands()
WITH_OWN_FILES = [command for command in COMMANDS if "--config-dir" in command]


def test_the_options_told_are_those_of_conf() -> None:
    assert with_overview(TEXT) == TEXT, "run: python tests/readme_table.py"
    assert page() == PAGE.read_text(encoding="utf-8"), "run: python tests/readme_table.py"


@pytest.mark.parametrize("mark", ["install-and-train", "install-and-test"])
def test_the_blocks_that_ci_runs_are_there(mark: str) -> None:
    (block,) = re.findall(rf"^<!-- ci:{mark} -->\n```\w*\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    assert len(block.splitlines()) == 1
    assert block.startswith("pip install -e ")


def test_the_main_job_and_the_sweep_are_shown() -> None:
    assert "python train.py clip=norm loss=combined" in COMMANDS
    assert "python train.py -m clip.max_norm=0.1,1,10 loss.alpha=0.3,0.7" in COMMANDS


@pytest.mark.parametrize("command", sorted({*COMMANDS} - {*WITH_OWN_FILES}))
def test_every_command_composes(command: str) -> None:
    assert composed(command) or "--help" in command


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    local = [link.partition("#")[0] for link in links if "://" not in link]
    assert [link for link in local if link and not (ROOT / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_path_exists(page: str) -> None:
    text = re.sub(r"\w+://\S+", "", (ROOT / page).read_text(encoding="utf-8"))
    words = {word.rstrip(".:") for word in re.split(r"[\s`()\[\]\"',;|]+", text)} - OWN_FILES.keys()
    # Placeholders and the tags of the record (val/psnr) are no paths.
    plain = {word for word in words if re.fullmatch(r"\.?[\w./-]+", word)}
    paths = {w for w in plain if SOURCE.search(w) or (w.partition("/")[0] in FOLDERS and "/" in w)}
    assert paths
    # Under the heading of its folder a file may go by its name alone.
    assert sorted(path for path in paths - FILES if not (ROOT / path).exists()) == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_module_to_run_is_there(page: str) -> None:
    found = re.findall(r"python -m ([\w.]+)", (ROOT / page).read_text(encoding="utf-8"))
    own = [ROOT / name.replace(".", "/") for name in found if name not in ("venv", "pip")]
    missing = [path for path in own if not path.with_suffix(".py").is_file()]
    assert [path for path in missing if not (path / "__main__.py").is_file()] == []


def test_the_example_of_your_own_part_builds_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert OWN_FILES, "mark the files of the example with <!-- file: path -->"
    for name, content in OWN_FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert WITH_OWN_FILES
    for command in WITH_OWN_FILES:
        at = shlex.split(command).index("--config-dir") + 1
        assert (tmp_path / shlex.split(command)[at]).is_dir()
        for job in composed(command):
            job.prepare()
