"""
Threads for calls that may hang in the kernel for ever: a file system whose server is gone, a start from a dead disk.

In: functions, by the Executor interface. Out: their futures.
Promise: at most so many threads, further work waits in line and can be cancelled there; and unlike the standard pool's,
no thread is waited for when the process ends, so a dead disk cannot keep the daemon from stopping.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any


class DaemonThreads(Executor):
    """Threads are started when there is work and end when there is none."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._lock = threading.Lock()
        self._running = 0
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            self._waiting.append((future, lambda: fn(*args, **kwargs)))
            start = self._running < self._most
            self._running += start
        if start:
            try:
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
            except RuntimeError as error:  # no thread to be had
                with self._lock:
                    self._running -= 1
                future.set_exception(OSError(f"cannot start a thread: {error}"))
        return future

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return
                future, call = self._waiting.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
            del future, call
