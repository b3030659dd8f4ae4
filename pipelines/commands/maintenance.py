"""`cohort gc`, `fsck`, `compact` and `migrate`: keep a store in order."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from pathlib import Path

import click

from pipelines.commands.options import JSON, STORE


@click.command()
@STORE
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@click.option("--grace-days", default=1.0, show_default=True, help="Results younger than this stay.")
@click.option("--gone-days", default=30.0, show_default=True, help="So long after it left the archive an exam's stay.")
@JSON
def gc(store: Path, dry_run: bool, grace_days: float, gone_days: float, as_json: bool) -> None:
    """Remove exam, label and measure files that no ledger points to, and what runs left behind.

    \b
    Examples:
      cohort gc --store /data/store --dry-run
      cohort gc --store /data/store
    """
    from cohort.store.garbage import DAY_S, Grace
    from pipelines.maintenance import collect_garbage

    grace = Grace(result_s=grace_days * DAY_S, gone_s=gone_days * DAY_S)
    garbage = collect_garbage(store, grace=grace, dry_run=dry_run)
    counts = Counter(one.kind for one in garbage)
    sizes: Counter[str] = Counter()
    for one in garbage:
        sizes[one.kind] += one.size_bytes
    if as_json:
        freed = {kind: {"n": n, "bytes": sizes[kind]} for kind, n in counts.items()}
        click.echo(json.dumps({"dry_run": dry_run, "bytes": sizes.total(), "kinds": freed}, indent=1))
        return
    for kind, n in counts.most_common():
        click.echo(f"{kind}: {n}, {sizes[kind] / 1e6:.1f} MB")
    click.echo(f"{sizes.total() / 1e6:.1f} MB {'would be' if dry_run else 'were'} freed")


@click.command()
@STORE
@click.option("--deep", is_flag=True, help="Also read every array and measured row.")
@click.option("--repair", "mend", is_flag=True, help="Take away what is wrong, so that the next run does it again.")
@JSON
def fsck(store: Path, deep: bool, mend: bool, as_json: bool) -> None:
    """Prove that store, ledger and tables agree; exit with 1 when something is wrong.

    What a run that was cut off has left, and the next run mends by itself, is listed as unfinished and is not wrong.

    \b
    Examples:
      cohort fsck --store /data/store
      cohort fsck --store /data/store --deep --json
      cohort fsck --store /data/store --repair && cohort run /data/archive --store /data/store
    """
    from cohort.tables.fsck import wrong
    from pipelines.maintenance import check

    found = check(store, deep=deep, mend=mend)
    if as_json:
        click.echo(json.dumps({"findings": [dataclasses.asdict(one) for one in found]}, indent=1))
    else:
        for one in found:
            click.echo(str(one))
        n_wrong = len(wrong(found))
        click.echo(f"{n_wrong} wrong, {len(found) - n_wrong} unfinished" if found else "store, ledger and tables agree")
    if wrong(found):
        sys.exit(1)


@click.command()
@STORE
@JSON
def compact(store: Path, as_json: bool) -> None:
    """Join the history's many small files into one for each table and run; no row changes.

    \b
    Example:
      cohort compact --store /data/store
    """
    from pipelines.maintenance import compact as compact_store

    done = compact_store(store)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(done)))
    else:
        click.echo(f"{done.files_before} files became {done.files_after}, {done.bytes_freed / 1e6:.1f} MB freed")


@click.command()
@STORE
@JSON
def migrate(store: Path, as_json: bool) -> None:
    """Rewrite the tables and the history of an older store in this software's schema.

    \b
    Example:
      cohort migrate --store /data/store
    """
    from pipelines.maintenance import migrate_store

    done = migrate_store(store)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(done)))
    elif done.files or done.from_version != done.to_version:
        click.echo(f"schema version {done.from_version} became {done.to_version}: {done.files} files rewritten")
    else:
        click.echo(f"schema version {done.to_version}: nothing to do")
