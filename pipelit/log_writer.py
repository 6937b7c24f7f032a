"""Writes log lines beside the loop: a slow disk or a full pipe delays lines, never the server.

A line is made where it is logged, because that place knows whose it is, and written by a thread.
What waits is bounded; what does not fit is dropped, counted, and owned up to in a line of its own.
"""

import logging
import queue
import threading
from contextlib import suppress

MAX_WAITING = 10_000
"""Lines that may wait for the output; of at most 32 000 characters each."""
CLOSE_SECONDS = 2.0
"""What waits at the end of the process gets so long."""

_Item = logging.LogRecord | threading.Event | None


class BackgroundHandler(logging.Handler):
    """Formats in the caller's thread and hands the line to a thread that owns the output."""

    def __init__(self, output: logging.Handler, *, max_waiting: int = MAX_WAITING) -> None:
        """*output* writes records as they are; it belongs to the thread from now on."""
        super().__init__()
        self.dropped = 0
        self._output = output
        self._max_waiting = max_waiting
        self._queue: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._owned_up = 0
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one line, or drop it."""
        if self._queue.qsize() >= self._max_waiting:
            self.dropped += 1
            return
        self._queue.put(_finished(record, self.format(record)))

    def flush(self) -> None:
        """Wait, for a while, until everything queued so far is written."""
        done = threading.Event()
        if self._thread.is_alive():
            self._queue.put(done)
            done.wait(CLOSE_SECONDS)

    def close(self) -> None:
        """Write what waits, for a while, and end the thread."""
        super().close()
        if self._ended:
            return
        self._ended = True
        self._queue.put(None)
        self._thread.join(CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._output.close()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, threading.Event):
                with suppress(OSError, ValueError):  # the output is gone: nothing to wait for
                    self._output.flush()
                item.set()
                continue
            self._output.handle(item)
            if self.dropped > self._owned_up and self._queue.qsize() <= self._max_waiting // 2:
                self._own_up()

    def _own_up(self) -> None:
        count, self._owned_up = self.dropped - self._owned_up, self.dropped
        text = f"{count} log lines dropped: the output was too slow"
        record = logging.LogRecord("pipelit.logs", logging.WARNING, __file__, 0, text, None, None)
        self._output.handle(_finished(record, self.format(record)))


def _finished(record: logging.LogRecord, line: str) -> logging.LogRecord:
    """Return a record whose message is *line*, with nothing left that a thread could change."""
    return logging.LogRecord(record.name, record.levelno, record.pathname, 0, line, None, None)


def dropped_lines() -> int:
    """Return how many lines the process's root logger has dropped."""
    handlers = logging.getLogger().handlers
    return sum(one.dropped for one in handlers if isinstance(one, BackgroundHandler))
