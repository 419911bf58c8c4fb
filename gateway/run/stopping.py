"""Ends the process when it is told to: in good order, or hard where something hangs.

Whatever hangs, be it the cloud, a broker, a lock that another process holds, a thread, the loop itself or whoever reads
our log: a service manager that has said SIGTERM gets its end within END_WITHIN. A stop that is cut short is like a
crash, which the journal was made for. So signals are waited for in a thread of their own, which needs nobody's help.
"""

import asyncio
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

from gateway.run.log_writer import writer

STOP_WITHIN: Final = 4.0
"""Seconds in which all parts of a gateway stop, one after the other."""
CUT_AFTER: Final = 4.4
"""Seconds from the signal after which the process ends hard, and says what hung."""
END_WITHIN: Final = 4.8
"""Seconds after which the kernel ends it (SIGALRM), should even that hang."""
EXIT_HUNG: Final = 1
LAST_WORDS: Final = 0.2
"""Seconds that the log has for them."""
_SHOWN: Final = 10
"""Tasks and threads that are named."""

log = structlog.get_logger("gateway")


class Parts:
    """Stops one part after the other; one that takes too long is left behind, and named in the log."""

    def __init__(self) -> None:
        self._deadline = asyncio.get_running_loop().time() + STOP_WITHIN

    def left(self, others: float) -> float:
        """Return the seconds for the next part, where those after it need `others`."""
        return max(0.0, self._deadline - others - asyncio.get_running_loop().time())

    async def stop(self, part: str, work: Coroutine[Any, Any, object], others: float = 0.0) -> None:
        """Do what stops a part, and wait for that, unless it takes so long that the others would not have `others`.

        Raises what the work raises.
        """
        task = asyncio.create_task(work, name=f"stop {part}")
        done, _ = await asyncio.wait({task}, timeout=self.left(others))
        if done:
            task.result()
        else:
            log.error("did not stop in time, going on without it", part=part, waits_for=_place_of(task))
            task.cancel()


def on_signal(on_hangup: Callable[[], object]) -> asyncio.Event:
    """Return what SIGINT and SIGTERM set, from now on and as long as the process lives, which then is END_WITHIN.

    At SIGHUP `on_hangup` is called, on the loop, unless the terminal that it was started from went away.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    stops = {signal.SIGINT, signal.SIGTERM, *({signal.SIGHUP} if sys.stderr.isatty() else ())}
    # What waits is inherited by the threads that are started later, so none of them is interrupted.
    signal.pthread_sigmask(signal.SIG_BLOCK, {*stops, signal.SIGHUP})
    threading.Thread(target=_wait, args=(loop, stop, stops, on_hangup), name="signals", daemon=True).start()
    return stop


def leave() -> None:
    """End the process where a signal asked for it: all is done, and Python's own end may take long on a busy one."""
    if signal.getitimer(signal.ITIMER_REAL)[0] > 0:
        os._exit(0)  # what is logged has been flushed, and nothing else is written


def _wait(
    loop: asyncio.AbstractEventLoop, stop: asyncio.Event, stops: set[signal.Signals], on_hangup: Callable[[], object]
) -> None:
    while (number := signal.sigwait({*stops, signal.SIGHUP})) not in stops:
        loop.call_soon_threadsafe(on_hangup)
    signal.setitimer(signal.ITIMER_REAL, END_WITHIN)
    threading.Thread(target=_cut, args=(loop,), name="end", daemon=True).start()
    loop.call_soon_threadsafe(stop.set)
    log.info("stopping", signal=signal.Signals(number).name)


def _cut(loop: asyncio.AbstractEventLoop) -> None:
    threading.Event().wait(CUT_AFTER)
    log.error("it hangs, so it ends without good order, as in a crash", **_hanging(loop))
    writer.flush(LAST_WORDS)
    os._exit(EXIT_HUNG)


def _hanging(loop: asyncio.AbstractEventLoop) -> dict[str, list[str]]:
    """Return where threads stand, and which tasks have not ended."""
    frames = sys._current_frames()  # noqa: SLF001 - there is no other way to see where a thread stands
    threads = [
        f"{thread.name}: {_frame(traceback.extract_stack(frames[thread.ident], limit=None)[-1])}"
        for thread in threading.enumerate()
        if thread.ident in frames and not thread.daemon
    ]
    try:
        tasks = [f"{task.get_name()}: {_place_of(task)}" for task in asyncio.all_tasks(loop) if not task.done()]
    except RuntimeError:  # they change while they are looked at
        tasks = []
    return {"threads": threads[:_SHOWN], "tasks": tasks[:_SHOWN]}


def _place_of(task: asyncio.Task[Any]) -> str:
    """Return where in the code a task waits: the innermost of the coroutines that wait for each other."""
    waiting: Any = task.get_coro()
    at = ""
    while waiting is not None and getattr(waiting, "cr_frame", None) is not None:
        at = f"{waiting.cr_frame.f_code.co_filename}:{waiting.cr_frame.f_lineno} {waiting.cr_frame.f_code.co_name}"
        waiting = waiting.cr_await
    return at


def _frame(frame: traceback.FrameSummary) -> str:
    return f"{frame.filename}:{frame.lineno} {frame.name}"
