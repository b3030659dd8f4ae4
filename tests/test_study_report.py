"""The report of a study: tables in the paper's layout, figures for print, and what is missing with its reason."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html import unescape
from pathlib import Path

import anatomy_shapes as shapes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure
from reader_studies import EXAMS, annotated_store
from skimage.io import imread
from study_tables import LUMBAR_DISCS, MadeStudy, exam, write_study

from cohort.agreement.rows import AGREEMENT_TABLES
from cohort.errors import CohortError, ConfigurationError, StoreError
from cohort.stacks import LabelledStack
from cohort.terms import MUSCLES
from pipelines.cli import main
from pipelines.study.agreement_figures import agreement_figure, agreement_plots
from pipelines.study.examples import example_figure, examples, store_masks
from pipelines.study.overlap_figures import overlap_figure
from pipelines.study.paper import paper_figures, published
from pipelines.study.plot_style import MUSCLE_LINES, looks
from pipelines.study.report import WrittenReport, write_study_report
from pipelines.study.study_cells import number
from pipelines.study.study_data import Comparison, read_study
from pipelines.study.study_tables import NAMES, study_tables

NETWORKS, READERS = Comparison("anna", "automatic"), Comparison("anna", "berta")
SMALL = MadeStudy(n_exams=12, tasks=("flexion60_5kg",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("agreement"), SMALL)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "splits.csv"
    path.write_text(
        "split,network,part,exam_id,subject_id\n"
        "standard,muscle,test,a,p\nstandard,disc,test,a,p\nstandard,disc,training,c,\nstandard,disc,training,d,\n"
        "shared,disc,test,c,q\nshared,disc,training,a,p\nshared,disc,training,b,p\nshared,disc,,d,q\n"
    )
    return path


@pytest.fixture(scope="module")
def written(folder: Path, split: Path, tmp_path_factory: pytest.TempPathFactory) -> WrittenReport:
    return write_study_report(folder, tmp_path_factory.mktemp("report"), split=split)


@pytest.fixture(scope="module")
def page(written: WrittenReport) -> str:
    return written.page.read_text()


def rows_of(page: str, title: str, section: str = "automatic against anna") -> list[list[str]]:
    """Cells of a table of the page as texts, the small print after the figure."""
    of_section = page.split(f'<h2 class="part">{section}</h2>')[1].split('<h2 class="part">')[0]
    body = of_section.split(f"<h3>{title}")[1].split("<tbody>")[1].split("</tbody>")[0]
    return [[_text(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", line)] for line in body.split("</tr>")[:-1]]


def _text(html: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html))).strip()


def words(page: str) -> str:
    return _text(page.split("</style>")[1])


def test_every_table_of_the_paper_has_its_rows_in_the_papers_order(page: str) -> None:
    bodies = [row[0] for row in rows_of(page, "Table 3")]
    assert bodies == ["T11", "T12", "L1", "L2", "L3", "L4", "L5", "S1", "mean of all", "all as one mask"]
    assert [row[0] for row in rows_of(page, "Table 4")][2:7] == list(LUMBAR_DISCS)
    muscles = [row[0] for row in rows_of(page, "Table 5")]
    assert muscles[:3] == ["multifidus", "multifidus, left", "multifidus, right"]
    assert muscles[-1] == "all as one mask"
    assert [row[1] for row in rows_of(page, "Table 6")] == [*LUMBAR_DISCS, "all"]
    assert [row[0] for row in rows_of(page, "Table 7") if row[0]][::3] == [name.replace("_", " ") for name in MUSCLES]
    assert [row[:2] for row in rows_of(page, "Table 8")][::5] == [["compression, flexion60_5kg", "L1"], ["", "all"]]


def test_numbers_on_the_page_are_those_of_the_files(page: str, written: WrittenReport, folder: Path) -> None:
    source = pq.read_table(folder / "agreement.parquet").to_pylist()
    kept = pq.read_table(written.page.parent / "tables" / f"{NAMES[6]}.parquet").to_pylist()
    assert len(kept) == 2 * (len(LUMBAR_DISCS) + 1)
    for row in kept:
        assert {name: value for name, value in row.items() if name != "paper"} in source
    shown = rows_of(page, "Table 6")
    of_networks = [row for row in kept if row["second_reader"] == "automatic"]
    for cells, row in zip(shown, of_networks, strict=True):
        assert cells[2:5] == [str(row["n"]), str(row["n_persons"]), str(row["n_without"])]
        assert cells[6].startswith(f"{row['mae']:.2f} {row['mae_low']:.2f} to {row['mae_high']:.2f}")
        if row["mae_low_clustered"] is not None:
            assert cells[6].endswith(f"({row['mae_low_clustered']:.2f} to {row['mae_high_clustered']:.2f})")
        assert cells[10].startswith(number(row["icc"], 3))
    assert of_networks[-1]["mae_low_clustered"] is not None


def test_csv_holds_the_numbers_of_parquet_in_full(written: WrittenReport) -> None:
    tables = [path for path in written.tables if path.suffix == ".parquet"]
    assert {path.stem for path in tables} >= {*NAMES.values(), "overview", "table-s2-not-compared", "paper-figures"}
    for path in tables:
        found = pq.read_table(path)
        lines = list(csv.DictReader(io.StringIO(path.with_suffix(".csv").read_text())))
        assert len(lines) == found.num_rows
        for line, row in zip(lines, found.to_pylist(), strict=True):
            assert line == {name: "" if value is None else str(value) for name, value in row.items()}
        descriptions = [field.metadata for field in found.schema if "paper" == field.name]
        assert all(b"other patients" in one[b"description"] for one in descriptions)


def test_the_papers_figures_stand_beside_networks_and_nowhere_else(page: str) -> None:
    assert rows_of(page, "Table 3")[-1][-1] == "standard split 0.82 to 0.88*; shared split 0.86*"
    assert rows_of(page, "Table 6")[-1][11] == "MAE 1.45 mm*; R 0.846*"
    assert rows_of(page, "Table 8")[-1][-1] == "MAE 143 N*; R 0.767*"
    assert "other patients, scanners and readers" in words(page)
    others = page.split('<h2 class="part">berta against anna</h2>')[1]
    assert "143 N*" not in others


def test_every_figure_of_the_paper_says_where_it_is_from() -> None:
    for one in paper_figures():
        assert one.source.startswith("Hess et al.")
        assert one.status in ("read", "quoted elsewhere")
        assert re.search(r"\d", one.value)
    assert published(4, "L4-L5") is None


def test_no_page_and_no_table_says_nan(written: WrittenReport, page: str) -> None:
    for text in (words(page), *(path.read_text() for path in written.tables if path.suffix == ".csv")):
        assert not re.search(r"\b(nan|inf|none|null)\b", text, re.IGNORECASE)


def test_the_page_needs_nothing_else_and_tells_no_path(written: WrittenReport, page: str, folder: Path) -> None:
    assert not re.search(r"(src|href)=\"(?!data:|tables/|figures/)", page)
    for address in re.findall(r'href="([^"]+)"', page):
        assert (written.page.parent / address).is_file()
    assert len(re.findall("data:image/png;base64,iVBOR", page)) == len(written.figures) / 3
    for path in (one for one in written.page.parent.rglob("*") if one.is_file()):
        content = path.read_bytes()
        assert str(folder).encode() not in content
        assert str(written.page.parent).encode() not in content
        assert b"subject" not in content.replace(b"subject_id", b"")


def test_figures_higher_than_wide_have_a_page_of_their_own_in_print(page: str, written: WrittenReport) -> None:
    upright = re.findall(r'<figure class="upright">.*?<b>Figure (\w+)\.', page)
    assert upright == ["5a", "6a"] * len(written.comparisons)


def test_other_measures_are_named_as_people_name_them(page: str) -> None:
    assert rows_of(page, "Table S1")[0][0] == "lordosis L1-S1, degrees"


def test_splits_are_counted_by_exam_and_person(page: str) -> None:
    """By split, network and part; an exam of nobody known is a person of its own."""
    counts = (
        "shared discs training 2 1",
        "shared discs test 1 1",
        "standard discs training 2 2",
        "standard discs test 1 1",
        "standard muscles test 1 1",
    )
    assert " ".join(("split network part exams persons", *counts)) in words(page)


def test_comparisons_stand_side_by_side_in_the_overview(page: str, written: WrittenReport) -> None:
    rows = pq.read_table(written.page.parent / "tables" / "overview.parquet").to_pylist()
    mae = {row["second_reader"]: row for row in rows if (row["what"], row["statistic"]) == ("disc_height_mm", "mae")}
    line = re.search(r"disc height mean absolute error, mm (\S+) \((\S+) to \S+\) \d+ / \d+ (\S+)", words(page))
    assert line
    assert line.groups() == (
        f"{mae['automatic']['value']:.2f}",
        f"{mae['automatic']['low_clustered']:.2f}",
        f"{mae['berta']['value']:.2f}",
    )


def test_what_could_not_be_compared_is_counted_with_its_reason(written: WrittenReport, folder: Path) -> None:
    pairs = pq.read_table(folder / "pairs.parquet").to_pandas()
    rows = pq.read_table(written.page.parent / "tables" / "table-s2-not-compared.parquet").to_pylist()
    found = {(row["second_reader"], row["what"], row["reason"]): row["n"] for row in rows}
    assert found["automatic", "disc_height_mm", "not_measured"] == int(
        (pairs[pairs["second_reader"] == "automatic"]["reason"] == "not_measured").sum()
    )
    assert all(row["meaning"].endswith(".") for row in rows)


@pytest.mark.parametrize("n_exams", [1, 2])
def test_statistics_of_one_or_two_exams_are_missing_with_their_reason(tmp_path: Path, n_exams: int) -> None:
    made = MadeStudy(n_exams=n_exams, comparisons=(("anna", "automatic"),), tasks=(), slices=False, axial=False)
    text = write_study_report(write_study(tmp_path / "in", made), tmp_path / "out").page.read_text()
    reasons = {row[1]: row[-1] for row in rows_of(text, "Table 6")}
    assert "too few persons" in reasons["all"]
    assert all("too few pairs" in reason or "no pairs" in reason for level, reason in reasons.items() if level != "all")
    assert "The pairs come from too few persons for an interval by persons." in words(text)
    assert "Nothing of this was measured by both readers." in words(text).split("Table 7")[1]


def texts_of(figure: Figure) -> str:
    return " ".join(text.get_text() for axis in figure.axes for text in axis.texts)


def test_panels_without_values_say_why(tmp_path: Path) -> None:
    made = MadeStudy(n_exams=1, comparisons=(("anna", "automatic"),), tasks=("standing",), axial=False)
    data = read_study(write_study(tmp_path, made))
    assert "no pair" in texts_of(overlap_figure(data, NETWORKS))
    for plot in agreement_plots(data, NETWORKS):
        figure = agreement_figure(plot, NETWORKS)
        lower = [axis for axis in figure.axes if axis.get_xlabel().startswith("mean of both")]
        for panel, axis in zip(plot.panels, lower, strict=True):
            if panel.row["lower_limit"] is None:
                assert re.search("too few|no pair", " ".join(text.get_text() for text in axis.texts))


def test_a_muscle_that_one_reader_never_drew_keeps_its_place_in_the_figure(folder: Path) -> None:
    data = read_study(folder)
    nothing = dict.fromkeys(("mean", "low", "high", "low_clustered", "high_clustered"))
    summary = tuple(row | nothing if row["muscle"] == "psoas" else row for row in data.overlap_summary)
    dice = data.overlaps["dice"].mask(data.overlaps["muscle"] == "psoas")
    figure = overlap_figure(replace(data, overlaps=data.overlaps.assign(dice=dice), overlap_summary=summary), NETWORKS)
    assert [text.get_text() for text in figure.axes[2].texts] == ["-"]


def test_figures_are_told_apart_without_colour(folder: Path) -> None:
    assert len({marker for marker, _ in looks(LUMBAR_DISCS).values()}) == len(LUMBAR_DISCS)
    assert len({marker for marker, _ in MUSCLE_LINES.values()}) == len({dashes for _, dashes in MUSCLE_LINES.values()})
    data = read_study(folder)
    along = overlap_figure(data, NETWORKS).axes[5]
    lines = {
        line.get_label(): (line.get_marker(), line.get_linestyle())
        for line in along.lines
        if line.get_label()[0] != "_"
    }
    assert len(set(lines.values())) == len(lines) >= len(MUSCLES)


def test_axes_have_units_and_panels_their_numbers(folder: Path) -> None:
    data = read_study(folder)
    plots = {plot.number: plot for plot in agreement_plots(data, NETWORKS)}
    assert list(plots) == ["5a", "5b", "6a"]
    units = {"5a": "mm", "5b": "cm²", "6a": "N"}
    for key, plot in plots.items():
        figure = agreement_figure(plot, NETWORKS)
        drawn = [axis for axis in figure.axes if axis.axison]
        assert {axis.get_xlabel().split(", ")[1] for axis in drawn} == {units[key]}
        assert {axis.get_ylabel().split(", ")[1] for axis in drawn} == {units[key]}
        titles = [axis.get_title() for axis in drawn if axis.get_xlabel().startswith("anna")]
        assert all(re.search(r"n = \d+ of \d+ persons", title) for title in titles)
        for panel in plot.panels:
            assert len(panel.points) == panel.row["n"]


@pytest.fixture(scope="module")
def stacks() -> list[LabelledStack]:
    """A spine and muscles on images that are not empty."""
    sagittal = shapes.sagittal_stack(shapes.spine(), shapes.sagittal_geometry(n=3))
    axial = shapes.muscle_stack(shapes.axial_geometry(n=1))
    return [
        replace(
            one, stack=replace(one.stack, image=(300 + 50 * (next(iter(one.labels.values())) > 0)).astype(np.uint16))
        )
        for one in (sagittal, axial)
    ]


def test_examples_are_the_worst_the_median_and_the_best_exam(
    folder: Path, stacks: list[LabelledStack], tmp_path: Path
) -> None:
    data = read_study(folder)
    found = data.overlaps
    wanted = found[(found["structure"] == "all") & found["slice_position"].isna() & (found["kind"] == "muscle")]
    ordered = wanted[wanted["second_reader"] == "automatic"].sort_values("dice")["exam_id"].tolist()
    assert [one.exam_id for one in examples(data, NETWORKS, "axial")] == [ordered[0], ordered[6], ordered[11]]

    def masks(exam_id: str, reader: str) -> Sequence[LabelledStack]:
        if exam_id == ordered[0]:
            raise StoreError("labels are missing")
        shift = 3 if reader == "automatic" else 0
        return [
            replace(one, labels={name: np.roll(mask, shift, axis=2) for name, mask in one.labels.items()})
            for one in stacks
        ]

    figure = example_figure(data, NETWORKS, masks)
    assert figure is not None
    text = texts_of(figure)
    assert "not shown:\nlabels are missing" in text
    assert re.search(r"slice \d: vertebral body 0\.\d{3}, disc 0\.\d{3}", text)
    figure.savefig(tmp_path / "examples.png")
    picture = imread(tmp_path / "examples.png")[..., :3].astype(int)
    for colour in ((0xFF, 0xE1, 0x4D), (0x00, 0xE5, 0xFF)):
        assert (np.abs(picture - colour).sum(axis=2) < 60).sum() > 100


def test_two_exams_are_worst_and_best_and_one_is_all_of_them(tmp_path: Path) -> None:
    for n, ranks in ((1, ["worst, median, best"]), (2, ["worst", "best"])):
        made = MadeStudy(n_exams=n, comparisons=(("anna", "automatic"),), tasks=(), axial=False)
        data = read_study(write_study(tmp_path / str(n), made))
        assert [one.rank for one in examples(data, NETWORKS, "sagittal")] == ranks
        assert examples(data, NETWORKS, "axial") == []
    assert {one.exam_id for one in examples(data, NETWORKS, "sagittal")} == {exam(0), exam(1)}


def test_two_versions_of_the_networks_are_reported_without_the_papers_figures(tmp_path: Path) -> None:
    data = read_study(write_study(tmp_path, replace(SMALL, comparisons=(("model_a", "model_b"),))))
    assert not data.comparisons[0].is_automatic
    assert all(row["paper"] is None for table in study_tables(data) for row in table.rows)


def test_the_command_says_where_things_are_and_the_same_study_gives_the_same_files(tmp_path: Path) -> None:
    made = MadeStudy(n_exams=3, comparisons=(("anna", "automatic"),), tasks=(), slices=False, axial=False)
    folder = write_study(tmp_path / "agreement", made)
    done = CliRunner().invoke(main, ["study", "report", str(folder), "-o", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["comparisons"] == [{"first": "anna", "second": "automatic"}]
    kinds = [Path(path).suffix for path in found["figures"]]
    assert kinds == [".svg", ".pdf", ".png"] * 2
    again = write_study_report(folder, tmp_path / "again")
    for path in (found["page"], *found["tables"], *found["figures"]):
        assert Path(path).read_bytes() == (again.page.parent / Path(path).relative_to(tmp_path / "out")).read_bytes()


def test_folders_that_are_no_study_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^pairs\.parquet is not in the folder"):
        read_study(tmp_path)
    for name in AGREEMENT_TABLES:
        table = pq.read_table(folder / f"{name}.parquet")
        pq.write_table(table.slice(0, 0), tmp_path / f"{name}.parquet")
    with pytest.raises(ConfigurationError, match="no two readers"):
        read_study(tmp_path)
    pq.write_table(pa.table({"kind": ["disc"]}), tmp_path / "overlaps.parquet")
    with pytest.raises(ConfigurationError, match=r"overlaps\.parquet has no column exam_id"):
        read_study(tmp_path)
    (tmp_path / "pairs.parquet").write_bytes(b"no table")
    with pytest.raises(ConfigurationError, match=r"pairs\.parquet is no Parquet file"):
        read_study(tmp_path)
    (tmp_path / "splits.csv").write_text("split,network,part,exam_id,subject_id\nshared,disc,train,a,p\n")
    with pytest.raises(ConfigurationError, match=r"splits\.csv has a part 'train'"):
        read_study(folder, tmp_path / "splits.csv")
    (tmp_path / "splits.csv").write_text("split,part\n")
    with pytest.raises(ConfigurationError, match=r"splits\.csv has no column network, exam_id, subject_id"):
        read_study(folder, tmp_path / "splits.csv")


def test_masks_of_a_store_are_those_of_its_networks_and_its_readers(tmp_path: Path) -> None:
    masks = store_masks(annotated_store(tmp_path))
    drawn, found = (masks(EXAMS[0], reader) for reader in ("anna", "automatic"))
    assert [one.stack.plane for one in found][:1] == ["sagittal"]
    assert (found[0].labels["disc"] > 0).sum() > (drawn[0].labels["disc"] > 0).sum() > 0
    with pytest.raises(CohortError, match="no images"):
        masks("unknown", "anna")
    with pytest.raises(CohortError):
        masks(EXAMS[0], "nobody")
