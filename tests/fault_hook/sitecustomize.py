"""Loaded by every Python process of a run that a test injects faults into (its PYTHONPATH begins with this folder).

COHORT_TEST_FAULTS holds JSON: `set`, constants by "module:name", and `faults`, each with `where` ("module:function"),
`match` (a text in the arguments), `skip` (so many times nothing happens), `do` and, where a process shall wait for the
test, `flag` (a path); `clock` is a file with the seconds by which the wall clock is wrong.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import itertools
import json
import os
import signal
import sys
import time
from collections import defaultdict

TOLD = json.loads(os.environ.get("COHORT_TEST_FAULTS", "{}"))


def pause(flag):
    """Once: leave the process number in `flag`, and wait until the test says to go on."""
    try:
        os.close(os.open(f"{flag}.taken", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return
    with open(f"{flag}.partial", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{flag}.partial", flag)
    while not os.path.exists(f"{flag}.go"):
        time.sleep(0.05)


def die(flag):
    os.kill(os.getpid(), signal.SIGKILL)


def hang(flag):
    while True:
        time.sleep(3600)


def grow(flag):
    hoard = []
    while True:
        hoard.append(bytearray(os.urandom(1 << 20)) * 32)
        time.sleep(0.02)


def out_of_memory(flag):
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


ACTIONS = {action.__name__: action for action in (pause, die, hang, grow, out_of_memory)}


def wrong_clock(path, right=time.time):
    def now():
        with open(path) as file:
            return right() + float(file.read() or 0)

    return now


def guard(function, fault):
    seen = itertools.count()

    @functools.wraps(function)
    def guarded(*arguments, **options):
        if fault["match"] in repr(arguments) and next(seen) >= fault["skip"]:
            ACTIONS[fault["do"]](fault.get("flag"))
        return function(*arguments, **options)

    return guarded


def change(module, changes):
    for name, what in changes:
        owner = module
        *owners, last = name.split(".")
        for one in owners:
            owner = getattr(owner, one)
        setattr(owner, last, guard(getattr(owner, last), what) if isinstance(what, dict) else what)


class Finder(importlib.abc.MetaPathFinder):
    """Changes modules as soon as they have been executed."""

    def find_spec(self, name, path, target=None):
        if name not in WAITING:
            return None
        changes, spec = WAITING.pop(name), importlib.machinery.PathFinder.find_spec(name, path, target)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            change(module, changes)

        spec.loader.exec_module = exec_module
        return spec


if "clock" in TOLD:
    time.time = wrong_clock(TOLD["clock"])
WAITING = defaultdict(list)
for where, what in [*TOLD.get("set", {}).items(), *((fault["where"], fault) for fault in TOLD.get("faults", ()))]:
    WAITING[where.partition(":")[0]].append((where.partition(":")[2], what))
for loaded in [name for name in WAITING if name in sys.modules]:
    change(sys.modules[loaded], WAITING.pop(loaded))
sys.meta_path.insert(0, Finder())
