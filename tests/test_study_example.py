"""A study made here: exams and two readers with a known difference, by the three commands of the docs and by one."""

from __future__ import annotations

import csv
import re
import shlex
from contextlib import chdir
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from reader_studies import QUICK_RUN

from pipelines.cli import main
from pipelines.study.example import write_study_example

DOCS = Path(__file__).parents[1] / "docs" / "study-report.md"


def cohort(*words: object) -> str:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with an archive of one exam, annotations of two readers and a configuration."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "cohort.toml").write_text(QUICK_RUN)
    write_study_example(folder, n_exams=1, processes=1, report=print)
    return folder


def commands_of_the_docs() -> list[list[str]]:
    """Words after `cohort` of each line of the first block of code."""
    block = DOCS.read_text().split("```bash\n")[1].split("```")[0]
    return [shlex.split(line, comments=True)[1:] for line in block.splitlines()]


@pytest.fixture(scope="module")
def reported(study: Path) -> Path:
    """The study after the commands of the docs, word for word; the first two are told where the key is."""
    process, bring_in, compare = commands_of_the_docs()
    with chdir(study):
        for words in ([*process, "--config", "cohort.toml"], [*bring_in, "--config", "cohort.toml"], compare):
            cohort(*words)
    return study


@pytest.mark.slow
def test_three_commands_of_the_docs_lead_from_an_annotated_archive_to_the_report(reported: Path) -> None:
    assert [words[0] for words in commands_of_the_docs()] == ["run", "annotations", "agreement"]
    page = (reported / "report" / "report.html").read_text()
    assert "NaN" not in re.sub(r"base64,[^\"]+", "", page)
    assert str(reported) not in page
    for title in ("B against A", "automatic against A", "automatic against B"):
        assert f'<h2 class="part">{title}</h2>' in page
    overlaps = pq.read_table(reported / "report" / "overlaps.parquet").to_pylist()
    whole = [row for row in overlaps if row["slice_position"] is None and row["kind"] == "vertebral_body"
             and (row["first_reader"], row["second_reader"]) == ("A", "B")]  # fmt: skip
    assert {row["level"] for row in whole} >= {"L1", "L2", "L3", "L4", "L5"}
    assert all(row["dice"] is None or 0.85 < row["dice"] <= 1 for row in whole)
    with (reported / "truth.csv").open() as file:
        shifts = [float(row["shift_mm"]) for row in csv.DictReader(file) if row["reader"] == "B"]
    assert -1.5 < min(shifts) < max(shifts) < 2.5


@pytest.mark.slow
def test_the_example_types_the_commands_of_the_docs_and_makes_nothing_again(reported: Path) -> None:
    before = {path: path.stat().st_mtime_ns for name in ("archive", "store/annotations")
              for path in (reported / name).rglob("*") if path.suffix != ".parquet"}  # fmt: skip
    with chdir(reported.parent):
        printed = cohort("study", "example", reported.name, "--exams", 1, "--processes", 1)
    typed = [shlex.split(line)[2:] for line in printed.splitlines() if line.startswith("$ cohort ")]
    plain = [[word.removeprefix(f"{reported.name}/") for word in words] for words in typed]
    for words, documented in zip(plain, commands_of_the_docs(), strict=True):
        assert words[: len(documented)] == documented
    assert "Nothing to do: 1 exams are up to date" in printed
    assert "2 annotations, 0 of them new or changed" in printed
    _, truth = printed.split("B against A beside the known truth:")
    assert "dice" in truth
    assert "Truth within the 95 % interval" in truth
    assert before == {path: path.stat().st_mtime_ns for path in before}
    for place in re.findall(r"^  \S.* {2,}(\S+)$", printed.split("Where everything lies:")[1], re.MULTILINE):
        assert (reported.parent / place).exists()


def test_a_study_of_another_size_is_not_taken_for_the_one_asked_for(study: Path) -> None:
    done = CliRunner().invoke(main, ["study", "example", str(study), "--exams", "2"])
    assert done.exit_code == 2
    assert "a study of 1 exams already, not of 2" in done.output
