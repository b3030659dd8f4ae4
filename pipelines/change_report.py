"""The report of a change for people (change.html) and for programs (change.json, change.parquet)."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from cohort.agreement.bland_altman import Interval
from cohort.agreement.overlaps import ALL as WHOLE_KIND
from cohort.reasons import REASONS
from pipelines.change import FEATURES, Agreement, ChangeReport, Feature, MaskAgreement, agreement_rows
from pipelines.change_pairs import ALL
from pipelines.change_plots import change_figures
from pipelines.config import GateConfig
from pipelines.fingerprint import NOTHING
from pipelines.gate import Breach, accepts, verdict
from pipelines.study.overlap_figures import KINDS, groups_of
from pipelines.study.plot_style import in_words
from pipelines.study.study_cells import OVERLAP_HEAD, PAPER, interval, number, why

DIGITS: Final = {"mm": 2, "degrees": 1, "cm2": 2, "of 1": 3, "N": 0}
"""Unit of a feature -> decimals in which its differences are shown."""
_TEXTS: Final = ("table", "feature", "of", "level", "vendor", "unit", "largest_exam_id")
MAX_RENAMED: Final = 30
"""Lines of the table of names; the file change.json has them all."""

_STYLE: Final = """
body { font: 14px/1.45 sans-serif; color: #000; background: #fff; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #000 }
table { border-collapse: collapse; margin: .6rem 0; font-size: 12.5px }
th, td { border-bottom: 1px solid #bbb; padding: .15rem .5rem; text-align: right; vertical-align: top }
td { white-space: pre } td.t { white-space: normal; min-width: 3.6em }
td.id { white-space: normal; word-break: break-all; width: 7rem }
th { border-bottom: 1.5px solid #000; font-weight: 600 } td.t, th.t { text-align: left }
tr.beyond td { font-weight: 700; background: #eee }
.verdict { border: 2px solid #000; padding: .4rem 1rem; font-size: 1.1rem }
img { max-width: 100% } .note { color: #333; font-size: 12.5px }
@page { size: A4 landscape; margin: 10mm }
@media print { h2, img { break-after: avoid } tr, img { break-inside: avoid } body { margin: 0; max-width: none } }
"""


def write_change_report(report: ChangeReport, gate: GateConfig, folder: Path) -> Path:
    """Write change.html, change.json and change.parquet into a folder, which is made; returns the HTML file."""
    folder.mkdir(parents=True, exist_ok=True)
    breaches = verdict(report, gate)
    (folder / "change.json").write_text(json.dumps(change_json(report, gate), indent=1, allow_nan=False) + "\n")
    pq.write_table(change_table(report), folder / "change.parquet", compression="zstd")
    page = folder / "change.html"
    page.write_text(_page(report, gate, breaches), encoding="utf-8")
    return page


def change_json(report: ChangeReport, gate: GateConfig) -> dict[str, Any]:
    """Verdict, limits and all numbers of a report as plain JSON values."""
    return {
        "accepted": accepts(report, gate),
        "verdict": verdict_text(report, gate),
        "breaches": [
            {"what": one.what, "value": one.value, "limit": one.limit, "unit": one.unit}
            for one in verdict(report, gate)
        ],
        "gate": dataclasses.asdict(gate),
        "stages": [dataclasses.asdict(one) for one in report.stages],
        "software": list(report.software),
        "models": list(report.models),
        "exams": dataclasses.asdict(report.exams),
        "renamed": [dataclasses.asdict(one) for one in report.renamed],
        "masks": dataclasses.asdict(report.masks) | {"dice": report.masks.dice} if report.masks else None,
        "agreements": agreement_rows(report.agreements),
    }


def change_table(report: ChangeReport) -> pa.Table:
    """One row per feature, level and vendor, with `all` for those together."""
    return pa.Table.from_pylist(agreement_rows(report.agreements), schema=_schema())


def _schema() -> pa.Schema:
    nothing = Agreement(FEATURES[0], "", ALL, ALL, *[None] * 8, *[0] * 5)  # type: ignore[arg-type]
    kinds = {name: pa.string() for name in _TEXTS} | {"tolerance_is_percent": pa.bool_()}
    counts = {name: pa.int64() for name in agreement_rows([nothing])[0] if name == "n" or name.startswith("n_")}
    return pa.schema([(name, (kinds | counts).get(name, pa.float64())) for name in agreement_rows([nothing])[0]])


def verdict_text(report: ChangeReport, gate: GateConfig) -> str:
    """One sentence: whether the new numbers may become current, and why not."""
    n = len(verdict(report, gate))
    limits = "no limit is exceeded" if not n else f"{n} {'limit is' if n == 1 else 'limits are'} exceeded"
    if report.exams.n_waiting:
        return f"Not complete, exams still to be redone: {report.exams.n_waiting}; so far {limits}."
    if accepts(report, gate):
        return f"Accepted: {limits}."
    if gate.accept == "never":
        return f"Held until somebody accepts it, as the configuration wants; {limits}."
    return f"Held: {limits}."


def _page(report: ChangeReport, gate: GateConfig, breaches: Sequence[Breach]) -> str:
    body = "\n".join(
        (
            "<h1>Old against new numbers</h1>",
            f'<p class="verdict">{escape(verdict_text(report, gate))}</p>',
            _breaches_table(breaches),
            "<h2>What changed</h2>",
            *_what_changed(report),
            "<h2>Exams and names</h2>",
            *_exams_and_names(report),
            "<h2>Masks of both versions</h2>",
            *_masks(report, gate),
            "<h2>All levels and vendors together</h2>",
            _agreements_table(report.overall, breaches, named=True),
            _NOTE,
            *_features(report, breaches),
        )
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Old against new numbers</title>'
        f"<style>{_STYLE}</style></head><body>\n{body}\n"
        '<p class="note">Exams are named by their pseudonyms. Research software, not for clinical use.</p>\n'
        "</body></html>\n"
    )


_NOTE: Final = (
    '<p class="note">Differences are new minus old. Limits of agreement hold 95 % of the differences (Bland and Altman '
    "1999; 2007 where a person has several values). In brackets: 95 % confidence intervals, which count persons, not "
    "values. Only numbers that are sound on both sides, of a vertebra or disc that has kept its name, are compared. "
    "change.parquet beside this page has every number, each level of each vendor too.</p>"
)


def _breaches_table(breaches: Sequence[Breach]) -> str:
    rows = [(one.what, f"{one.value:.3g} {one.unit}", f"{one.limit:g} {one.unit}") for one in breaches]
    return _table(("limit that is exceeded", "found", "limit"), rows, texts=1) if rows else ""


def _what_changed(report: ChangeReport) -> Iterator[str]:
    old, new = report.software
    models_old, models_new = report.models
    yield _table(
        ("", "old", "new"), [("software", old, new), ("networks and base models", models_old, models_new)], texts=3
    )
    rows = [
        (
            one.stage,
            _made_by(one.old_version, one.old_artefacts),
            _made_by(one.new_version, one.new_artefacts),
            one.n_exams,
        )
        for one in report.stages
    ]
    if rows:
        yield _table(("stage", "old version, digest of weights or base model", "new", "exams"), rows, texts=3)
    yield '<p class="note">Stages below a changed one are done again as well.</p>'


def _made_by(version: int | None, digest: str | None) -> str:
    """Version, and the beginning of the digest of weights or base model where the stage has any."""
    shown = "unknown" if version is None else str(version)
    return shown if digest in (None, NOTHING) else f"{shown}, {digest[:8]}"


def _exams_and_names(report: ChangeReport) -> Iterator[str]:
    exams = report.exams
    rows: list[tuple[Any, ...]] = [
        ("compared", exams.n_compared),
        ("of them with a result that is now refused or failed", exams.n_lost),
        *((f"- {reason}: {REASONS.get(reason, '')}", n) for reason, n in exams.lost_reasons.items()),
        ("of them with a refused or failed result that is now sound", exams.n_recovered),
        ("of them with a vertebra or disc of another name", exams.n_renamed),
        ("came in since", exams.n_new),
        ("still to be redone", exams.n_waiting),
    ]
    yield _table(("exams", "n"), rows, texts=1)
    if exams.lost_examples:
        yield f"<p>Now refused or failed, for example: {escape(', '.join(exams.lost_examples))}</p>"
    if report.renamed:
        shown = [(one.structure, one.old, one.new, one.n) for one in report.renamed[:MAX_RENAMED]]
        yield _table(("structure", "old name", "new name", "n"), shown, texts=3)


def _masks(report: ChangeReport, gate: GateConfig) -> Iterator[str]:
    """How far the masks of old and new networks agree, as `cohort agreement` has it; or why that is not said."""
    masks = report.masks
    if masks is None:
        yield "<p>Not compared: the same networks, by the same code, made the masks of both.</p>"
        return
    yield f"<p>{escape(_which_exams(masks))}</p>"
    for problem in filter(None, (masks.reason, masks.page_problem)):
        yield f"<p>{escape(problem)}</p>"
    if masks.overlaps:
        yield _overlaps_table(masks, gate)
        yield _MASKS_NOTE
    if masks.page:
        yield f'<p><a href="{escape(masks.page)}">The full report of the masks, and of what is measured on them</a></p>'
    if masks.problems:
        yield _table(("exam that was not compared", "why"), list(masks.problems.items()), texts=2)


def _which_exams(masks: MaskAgreement) -> str:
    one_each = ", one of each person, by vendor" if masks.n_compared < masks.n_with_both else ""
    other = f" Exams whose images were converted anew and are left out: {masks.n_other_images:,}."
    return (
        f"Exams with masks of both versions: {masks.n_with_both:,}; compared: {masks.n_compared:,}{one_each}."
        f"{other if masks.n_other_images else ''}"
    )


_MASKS_NOTE: Final = (
    '<p class="note">Dice and distances are means over structures that both have, in parentheses 95 % intervals by '
    "persons. Missed: the old masks alone have it; extra: the new ones alone. Bodies and discs are paired by overlap, "
    "not by name; misnamed: the two names differ. Each kind as one mask has a limit; an exam in which one version "
    "alone has any counts as 0 there. The full report calls old masks automatic and new ones candidate.</p>"
)


def _overlaps_table(masks: MaskAgreement, gate: GateConfig) -> str:
    """By kind: the mean of all structures, levels or muscles, and everything as one mask, which the gate judges."""
    of_one, of_mm, rows, marked = 3, 2, [], []
    for kind, title in KINDS.items():
        found = [dataclasses.asdict(row) for row in masks.overlaps if row.kind == kind]
        means = [row for row in found if not (row["level"] or row["muscle"] or row["structure"])]
        for row in (*means, *groups_of(found)):
            is_judged = row["structure"] == WHOLE_KIND
            name = "all as one mask" if is_judged else in_words(row["level"] or row["muscle"] or "mean of all")
            marked.append(is_judged and masks.dice.get(kind, 1.0) < gate.least_dice)
            distances = (_mean(row, name, f"{name}_", of_mm) for name in ("hausdorff95_mm", "surface_mm"))
            errors = (row["n_missed"], row["n_extra"], row["n_misnamed"])
            shown = f"{name}: below the limit" if marked[-1] else name
            counts = (row["n"], row["n_persons"])
            rows.append((title, shown, *counts, _mean(row, "mean", "", of_one), *distances, *errors, why(row)))
    head = ["kind", "of", *(name.removeprefix("#") for name in OVERLAP_HEAD[1:] if name != PAPER)]
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    return _table(head, rows, texts=2, marked=marked)


def _mean(row: Mapping[str, Any], name: str, ends: str, digits: int) -> str:
    if row[name] is None:
        return "-"
    return f"{number(row[name], digits)} {interval(dict(row), ends, '_clustered', digits)}".strip()


def _features(report: ChangeReport, breaches: Sequence[Breach]) -> Iterator[str]:
    """A section for each feature: its plot, then levels, vendors, and what exceeds a limit."""
    pictures = dict(change_figures(report))
    beyond = {id(one.agreement) for one in breaches}
    for feature in dict.fromkeys(one.feature for one in report.agreements):
        yield f"<h2>{escape(_heading(feature))}</h2>"
        of_feature = [one for one in report.agreements if one.feature == feature]
        if feature in pictures:
            data = base64.b64encode(pictures[feature]).decode("ascii")
            yield f'<img alt="Bland-Altman plots of {escape(feature.label)}" src="data:image/png;base64,{data}">'
            yield _agreements_table([one for one in of_feature if _is_shown(one, beyond)], breaches, named=False)
        else:
            yield "<p>No number that can be compared has changed.</p>"


def _heading(feature: Feature) -> str:
    return f"{feature.label[0].upper()}{feature.label[1:]}, {feature.unit}"


def _is_shown(one: Agreement, beyond: set[int]) -> bool:
    """One level of one vendor is too much for paper, unless it exceeds a limit."""
    return one.level == ALL or one.vendor == ALL or id(one) in beyond


_HEAD: Final = (
    "level",
    "vendor",
    "n",
    "persons",
    "bias (95 % CI)",
    "limits of agreement (95 % CI)",
    "mean absolute change",
    "ICC",
    "largest change",
    "in exam",
    "beyond tolerance",
    "new / gone / flagged / renamed",
)


def _agreements_table(agreements: Sequence[Agreement], breaches: Sequence[Breach], *, named: bool) -> str:
    """Rows that exceed a limit are bold and say so."""
    beyond = {id(one.agreement) for one in breaches}
    if named:
        first = [("feature", lambda one: f"{one.title}, {one.feature.unit}")]
    else:
        first = [("of", lambda one: one.of)] if any(one.of for one in agreements) else []
    rows = [(*(cell(one) for _, cell in first), *_cells(one, exceeds=id(one) in beyond)) for one in agreements]
    head = (*(name for name, _ in first), *_HEAD)
    marked = [id(one) in beyond for one in agreements]
    return _table(head, rows, texts=len(first) + 2, marked=marked, identifier=head.index("in exam"))


def _cells(one: Agreement, *, exceeds: bool) -> tuple[str, ...]:
    limits, digits = one.limits, DIGITS[one.feature.unit]
    counts = f"{one.n_appeared} / {one.n_vanished} / {one.n_newly_flagged} / {one.n_renamed}"
    where = (one.level, f"{one.vendor}: exceeds a limit" if exceeds else one.vendor)
    if limits is None:
        return (*where, "0", "0", *["-"] * 7, counts)
    relative = f"\n{one.bias_percent:+.1f} %" if one.feature.kind.relative and one.bias_percent is not None else ""
    both = "\n".join(_interval(limit, digits) for limit in (limits.lower, limits.upper) if limit)
    return (
        *where,
        str(limits.n),
        str(limits.n_persons),
        _interval(limits.bias, digits) + relative,
        both or "-",
        _number(one.mae.value if one.mae else None, digits),
        "-" if one.icc is None else f"{one.icc:.3f}",
        _number(one.largest_change, digits, sign=True),
        one.largest_exam_id or "-",
        "-" if one.beyond_tolerance is None else f"{100 * one.beyond_tolerance:.1f} %",
        counts,
    )


def _interval(interval: Interval, digits: int) -> str:
    value = _number(interval.value, digits, sign=True)
    if interval.low is None:
        return value
    return f"{value} ({_number(interval.low, digits, sign=True)} to {_number(interval.high, digits, sign=True)})"


def _number(value: float | None, digits: int, *, sign: bool = False) -> str:
    if value is None:
        return "-"
    rounded = round(value, digits) + 0.0  # no -0.00
    return f"{rounded:+.{digits}f}" if sign and rounded else f"{rounded:.{digits}f}"


def _table(
    head: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    texts: int,
    marked: Sequence[bool] | None = None,
    identifier: int | None = None,
) -> str:
    """An HTML table whose first `texts` columns are aligned to the left; column `identifier` may break anywhere."""
    classes = dict.fromkeys(range(texts), "t") | ({identifier: "id"} if identifier is not None else {})
    lines = ["<table>", f"<tr>{_row(head, 'th', classes)}</tr>"]
    for k, row in enumerate(rows):
        opening = '<tr class="beyond">' if marked and marked[k] else "<tr>"
        lines.append(f"{opening}{_row(row, 'td', classes)}</tr>")
    return "\n".join([*lines, "</table>"])


def _row(cells: Sequence[Any], tag: str, classes: Mapping[int, str]) -> str:
    return "".join(
        f'<{tag} class="{classes.get(k, "")}">{escape(str(cell))}</{tag}>' for k, cell in enumerate(cells)
    ).replace(' class=""', "")
