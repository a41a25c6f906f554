"""The long random search: every property test again and again, with other seeds, until the time is over.

Each process, one for each core, runs all of them by seeds of its own. The test that had the least time goes
next, so each gets an equal share, and a state machine four. `make fuzz MINUTES=30` is the way in.
"""

import argparse
import os
import random
import shlex
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import core, is_hypothesis_test, settings
from hypothesis.statistics import collector

# How long a property is searched before another one's turn.
_TURN_S = 15.0
_MOST_EXAMPLES = 5_000
# State machines run for so many times the steps that their tests say.
_STEP_FACTORS = (1, 1, 2, 4)
# They get so many shares of the time, since what happens in them is the most various.
_MACHINE_SHARES = 4
# Longer than hypothesis may shrink.
_TIMEOUT_S = 900
_ROOT = Path(__file__).resolve().parent.parent


@dataclass(slots=True, frozen=True)
class Turn:
    """What makes a search repeat itself."""

    seed: int
    examples: int
    steps: int


@dataclass(slots=True, eq=False)
class Property:
    """A property test and how far it was searched."""

    item: pytest.Item
    written: settings
    turns: int = 0
    examples: int = 0
    last: int = 0
    turn_s: float = 1.0
    spent_s: float = 0.0
    step_s: float | None = None
    failed: bool = False

    @classmethod
    def of(cls, item: pytest.Item) -> "Property":
        function = item.obj  # type: ignore[attr-defined]
        machine = getattr(item, "cls", None)
        return cls(item, getattr(machine, "settings", None) or function._hypothesis_internal_use_settings)

    @property
    def test(self) -> str:
        """What all the parameters of a test have in common."""
        return self.item.nodeid.partition("[")[0]

    @property
    def is_machine(self) -> bool:
        return hasattr(getattr(self.item, "cls", None), "settings")

    def next_turn(self, draw: random.Random, most_s: float) -> Turn:
        """As many examples as take so long, by what those before have taken."""
        longer = self.is_machine and self.step_s is not None
        steps = self.written.stateful_step_count * (draw.choice(_STEP_FACTORS) if longer else 1)
        examples = int(self.written.max_examples)
        if self.step_s is not None:
            # The more hypothesis has tried, the longer it looks for something new: a fresh seed is better.
            examples = max(5, min(_MOST_EXAMPLES, 4 * self.last, int(most_s / (self.step_s * steps))))
        return Turn(draw.getrandbits(32), examples, steps)

    def use(self, turn: Turn) -> None:
        changed = settings(self.written, max_examples=turn.examples, stateful_step_count=turn.steps)
        if self.is_machine:
            self.item.cls.settings = changed  # type: ignore[attr-defined]
        else:
            function = self.item.obj  # type: ignore[attr-defined]
            getattr(function, "__func__", function)._hypothesis_internal_use_settings = changed
        core.global_force_seed = turn.seed  # type: ignore[assignment]


