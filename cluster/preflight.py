"""Check-up of a cluster before a run: what would make the whole run fail, wait for ever, or give mixed numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dask.utils import format_bytes, parse_timedelta
from distributed import Client

from cluster.checks import LEAST_DISK, LEAST_MEMORY, LITTLE_DISK, LITTLE_MEMORY, Check, State, room
from cluster.facts import Probe, answer_token, look, new_token, scheduler_settings, top_of, versions, worker_settings
from cluster.resources import Device, offered, sees_gpu, workers_of
from cluster.settings import ALLOWED_FAILURES, settings

_DURATIONS: Final = ("distributed.scheduler.worker-ttl", "distributed.scheduler.no-workers-timeout")
_USE_SETTINGS: Final = "start scheduler and workers with DASK_CONFIG as docs/cluster/ says"


@dataclass(frozen=True)
class Needs:
    """What a run needs of its workers."""

    device: Device
    files: Mapping[str, Path]
    """What it is called -> file that tasks will open: weights and base models."""
    store: Path | None = None
    archive: Path | None = None
    resources: Sequence[str] = ("CPU", "GPU")


def inspect(client: Client, needs: Needs) -> list[Check]:
    """All checks of a cluster that is there, the most fundamental first."""
    workers = workers_of(client)
    checks = [*_resources(client, needs.resources), *_processes(workers), *_memory(workers), *_versions(client)]
    if any(one.state == "missing" for one in checks):
        return checks  # workers with other code could not even answer the rest
    return [*checks, *_settings(client), *_device(client, workers, needs.device), *_files(client, workers, needs)]


def _resources(client: Client, needed: Iterable[str]) -> Iterator[Check]:
    there = offered(client)
    for name in needed:
        n = there.get(name, 0)
        remedy = f"start workers with --resources {name}=1"
        yield Check(f"resource {name}", "ok" if n else "missing", f"{n} workers", "" if n else remedy)


def _processes(workers: Mapping[str, Any]) -> Iterator[Check]:
    """One task a process: time limits end the whole process, and a task's memory is its process's."""
    wide = [one for one in workers.values() if one["nthreads"] > 1 and one["resources"]]
    many = [one for one in workers.values() if any(amount > 1 for amount in one["resources"].values())]
    alone = [one for one in workers.values() if not one["nanny"]]
    state: State = "missing" if many else "warning" if wide or alone else "ok"
    found = {"offer more than one": many, "have several threads": wide, "have no nanny to start them again": alone}
    detail = ", ".join(f"{len(those)} {what}" for what, those in found.items() if those)
    remedy = "one process per core or GPU: --nthreads 1 --resources CPU=1 (or GPU=1), with a nanny"
    yield Check("worker processes", state, detail or f"{len(workers)}, one thread each", remedy if detail else "")


def _memory(workers: Mapping[str, Any]) -> Iterator[Check]:
    limits = [one["memory_limit"] for one in workers.values() if one["memory_limit"]]
    if limits:
        remedy = "fewer workers, or a higher limit (cluster.memory_limit, memory in the site's file)"
        yield room("memory per worker", min(limits), least=LEAST_MEMORY, little=LITTLE_MEMORY, remedy=remedy)


def _versions(client: Client) -> Iterator[Check]:
    """Rows come from all workers alike only where their code and libraries are the same."""
    own = versions()
    theirs = {"scheduler": _scheduler_versions(client), **client.run(versions, on_error="return")}
    broken = [where for where, found in theirs.items() if isinstance(found, Exception)]
    others: Counter[str] = Counter()
    for found in theirs.values():
        if not isinstance(found, Exception):
            others.update(
                f"{name} {found.get(name)} not {wanted}" for name, wanted in own.items() if found[name] != wanted
            )
    told = [f"{text} ({n} processes)" for text, n in sorted(others.items())]
    told += [f"{len(broken)} processes cannot import this package"] if broken else []
    state: State = "missing" if told else "ok"
    remedy = "install the same versions everywhere; one environment on a shared file system is simplest"
    yield Check(
        "versions on workers", state, "; ".join(told) or f"equal in {len(theirs) + 1} processes", remedy if told else ""
    )


def _scheduler_versions(client: Client) -> dict[str, str] | Exception:
    try:
        return dict(client.run_on_scheduler(versions))
    except Exception as error:  # whatever another version of the code or of Dask raises there
        return error


def _settings(client: Client) -> Iterator[Check]:
    """Dask's settings that took effect, against `cluster/dask.yaml`."""
    found = [client.run_on_scheduler(scheduler_settings), *client.run(worker_settings).values()]
    wrong = sorted({_short(name) for told in found for name, value in told.items() if not _as_set(name, value)})
    # without children of their own, workers cannot put a time limit on OpenSim
    state: State = "missing" if "worker.daemon" in wrong else "warning" if wrong else "ok"
    detail = f"others than this version's: {', '.join(wrong)}" if wrong else "as this version wants them"
    yield Check("settings of Dask", state, detail, _USE_SETTINGS if wrong else "")


