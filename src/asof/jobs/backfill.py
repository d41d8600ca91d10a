"""Backfill: the vectors of stored bars and events, computed and stored in bounded memory.

1. `pieces` cuts the work into parts, each of at most so many bars as the memory allows.
2. Each part is read and computed by the engine on its threads; `_regrouped` cuts what comes out into as many rows as the store likes to
   write, and these are upserted in one transaction while the next are computed.
3. Vectors that are there already, with the same bits, are left alone: a backfill that was killed is finished by running it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime

import pyarrow as pa

from asof.errors import NotFound
from asof.jobs.parts import MEMORY, computed, pieces
from asof.jobs.work import Report, Work

Progress = Callable[[int, int], None]
"""Told how many more bars are done, and of how many in all."""


def backfill(
    work: Work,
    *,
    instruments: tuple[str, ...] | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    memory: int = MEMORY,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Compute and store the vectors of every selected bar that has closed; `instruments` and `[start, end]` default to all there is.

    Raises `NotFound` where nothing is selected. Requested instruments without bars get a row in the quality log.
    """
    try:
        todo = pieces(work, instruments, start, end, memory)
    except NotFound:
        work.log_without_bars(instruments or ())
        raise
    work.log_without_bars(todo.without_bars)
    done = Report(without_bars=todo.without_bars)
    with ThreadPoolExecutor(1, thread_name_prefix="asof-store") as writer:
        writing: Future[Report] | None = None
        for vectors in _regrouped((computed(work, part) for part in todo.parts), work.store.write_rows):
            if writing:
                done += writing.result()
            progress(len(vectors), todo.rows)
            writing = writer.submit(_write, work, vectors)
        return done + writing.result() if writing else done


def _write(work: Work, vectors: pa.Table) -> Report:
    began = time.perf_counter()
    changes = work.store.upsert(work.table, vectors, work.now)
    return Report.of(vectors, changes, time.perf_counter() - began)


def _regrouped(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The rows of the tables in tables of just so many rows; the last may have fewer."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        while sum(map(len, waiting)) >= rows:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, rows).combine_chunks()  # here, where nobody waits for it
            waiting = [whole.slice(rows)]
    rest = pa.concat_tables(waiting) if waiting else []
    if len(rest):
        yield rest