@dataclass(eq=False)
class Search:
    """A pytest plugin that runs the property tests among those collected, over and over.

    Attributes:
        minutes: for how long.
        seed: whence the seeds of all turns come.
        name: of this process, in its lines.
        only: the turn to repeat, once, instead.
    """

    minutes: float
    seed: int
    name: str
    only: Turn | None
    properties: list[Property] = field(default_factory=list)
    now: Property | None = None
    turn: Turn | None = None

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        is_test = collection_path.is_file() and collection_path.name.startswith("test_")
        return True if is_test and "hypothesis" not in collection_path.read_text("utf-8") else None

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if is_hypothesis_test(getattr(item, "obj", None))]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted(f"{session.testsfailed} errors during collection")
        self.properties = [Property.of(item) for item in session.items]
        draw = random.Random(self.seed)
        if self.only is not None:
            for one in self.properties:
                self.search(one, self.only)
            return True
        until_s = time.monotonic() + 60 * self.minutes
        self.say(f"{len(self.properties)} properties for {self.minutes:g} minutes, seed {self.seed}")
        while (left_s := until_s - time.monotonic()) > 0:
            going_on = [one for one in self.properties if not one.failed]
            if not going_on:
                break
            spent_s: defaultdict[str, float] = defaultdict(float)
            for one in self.properties:
                spent_s[one.test] += one.spent_s / (_MACHINE_SHARES if one.is_machine else 1)
            one = min(going_on, key=lambda one: (one.turns > 0, spent_s[one.test], one.spent_s))
            self.search(one, one.next_turn(draw, min(_TURN_S, left_s, 60 * self.minutes / len(going_on))))
            self.say(self.progress(one, until_s))
        for one in self.properties:
            self.say(f"{one.examples:9,} examples in {one.spent_s:4.0f} s: {one.item.nodeid}")
        failed = sum(one.failed for one in self.properties)
        total = sum(one.examples for one in self.properties)
        self.say(f"{total:,} examples of {len(self.properties)} properties, {failed} of which failed")
        return True

    def search(self, one: Property, turn: Turn) -> None:
        self.now, self.turn = one, turn
        one.use(turn)
        before, began_s = one.examples, time.monotonic()
        one.item.ihook.pytest_runtest_protocol(item=one.item, nextitem=None)
        took_s = time.monotonic() - began_s
        one.turns += 1
        if one.turns > 1:  # The first turn may have compiled what is under test.
            one.spent_s += took_s
        one.last, one.turn_s = max(one.examples - before, 1), max(took_s, 1e-3)
        one.step_s = one.turn_s / (one.last * turn.steps)

    @pytest.hookimpl(hookwrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Counts the examples; within hypothesis's own hook, which is told as well."""
        tell_hypothesis = collector.value

        def count(statistics: dict[str, dict[str, list[object]]]) -> None:
            for phase in ("reuse-phase", "generate-phase"):
                if self.now is not None:
                    self.now.examples += len(statistics.get(phase, {}).get("test-cases", ()))
            if tell_hypothesis is not None:
                tell_hypothesis(statistics)

        with collector.with_value(count):  # type: ignore[arg-type]
            yield

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        return ("", "", "") if report.passed else None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.failed or self.now is None or self.turn is None:
            return
        self.now.failed = True
        notes = "\n".join(text for title, text in report.sections if title == "Hypothesis")
        again = shlex.join(
            [
                *(".venv/bin/python", "tests/fuzz.py", report.nodeid, "--seed", str(self.turn.seed)),
                *("--examples", str(self.turn.examples), "--steps", str(self.turn.steps)),
            ]
        )
        pin = (
            "write its steps above as a plain test"
            if self.now.is_machine
            else "add the arguments above to the test as @example(...)"
        )
        self.say(
            f"FAILED {report.nodeid}\n{report.longreprtext}\n{notes}\nto repeat: {again}\nto pin it: {pin}"
        )

    def progress(self, one: Property, until_s: float) -> str:
        left_s = max(0.0, until_s - time.monotonic())
        rate = one.last / one.turn_s
        failed = sum(p.failed for p in self.properties)
        return (
            f"{left_s / 60:5.1f} min left, {failed} failed; turn {one.turns}: {one.examples:9,} examples"
            f" at {rate:6.0f}/s of {one.item.nodeid.removeprefix('tests/')}"
        )

    def say(self, text: str) -> None:
        # Past pytest's capturing, and in one piece: other processes write as well.
        os.write(sys.__stdout__.fileno(), f"\r[{self.name}] {text}\n".encode())  # type: ignore[union-attr]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("tests", nargs="*", help="files, folders or tests as pytest takes them; else all")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to search")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="one a core")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--examples", type=int, help="repeat one turn of so many examples, by its seed")
    parser.add_argument("--steps", type=int, default=50, help="of a state machine in that turn")
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process is None and options.examples is None and options.processes > 1:
        command = [sys.executable, __file__, *sys.argv[1:], "--seed", str(options.seed)]
        processes = [
            subprocess.Popen([*command, "--process", str(number)]) for number in range(options.processes)
        ]
        return max(process.wait() for process in processes)
    number = options.process or 0
    only = None if options.examples is None else Turn(options.seed, options.examples, options.steps)
    search = Search(options.minutes, options.seed + number, str(number), only)
    arguments = [
        "-q",
        "--no-header",
        "--tb=short",
        f"--timeout={_TIMEOUT_S}",
        "--hypothesis-profile=fuzz",
        "-p",
        "no:warnings",
    ]
    return int(pytest.main(["--rootdir", str(_ROOT), *arguments, *options.tests], plugins=[search]))


if __name__ == "__main__":
    sys.exit(main())
