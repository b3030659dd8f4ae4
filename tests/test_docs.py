"""Generated pages of the documentation are those that the code generates today."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cohort.reasons import REASONS
from cohort.tables.dictionary import data_dictionary

ROOT = Path(__file__).parents[1]


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
