"""The report of a run as one HTML page: no script, nothing loaded from elsewhere, readable on paper and in grey."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

from cohort.reasons import REASONS
from cohort.rows import RunRow
from pipelines.progress import duration

if TYPE_CHECKING:
    from pipelines.report import RunReport, StageWork

STYLE: Final = """
body { font: 14px/1.45 system-ui, "Helvetica Neue", Arial, sans-serif; color: #1a1a1a; background: #fff;
       max-width: 1060px; margin: 28px auto; padding: 0 24px; }
h1 { font-size: 24px; margin: 0; }
h2 { font-size: 16px; margin: 34px 0 8px; padding-bottom: 4px; border-bottom: 1px solid #999; }
h3 { font-size: 14px; margin: 18px 0 4px; }
p { margin: 6px 0; }
.run { color: #555; margin: 2px 0 14px; }
.verdict { border: 1px solid #777; border-left: 8px solid #1a1a1a; padding: 8px 14px; margin: 14px 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(110px, 1fr)); gap: 10px; margin: 14px 0; }
.tile { border: 1px solid #bbb; padding: 8px 12px; }
.tile b { display: block; font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { color: #555; }
table { border-collapse: collapse; width: 100%; margin: 8px 0; }
th { text-align: left; font-weight: 600; border-bottom: 1px solid #777; }
th, td { padding: 3px 12px 3px 0; vertical-align: top; }
td { border-bottom: 1px solid #e3e3e3; }
td:first-child { white-space: nowrap; } .columns td:first-child { white-space: normal; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code, .id { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, monospace; font-size: 12px; }
.bar { display: inline-block; height: 9px; background: #666; vertical-align: middle; }
.columns { columns: 3 300px; column-gap: 28px; }
.columns > div { break-inside: avoid; margin-bottom: 12px; }
.columns table { table-layout: fixed; } .columns td { overflow-wrap: anywhere; font-size: 12px; }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 0 28px; }
.row td { padding-right: 0; } .row .id { font-size: 11px; }
.note { color: #555; font-size: 13px; }
figure { margin: 10px 0; } svg { max-width: 100%; height: auto; }
@media print {
  @page { size: A4; margin: 14mm; }
  body { margin: 0; padding: 0; max-width: none; font-size: 11px; }
  h2 { break-after: avoid; } tr, figure, .tile, .verdict { break-inside: avoid; }
}
"""

Cell = str | int | float | None


def render(report: RunReport) -> str:
    """The whole page."""
    parts = [_head(report), _verdict(report), _tiles(report)]
    if report.stages:
        parts += [_throughput(report), _stages(report), _stopped(report), _slowest(report), _workers(report)]
    parts += [_exams(report), _files(report), _software(report), _configuration(report), _links(report)]
    body = "\n".join(part for part in parts if part)
    title = f"Run report {escape(report.run_id)}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n<body>\n{body}\n'
        '<p class="note">Exams are named by their pseudonyms. Research software, not for clinical use.</p>\n'
        "</body></html>\n"
    )


def _head(report: RunReport) -> str:
    run = report.run
    when = f"{_time(run.started_at)}, took {duration(run.seconds)}" if run else "no record of its end"
    command = run.command if run else report.software.get("command", "run")
    return f'<h1>Run report</h1><p class="run"><code>{escape(report.run_id)}</code> · {escape(command)} · {when}</p>'


def _verdict(report: RunReport) -> str:
    return f'<div class="verdict">{"<br>".join(_verdict_lines(report))}</div>'


def _verdict_lines(report: RunReport) -> Iterable[str]:
    """What a person must know first."""
    run = report.run
    if run is None:
        yield (
            "<b>This run left no record of its end:</b> it was killed, failed as a whole, or is still working. "
            "What it committed is kept; the next run goes on from there."
        )
        return
    if not run.stages_run and run.ended == "complete":
        yield f"<b>Nothing to do:</b> no exam needed work. {run.n_files:,} files, {run.n_files_read:,} of them read."
    elif run.ended == "complete":
        yield f"<b>Complete:</b> {run.stages_run:,} stages of exams were run."
    else:
        yield (
            f"<b>Stopped before its end:</b> its time was over, or somebody stopped it. {run.stages_run:,} stages of "
            f"exams were run. Left for the next run: {_left(run)}."
        )
    if run.reason:
        yield f"<b>The run is flagged:</b> {escape(REASONS.get(run.reason, run.reason))}"
    if run.change == "held":
        yield "<b>Numbers changed</b> with new weights or new code. They are held back until somebody accepts them."
    elif run.change == "accepted":
        yield "<b>Numbers changed</b> with new weights or new code, and were accepted."
    if run.opensim_max_difference is not None:
        yield (
            f"Engines: {_exams_of(run.opensim_checked)} solved again with OpenSim; the largest difference of an axial "
            f"load is {run.opensim_max_difference:.2%}."
        )


def _left(run: RunRow) -> str:
    return _exams_of(run.n_pending) if run.n_pending else "files that were not read, or exams that were not looked at"


def _exams_of(n: int) -> str:
    return f"{n:,} exam" + ("" if n == 1 else "s")


def _tiles(report: RunReport) -> str:
    run = report.run
    if run is None:
        return ""
    names = ("exams", "ok", "flagged", "refused", "failed", "pending", "gone")
    tiles = [(f"{getattr(run, f'n_{name}'):,}", name) for name in names]
    tiles.append((f"{run.n_files:,}", f"files, {run.n_files_read:,} read"))
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{n}</b><span>{what}</span></div>' for n, what in tiles)
        + "</div>"
    )


def _throughput(report: RunReport) -> str:
    if report.throughput is None:
        return ""
    from pipelines.report_plots import throughput_plot, times_plot  # matplotlib takes a second to import

    return (
        f"<h2>Throughput</h2><figure>{throughput_plot(report.throughput)}</figure>"
        f"<h2>Time of an exam on its worker</h2><figure>{times_plot(report.stages)}</figure>"
    )


def _stages(report: RunReport) -> str:
    rows = [
        (
            w.stage,
            w.exams,
            w.ok,
            w.flagged,
            w.refused,
            w.failed,
            w.median_s,
            w.p95_s,
            w.slowest[0][1],
            duration(w.total_s),
        )
        for w in report.stages
    ]
    return "<h2>Stages of this run</h2>" + table(
        ("stage", "#exams", "#ok", "#flagged", "#refused", "#failed", "#median s", "#95 % s", "#slowest s", "#in all"),
        rows,
    )


def _stopped(report: RunReport) -> str:
    if not report.stopped:
        return "<h2>Refused and failed in this run</h2><p>None.</p>"
    rows = [
        (one.stage, one.status, one.reason, one.error_type, one.exams, _ids(one.examples), _meaning(one.reason))
        for one in report.stopped
    ]
    return "<h2>Refused and failed in this run</h2>" + table(
        ("stage", "status", "reason", "error class", "#exams", "for example", "meaning"), rows
    )


def _slowest(report: RunReport) -> str:
    parts = [
        f"<div><h3>{work.stage}</h3>{table(('exam', '#seconds'), _slowest_rows(work))}</div>" for work in report.stages
    ]
    return f'<h2>Slowest exams</h2><div class="row">{"".join(parts)}</div>'


def _slowest_rows(work: StageWork) -> list[tuple[Cell, ...]]:
    return [(Html(f'<span class="id">{escape(exam_id)}</span>'), seconds) for exam_id, seconds in work.slowest]


def _workers(report: RunReport) -> str:
    rows = [
        (
            one.worker or "(unknown)",
            one.tasks,
            duration(one.busy_s),
            _share(one.busy_share),
            one.peak_mib and round(one.peak_mib),
        )
        for one in report.workers
    ]
    note = '<p class="note">Busy: time in stages, as a share of the time from the run\'s first result to its last.</p>'
    return (
        "<h2>Workers</h2>"
        + table(("worker", "#stages of exams", "#busy", "busy share", "#peak memory MiB"), rows)
        + note
    )


def _exams(report: RunReport) -> str:
    rows = [(one.status, one.reason, one.exams, _meaning(one.reason)) for one in report.exams]
    return "<h2>All exams, as the store stands when this page is made</h2>" + (
        table(("status", "reason", "#exams", "meaning"), rows) if rows else "<p>None.</p>"
    )


def _files(report: RunReport) -> str:
    if not report.files:
        return ""
    rows = [(reason, n, _meaning(reason)) for reason, n in report.files.items()]
    return "<h2>Files that cannot be used</h2>" + table(("reason", "#files", "meaning"), rows)


def _software(report: RunReport) -> str:
    run, facts, cluster = report.run, report.software, report.cluster
    rows: list[tuple[Cell, ...]] = []
    if run:
        rows += [("Lumbar Cohort", run.version), ("device of the networks", run.device)]
    rows += [(f"network: {label}", _named(one)) for label, one in facts.get("networks", {}).items()]
    rows += [(f"base model: {sex}", f"sha256 {sha256[:12]}") for sex, sha256 in facts.get("base_models", {}).items()]
    versions = {"python": facts.get("python"), **facts.get("packages", {})}
    rows.append(("versions", ", ".join(f"{name} {one}" for name, one in versions.items() if one)))
    rows.append(("system", facts.get("system")))
    rows.append(("cluster profile", report.config.get("cluster", {}).get("profile")))
    if cluster:
        slots = ", ".join(f"{n:g} {name}" for name, n in cluster["resources"].items())
        rows.append(
            ("workers", f"{cluster['workers']} on {cluster['hosts']} host(s): {slots}; {cluster['memory_gib']} GiB")
        )
        rows += [(f"{what}, while the run worked", _link(address)) for what, address in cluster["links"].items()]
    known = [row for row in rows if row[1]]
    return "<h2>Software and machines</h2>" + table(("what", "which"), known) if known else ""


def _named(network: Mapping[str, str]) -> str:
    return f"{network['name']}, sha256 {network['sha256'][:12]}"


def _configuration(report: RunReport) -> str:
    if not report.config:
        return ""
    parts = [
        f"<div><h3>{escape(section)}</h3>{table((), [(name, _plain(value)) for name, value in keys.items()])}</div>"
        for section, keys in report.config.items()
        if keys
    ]
    note = '<p class="note">Of paths only the last part is shown; config.toml beside this page has them whole.</p>'
    return f'<h2>Configuration</h2><div class="columns">{"".join(parts)}</div>{note}'


def _links(report: RunReport) -> str:
    if not report.links:
        return ""
    found = [f"<li>{_link(name, what)}</li>" for what, name in report.links.items()]
    return f"<h2>Beside this page</h2><ul>{''.join(found)}</ul>"


class Html(str):
    """Text that is HTML already."""


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A table; columns whose name begins with # hold numbers."""
    right = [column.startswith("#") for column in columns]
    head = "".join(
        f"<th{_number_class(is_right)}>{escape(column.removeprefix('#'))}</th>"
        for column, is_right in zip(columns, right, strict=True)
    )
    lines = [
        "<tr>"
        + "".join(f"<td{_number_class(k < len(right) and right[k])}>{_cell(one)}</td>" for k, one in enumerate(row))
        + "</tr>"
        for row in rows
    ]
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{''.join(lines)}</tbody></table>"


def _number_class(is_right: bool) -> str:
    return ' class="n"' if is_right else ""


def _cell(value: Cell) -> str:
    if isinstance(value, Html):
        return value
    if isinstance(value, float):
        return f"{value:#.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else escape(value or "")


def _share(share: float) -> Html:
    return Html(f'<span class="bar" style="width:{min(share, 1.0) * 120:.0f}px"></span> {share:.0%}')


def _ids(exam_ids: Iterable[str]) -> Html:
    return Html("<br>".join(f'<span class="id">{escape(exam_id)}</span>' for exam_id in exam_ids))


def _link(address: str, text: str | None = None) -> Html:
    return Html(f'<a href="{escape(address)}">{escape(text or address)}</a>')


def _meaning(reason: str | None) -> str:
    return REASONS.get(reason, "") if reason else ""


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _time(iso: str) -> str:
    return f"{escape(iso[:19].replace('T', ' '))} UTC"
