"""Exceptions of the library: one base, few leaves, each also a builtin so that callers may catch what they know.

Every error that concerns one file, series or exam carries a reason code from `cohort.reasons`, so that a stage can turn
it into a row instead of a crash.
"""

from __future__ import annotations

import errno
from typing import Final

from cohort.reasons import REASONS


class CohortError(Exception):
    """Base of all errors raised on purpose by this project."""


class ConfigurationError(CohortError, ValueError):
    """The user's configuration, command line or subject table cannot be used as given."""


class StoreError(CohortError, OSError):
    """A store on disk is missing, incomplete or of another schema version."""


class RefusedError(CohortError, ValueError):
    """Data that must not be used; `reason` is the code that the row will carry.

    Parameters
    ----------
    reason : a key of `cohort.reasons.REASONS`
    detail : what was seen, where, with which value; never a path, a name or any other identifier of the patient
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        if reason not in REASONS:
            raise KeyError(f"reason code {reason!r} is not declared in cohort/reasons.py")
        super().__init__(f"{reason}: {detail or REASONS[reason]}")
        self.reason = reason
        self.detail = detail


DISK_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
"""No space left, quota reached, largest file size reached."""


def is_disk_full(error: BaseException) -> bool:
    """Say if writing failed for want of space: nothing is wrong with the data, and a later try may succeed."""
    return isinstance(error, OSError) and error.errno in DISK_FULL
