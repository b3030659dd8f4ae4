"""Generated pages of the documentation are those that the code generates today."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cohort.reasons import REASONS
from cohort.tables.dictionary import data_dictionary
from pipelines.cli import main

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    if "decisions" not in path.parts  # they tell of the past
)
COMMAND = re.compile(r"(?:^|[\s(=`>&])(?:\S*/)?cohort ((?:[a-z]|-)[^`\n]*)", re.MULTILINE)
"""Words after `cohort` in a line of code."""


def test_the_data_dictionary_is_current() -> None:
    assert (ROOT / "docs" / "tables.md").read_text().strip() == data_dictionary().strip()


def test_every_reason_code_is_documented() -> None:
    page = (ROOT / "docs" / "reasons.md").read_text()
    assert [code for code in REASONS if f"- `{code}`: " not in page] == []


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_links_and_code_paths_of_a_page_exist(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    named = re.findall(r"`((?:cohort|models|pipelines|cluster|tests|benchmarks|docs)/[\w./-]+\.(?:py|md|csv))`", text)
    assert [path for path in named if not (ROOT / path).exists()] == []


def commands_of(page: str) -> Iterator[str]:
    """Words of every `cohort ...` line in a page's code, in blocks and within text."""
    blocks: list[str] = []
    prose: list[str] = []
    fenced = False
    for line in (ROOT / page).read_text().splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced:
            blocks.append(line)
        else:
            prose.append(line)
    inline = re.findall(r"`(cohort\s[^`]+)`", "\n".join(prose))
    for code in ("\n".join(blocks).replace("\\\n", " "), *(" ".join(one.split()) for one in inline)):
        yield from COMMAND.findall(code)


def unknown_in(words: str) -> list[str]:
    """Commands and options in a command line that the command line interface does not have."""
    command: click.Command = main
    options = {name for parameter in command.params for name in parameter.opts}
    unknown = []
    for word in re.split(r"\s(?:[|<>&]|2>)|;|\s#", words)[0].split():
        word = word.strip("[]").split("|")[0]  # [--optional], one|another
        if isinstance(command, click.Group) and re.fullmatch(r"[a-z][a-z-]*", word):
            found = command.get_command(click.Context(command), word)
            if found is None:
                return [*unknown, word]
            command = found
            options = {name for parameter in command.params for name in parameter.opts}
        elif word.startswith("--") and word.split("=")[0] not in options | {"--help", "--version"}:
            unknown.append(word)
    return unknown


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_that_a_page_names_exist(page: str) -> None:
    found = {words: unknown_in(words) for words in commands_of(page)}
    assert {words: unknown for words, unknown in found.items() if unknown} == {}


def test_the_check_of_command_lines_finds_what_is_wrong() -> None:
    assert len([words for page in PAGES for words in commands_of(page)]) > 60
    assert unknown_in("nightly /a --store /b --till 06:00 --dry-run") == ["--till"]
    assert unknown_in("exports osim EXAM --store /b") == ["exports"]
    assert unknown_in("changes show --store /b | jq --raw") == []


def test_the_readme_links_every_page() -> None:
    linked = set(re.findall(r"\]\((docs/[\w./-]+?)(?:#[\w-]+)?\)", (ROOT / "README.md").read_text()))
    pages = {page for page in PAGES if page.startswith("docs/") and not page.startswith("docs/cluster/")}
    pages -= {page for page in pages if page.endswith("-table.md")}  # parts of other pages
    assert pages - linked == set()
    assert "docs/cluster/README.md" in linked