def _short(name: str) -> str:
    return name.removeprefix("distributed.")


def _as_set(name: str, value: Any) -> bool:
    wanted = settings()[name]
    if name == ALLOWED_FAILURES:  # the local profile has none
        return bool(value <= wanted)
    return bool(value == (parse_timedelta(wanted) if name in _DURATIONS else wanted))


def _device(client: Client, workers: Mapping[str, Any], device: Device) -> Iterator[Check]:
    if device == "cpu":
        yield Check("device of the networks", "ok", "CPU")
        return
    lane = [address for address, one in workers.items() if one["resources"].get("GPU")]
    blind = sum(not sees for sees in client.run(sees_gpu, workers=lane).values())
    detail = f"{blind} of {len(lane)} network workers see no GPU" if blind else f"{len(lane)} workers see a GPU"
    remedy = "check the driver and CUDA build of torch there (nvidia-smi), or use device = cpu"
    yield Check("device of the networks", "missing" if blind else "ok", detail, remedy if blind else "")


def _files(client: Client, workers: Mapping[str, Any], needs: Needs) -> Iterator[Check]:
    """Whether workers see the same files as the client: one worker of each host answers for its neighbours."""
    hosts = _one_per_host(workers)
    if needs.store is not None:
        yield _store(client, hosts, needs.store)
    before = needs.archive and top_of(needs.archive)
    found = client.run(look, Probe(tuple(needs.files.values()), needs.archive), workers=hosts).values()
    if needs.archive is not None:
        right = {before, top_of(needs.archive)} - {None}  # an archive may grow just now
        n_other = sum(facts.archive not in right for facts in found)
        yield _same("archive", n_other, len(found), "the archive must be at the same path on every host")
    mine = look(Probe(tuple(needs.files.values()))).sha256
    for name, path in needs.files.items():
        n_other = sum(facts.sha256[str(path)] != mine[str(path)] or mine[str(path)] is None for facts in found)
        yield _same(name, n_other, len(found), "the same file must be at the same path on every host")
    scratch = min(facts.scratch_bytes for facts in found)
    remedy = "set temporary-directory of Dask to a larger local disk"
    yield room("workers' own disk", scratch, least=LEAST_DISK, little=LEAST_DISK, remedy=remedy)


def _store(client: Client, hosts: list[str], store: Path) -> Check:
    """A file that the client writes is seen by workers, and the other way round."""
    remedy = "the store must be at the same path, writable, on every host"
    token = new_token()
    answers: dict[str, str | None] = {}
    try:
        (store / token).touch(exist_ok=False)
        answers = client.run(answer_token, store, token, workers=hosts)
        n_other = sum(answer is None or not (store / answer).exists() for answer in answers.values())
    except OSError as error:
        return Check("store on workers", "missing", f"not writable here: {error.strerror}", remedy)
    finally:
        for name in [token, *filter(None, answers.values())]:
            (store / name).unlink(missing_ok=True)
    return _same("store", n_other, len(answers), remedy)


def _same(what: str, n_other: int, n: int, remedy: str) -> Check:
    if n_other:
        return Check(f"{what} on workers", "missing", f"not there, or another one, on {n_other} of {n} hosts", remedy)
    return Check(f"{what} on workers", "ok", f"the same on {n} hosts" if n > 1 else "the same")


def _one_per_host(workers: Mapping[str, Any]) -> list[str]:
    return list({one["host"]: address for address, one in workers.items()}.values())


def disk(what: str, free: int) -> Check:
    """Room on the disk of the store."""
    return room(
        what, free, least=LEAST_DISK, little=LITTLE_DISK, remedy=f"free some space ({format_bytes(LITTLE_DISK)})"
    )
