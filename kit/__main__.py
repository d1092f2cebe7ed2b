"""python -m kit: run the notebooks, ask the doctor, or start a part of a data service."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from kit import params
from kit.runner import run


def main(arguments: Sequence[str]) -> int:
    """Run the command that the arguments begin with; gives its exit code."""
    commands = {"data-service": serve, "doctor": diagnose}
    command = commands.get(arguments[0]) if arguments else None
    return command(arguments[1:]) if command else run.main(arguments)


def diagnose(arguments: Sequence[str]) -> int:
    """Say a line for each thing that a training needs: 1 when one is a problem, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m kit doctor", description="can this machine train, and is it safe to?"
    )
    run.add_parameter_options(parser)
    options = parser.parse_args(arguments)
    from kit.doctor import checks

    try:
        values = params.load(recipe=options.recipe, overrides=dict(options.parameters))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    states = []
    for line in checks.examine(run_dir=values["run_dir"], data_dir=values["data_dir"]):
        print(f"{line.state:8} {line.text}", flush=True)
        states.append(line.state)
    return int("problem" in states)


def serve(arguments: Sequence[str]) -> int:
    """Start a dispatcher or a worker of tf.data service, and stay until it is interrupted."""
    options = _service_parser().parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once: nothing is to be saved
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # decoding needs none, and a trainer may be beside
    from kit.pipeline import service

    settings = {name: value for name, value in vars(options).items() if name != "part"}
    try:
        running, lines = getattr(service, options.part)(**settings)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines), flush=True)
    running.join()
    return 0


def _service_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kit data-service")
    parts = parser.add_subparsers(dest="part", required=True)
    dispatcher = parts.add_parser("dispatcher", help="deals the work; one of it")
    worker = parts.add_parser("worker", help="decodes; one a machine")
    worker.add_argument("--dispatcher", required=True, metavar="grpc://HOST:PORT")
    dispatcher.add_argument("--port", type=int, required=True)
    worker.add_argument("--port", type=int, default=0, help="default: any that is free")
    dispatcher.add_argument(
        "--work-dir",
        default="",
        help="a folder that every worker sees: a restarted dispatcher goes on from there",
    )
    for part in (dispatcher, worker):
        part.add_argument(
            "--host", default="localhost", help="name of this machine for the others that reach it"
        )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
