"""Progress on a terminal: a line for each open stage, which rich redraws some times a second."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TaskID
from rich.text import Text

from rankserve.progress.reporter import Reporter
from rankserve.progress.stage import Stage


class Live(Reporter):
    """Shows the open stages below all that is printed meanwhile; of those that end a line stays.

    Args:
        stream: a terminal.
        clock: monotonic seconds.
        refresh: whether a thread redraws the lines; else only what is told does.
    """

    def __init__(
        self, stream: TextIO, clock: Callable[[], float] = time.monotonic, *, refresh: bool = True
    ) -> None:
        super().__init__(clock)
        self._console = Console(file=stream, force_terminal=True, highlight=False, markup=False, emoji=False)
        self._shown = Progress(
            SpinnerColumn(),
            _Position(),
            console=self._console,
            auto_refresh=refresh,
            refresh_per_second=4,
            transient=True,
            # What goes to a file or a pipe stays as it is.
            redirect_stdout=sys.stdout.isatty(),
            get_time=clock,
        )
        self._tasks: dict[Stage, TaskID] = {}

    def tell(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)

    def close(self) -> None:
        self._shown.stop()

    def _began(self, stage: Stage) -> None:
        self._tasks[stage] = self._shown.add_task(stage.name, stage=stage)
        self._shown.start()

    def _ended(self, stage: Stage, *, stopped: bool) -> None:
        self._shown.remove_task(self._tasks.pop(stage))
        if not self._open:
            self._shown.stop()
        self.tell(stage.end(stopped=stopped))


class _Position(ProgressColumn):
    def render(self, task: Task) -> Text:
        stage: Stage = task.fields["stage"]
        return Text(stage.position(), no_wrap=True, overflow="ellipsis")
