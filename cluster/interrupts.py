"""Preloaded by the workers of this machine: Ctrl-C is the client's.

A terminal sends it to every process in its foreground. The client cancels its work and ends its workers; workers that
ended by themselves as well would print a traceback each.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)
