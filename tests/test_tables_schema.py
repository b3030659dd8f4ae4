"""Arrow schemas, row checks and the data dictionary."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from cohort.rows import TABLES, CurvatureRow, DiscRow, FileRow, RunRow
from cohort.tables.dictionary import data_dictionary
from cohort.tables.schema import SCHEMA_VERSION, arrow_schema, rows_to_table

DISC = DiscRow(
    exam_id="e1",
    ordinal=1,
    level="L5-S1",
    level_confidence=0.9,
    height_mm=8.5,
    x_mm=0.0,
    y_mm=1.0,
    z_mm=2.0,
    central_slice=7,
    volume_cm3=12.0,
    slices_seen=9,
    slices_expected=9,
    touches_border=False,
    status="ok",
)


@pytest.mark.parametrize("table", TABLES)
def test_every_table_has_a_schema_with_descriptions(table: str) -> None:
    schema = arrow_schema(table)
    assert schema.metadata[b"schema_version"] == str(SCHEMA_VERSION).encode()
    assert all(column.metadata[b"description"] for column in schema)
    assert rows_to_table(table, []).schema.equals(schema, check_metadata=True)


def test_types_follow_the_annotations() -> None:
    discs, files = arrow_schema("discs"), arrow_schema("files")
    assert discs.field("exam_id").type == pa.string()
    assert not discs.field("exam_id").nullable
    assert discs.field("ordinal").type == pa.int64()
    assert discs.field("height_mm").type == pa.float64()
    assert discs.field("height_mm").nullable
    assert discs.field("touches_border").type == pa.bool_()
    assert files.field("position_mm").type.value_type == pa.float64()
    assert arrow_schema("runs").names == list(RunRow.__dataclass_fields__)


def test_rows_become_values_and_none_becomes_null() -> None:
    table = rows_to_table("discs", [DISC, replace(DISC, ordinal=2, height_mm=None)])
    assert table["height_mm"].to_pylist() == [8.5, None]
    assert table["ordinal"].to_pylist() == [1, 2]


def test_numpy_scalars_are_values() -> None:
    row = replace(DISC, height_mm=np.float32(8.5), ordinal=np.int64(3), touches_border=np.bool_(True))
    table = rows_to_table("discs", [row])
    assert table["height_mm"].to_pylist() == [8.5]
    assert table["touches_border"].to_pylist() == [True]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float64("nan"), np.float32("-inf")])
def test_nan_and_infinity_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"table discs, column height_mm: NaN or infinity"):
        rows_to_table("discs", [DISC, replace(DISC, height_mm=value)])


def test_nan_inside_a_list_is_refused() -> None:
    row = FileRow(file_id="f", size_bytes=1, mtime_ns=2, position_mm=[0.0, float("nan"), 1.0])
    with pytest.raises(ValueError, match="table files, column position_mm"):
        rows_to_table("files", [row])


def test_missing_required_value_is_refused() -> None:
    with pytest.raises(ValueError, match="table discs, column volume_cm3: a value is missing"):
        rows_to_table("discs", [replace(DISC, volume_cm3=None)])  # type: ignore[arg-type]


def test_wrong_type_is_refused_without_repeating_the_value() -> None:
    with pytest.raises(ValueError, match="table discs, column ordinal") as refused:
        rows_to_table("discs", [replace(DISC, ordinal="SECRET")])  # type: ignore[arg-type]
    assert "SECRET" not in str(refused.value)


def test_fraction_in_an_integer_column_is_refused() -> None:
    with pytest.raises(ValueError, match="column slices_seen"):
        rows_to_table("discs", [replace(DISC, slices_seen=1.5)])  # type: ignore[arg-type]


def test_row_of_another_table_is_refused() -> None:
    with pytest.raises(ValueError, match="table discs holds DiscRow, not CurvatureRow"):
        rows_to_table("discs", [CurvatureRow(exam_id="e", status="ok")])


def test_unknown_table_names_the_tables() -> None:
    with pytest.raises(ValueError, match="no table 'disks'; tables: files, series"):
        arrow_schema("disks")


def test_data_dictionary_explains_every_column() -> None:
    text = data_dictionary()
    for table in TABLES:
        assert f"## `{table}`" in text
        assert all(f"| `{name}` |" in text for name in arrow_schema(table).names)
