"""OpenSim in a process of its own, killed when its time is over.

OpenSim holds the interpreter for whole calls, can hang or crash, writes to the terminal, and keeps for good the default
muscles that a model file brings along: whatever reads such a file afterwards in the same process reads it otherwise.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from cohort.errors import ConfigurationError, RefusedError

Answer = TypeVar("Answer")


def run_isolated(function: Callable[..., Answer], *arguments: Any, timeout_s: float) -> Answer:
    """Call a top-level function in a child process; arguments and answer must be picklable.

    Raises RefusedError `timed_out` when the child had to be killed after `timeout_s`, `internal_error` when it died or
    failed with an error of another class, and the child's own ConfigurationError or RefusedError otherwise.
    """
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(sender, function, arguments), daemon=True)
    child.start()
    sender.close()
    try:
        if not receiver.poll(timeout_s):
            raise RefusedError("timed_out", f"OpenSim took longer than {timeout_s} s")
        answer, error = receiver.recv()
    except EOFError as died:
        raise RefusedError("internal_error", "the process that ran OpenSim died") from died
    finally:
        child.kill()
        child.join()
        receiver.close()
    if error is not None:
        kind, *about = error
        raise kind(*about)
    return answer  # type: ignore[no-any-return]


def _answer(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Run in the child: send (answer, None) or (None, (class of the error, its arguments))."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    try:
        sender.send((function(*arguments), None))
    except RefusedError as error:
        sender.send((None, (RefusedError, error.reason, error.detail)))
    except ConfigurationError as error:
        sender.send((None, (ConfigurationError, str(error))))
    except Exception as error:  # the parent must hear of any failure; OpenSim's texts may hold paths, so only the class
        sender.send((None, (RefusedError, "internal_error", f"OpenSim raised {type(error).__name__}")))
