"""The questions of docs/sql.md, each asked as it is written there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cohort.tables.export import export_files
from cohort.tables.sql import query
from tests.synthetic_tables import pseudonym, write_synthetic_store

PAGE = (Path(__file__).parents[1] / "docs" / "sql.md").read_text()
EXAM = pseudonym("exam 0")

ANSWERS: dict[int, tuple[list[str], int]] = {
    1: (["age_band", "sex", "n", "median_mm"], 4),
    2: (["n", "r", "per_decade"], 1),
    3: (["level", "n", "r"], 5),
    4: ([*"subject_id level years_between earlier_value later_value difference same_vendor status".split()], 95),
    5: (["task", "reason", "status", "n_exams"], 5),
    6: (["status", "reason", "n"], 8),
    7: (["level", "value", "status", "n_subjects", "p5", "p25", "p50", "p75", "p95"], 5),
    8: (["sex", "n_standing", "n_flexion", "standing", "flexion"], 2),
    9: (["n", "r_shear", "r_compression", "shear_n_per_degree"], 1),
    10: (["vendor", "exams", "with_discs", "with_muscles", "with_loads", "discs_refused"], 3),
    11: (["level", "n", "below_0_8", "least"], 6),
    12: (["task", "level", "n", "ratio"], 20),
}  # fmt: skip
"""Question -> columns and rows of its answer on the synthetic store."""


@dataclass(frozen=True)
class Question:
    """One section of the page."""

    number: int
    sql: str
    python: tuple[str, ...]


def questions() -> list[Question]:
    found = []
    for number, text in re.findall(r"^## (\d+)\. (.*?)(?=^## )", PAGE, flags=re.DOTALL | re.MULTILINE):
        (statement,) = re.findall(r"```sql\n(.*?)```", text, flags=re.DOTALL)
        found.append(Question(int(number), statement, tuple(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))))
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred exams in their fifties, so that a decade has its twenty subjects."""
    folder = tmp_path_factory.mktemp("questions") / "store"
    write_synthetic_store(folder, 100, ages=(50, 60))
    export_files(folder, folder.parent / "export", "parquet", ("exams_wide_ok",))
    return folder


def ask(store: Path, statement: str) -> pd.DataFrame:
    return query(store, statement.replace("EXAM_ID", EXAM)).to_pandas()


def run_python(store: Path, code: str) -> pd.DataFrame:
    names: dict[str, Any] = {}
    exec(code.replace("STORE", str(store)).replace("EXPORT", str(store.parent / "export")), names)
    answer = names["answer"]
    return answer if isinstance(answer, pd.DataFrame) else answer.to_pandas()


def test_the_page_asks_twelve_questions() -> None:
    assert [question.number for question in questions()] == list(range(1, 13)) == list(ANSWERS)


@pytest.mark.parametrize("question", questions(), ids=lambda question: str(question.number))
def test_every_question_is_answered(store: Path, question: Question) -> None:
    answer = ask(store, question.sql)
    columns, n_rows = ANSWERS[question.number]
    assert list(answer.columns) == columns
    assert len(answer) == n_rows
    numbers = answer.select_dtypes("number")
    assert numbers.notna().any(axis=0).all()


@pytest.mark.parametrize(
    "question", [one for one in questions() if one.python], ids=lambda question: str(question.number)
)
def test_pandas_and_polars_answer_the_same(store: Path, question: Question) -> None:
    answer = ask(store, question.sql)
    keys = [name for name in answer.columns if not pd.api.types.is_float_dtype(answer[name])]
    for code in question.python:
        other = run_python(store, code)[list(answer.columns)]
        pd.testing.assert_frame_equal(
            answer.sort_values(keys, ignore_index=True),
            other.sort_values(keys, ignore_index=True),
            check_dtype=False,
            rtol=1e-12,
        )


def test_the_way_to_read_with_polars_beside_a_commit_runs(store: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)[-1]
    assert len(run_python(store, code)) == len(pd.read_parquet(store / "tables" / "discs"))


def test_known_answers_come_out(store: Path) -> None:
    """What the synthetic exams are made to be."""
    by_number = {question.number: question.sql for question in questions()}
    refused = ask(store, by_number[6]).set_index(["status", "reason"])["n"]
    assert refused["refused", "no_t1_sagittal"] == 1
    doubtful = ask(store, by_number[5])
    assert set(doubtful["reason"]) == {"default_strength", "not_converged"}
    assert ask(store, by_number[12])["ratio"].to_list() == pytest.approx([0.97] * 20)
    assert ask(store, by_number[4])["years_between"].between(2, 8).all()
    assert (ask(store, by_number[11])["below_0_8"] == 0).all()


def test_n_of_an_answer_counts_the_numbers_it_rests_on(store: Path) -> None:
    """In the synthetic store some exams have no muscles, no lordosis or no loads: they are not in n."""
    by_number = {question.number: question.sql for question in questions()}
    wide = ask(store, "select * from exams_wide_ok")
    pairs = {
        2: ["side_difference_multifidus_L4_L5", "age_years"],
        9: ["lordosis_l1_s1_deg", "load_shear_ap_n_L5_standing"],
    }
    for number, columns in pairs.items():
        n = len(wide.dropna(subset=columns))
        assert ask(store, by_number[number])["n"].item() == n < len(wide)
