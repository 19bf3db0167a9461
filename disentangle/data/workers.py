"""Decode batches of images in worker processes, and end when one of them dies."""

import os
import signal
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import Thread

import torch
from torch import Tensor

from disentangle.data import ImageData

AHEAD = 2  # batches that are decoded ahead for each worker


def read_batches(
    data: ImageData, batches: Iterable[Sequence[int]], workers: int
) -> Generator[Tensor, None, None]:
    """Yield the images of each batch of indices in order, decoded ahead by worker processes.

    A pool of `concurrent.futures` in place of a `DataLoader`: when a worker dies, the pool says so
    where its next batch is waited for, while PyTorch raises from a signal handler, wherever the
    main thread is.

    Args:
        data: The data set.
        batches: Indices of each batch.
        workers: Number of processes; 0 decodes in this one.

    Yields:
        uint8 `(N, C, H, W)` for N indices.

    Raises:
        OSError: If images cannot be read, or a worker has died.
    """
    if not workers:
        yield from map(data.__getitems__, batches)
        return
    lifeline, held = Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, initializer=_begin, initargs=(data, lifeline, held))
    waiting = deque[Future[Tensor]]()
    try:
        for indices in batches:
            waiting.append(pool.submit(_fetch, indices))
            if len(waiting) == AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise OSError(
            "a process that decodes images ended unexpectedly (out of memory or shared memory?)"
        ) from error
    finally:
        # Workers only read, so they are cut off rather than asked to end: after a death, the others
        # may wait forever for a lock that the dead one held.
        held.close()
        pool.shutdown(cancel_futures=True)
        lifeline.close()


_data: ImageData  # of a worker


def _begin(data: ImageData, lifeline: Connection, held: Connection) -> None:
    """Let this worker end with the process it works for, and with nothing else.

    A signal to the whole group, as from Ctrl-C, must not end it before that process is done.
    """
    global _data
    _data = data
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    held.close()
    Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    torch.set_num_threads(1)  # the workers share the cores


def _end_with(lifeline: Connection) -> None:
    """End this process when the other end of the pipe is closed, or its holder is dead."""
    lifeline.poll(None)
    os._exit(1)


def _fetch(indices: Sequence[int]) -> Tensor:
    return _data.__getitems__(indices)


STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
