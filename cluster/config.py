"""Section [cluster] of a configuration: which workers a run uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from dask.utils import parse_bytes

from cohort.errors import ConfigurationError

Profile = Literal["local", "cuda", "scheduler", "slurm", "ssh", "kubernetes"]
PROFILES: Final[tuple[str, ...]] = get_args(Profile)
WITH_SITE: Final = ("slurm", "ssh", "kubernetes")
"""Profiles that a site's YAML file describes (`cluster.site`)."""


def is_size(text: str) -> bool:
    """Say if a text is a number of bytes above zero, for example "4GiB"."""
    try:
        return bool(parse_bytes(text) > 0)
    except ValueError:
        return False


def check(ok: bool, message: str) -> None:
    """Raise `ConfigurationError` with a message unless all is well."""
    if not ok:
        raise ConfigurationError(message)


@dataclass(frozen=True)
class ClusterConfig:
    """Section [cluster]."""

    profile: str = "local"
    """local, cuda, scheduler, slurm, ssh or kubernetes (docs/cluster/)."""
    workers: int | None = None
    """CPU worker processes of profiles local and cuda; one less than the cores when not given."""
    memory_limit: str = "auto"
    """Of each worker of profiles local and cuda, for example "4GiB"; "auto" shares the machine's memory."""
    device: str = "auto"
    """auto, cpu or cuda; profile cuda means cuda, and a site's file says it for its profiles."""
    site: Path | None = None
    """YAML file of profiles slurm, ssh and kubernetes."""
    scheduler: str | None = None
    """Address of profile scheduler, for example "tcp://10.0.0.5:8786"."""
    scheduler_file: Path | None = None
    """File that profile scheduler's `dask scheduler --scheduler-file` writes, in place of an address."""
    dashboard: bool = False
    """Dask's dashboard, on the loopback interface of the machine where the run was started; needs the package bokeh."""
    start_timeout_s: float = 600.0
    """How long a run waits for workers that are started elsewhere; it begins with fewer when some have come."""

    def __post_init__(self) -> None:
        check(self.profile in PROFILES, f"cluster.profile is one of {', '.join(PROFILES)}, not {self.profile!r}")
        check(self.workers is None or self.workers >= 1, f"cluster.workers is at least 1, not {self.workers}")
        check(self.device in ("auto", "cpu", "cuda"), f"cluster.device is auto, cpu or cuda, not {self.device!r}")
        limit = self.memory_limit
        check(limit == "auto" or is_size(limit), f'cluster.memory_limit is "auto" or "4GiB", not {limit!r}')
        check(
            not self.dashboard or self.profile not in ("scheduler", "kubernetes"),
            f"cluster.dashboard is for schedulers that a run starts; that of profile {self.profile} is there already",
        )
        check(self.start_timeout_s > 0, f"cluster.start_timeout_s is positive, not {self.start_timeout_s}")
        self._check_profile()

    def _check_profile(self) -> None:
        """What a profile needs is there, and nothing is said that it would ignore."""
        name, own = self.profile, ("local", "cuda")
        check(
            (self.site is not None) == (name in WITH_SITE),
            f"cluster.site is the YAML file of profiles {', '.join(WITH_SITE)}; profile {name} "
            + ("needs it" if name in WITH_SITE else "has none"),
        )
        n_named = sum(one is not None for one in (self.scheduler, self.scheduler_file))
        check(
            n_named == (name == "scheduler"),
            "profile scheduler needs one of cluster.scheduler (an address) and cluster.scheduler_file"
            if name == "scheduler"
            else f"cluster.scheduler and cluster.scheduler_file belong to profile scheduler, not to {name}",
        )
        check(
            name in own or (self.workers is None and self.memory_limit == "auto"),
            f"cluster.workers and cluster.memory_limit belong to profiles local and cuda, not to {name}",
        )
        check(name != "cuda" or self.device != "cpu", "profile cuda needs a GPU; with device = cpu use profile local")
