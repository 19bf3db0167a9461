"""How processes that decode images begin and end."""

import os
import signal
from multiprocessing import connection, parent_process
from threading import Thread

from disentangle.training.signals import STOPPING


def begin_worker(worker: int) -> None:
    """Has a worker of a `DataLoader` end with the process it works for, and with nothing else.

    A signal to the whole group, as from Ctrl-C, must not end it before that one is done. PyTorch's
    workers look every few seconds whether it is still there; but one that was born while it was
    killed takes the process that adopted it for it, and would go on forever.
    """
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None  # a worker has one
    connection.wait([parent.sentinel])
    os._exit(1)
