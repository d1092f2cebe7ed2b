"""The command line: python -m kit COMMAND. Each command imports what it needs when it is called."""

import argparse
import difflib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from kit import ROOT, __version__
from kit.signals import PREEMPTED


def main(arguments: Sequence[str] | None = None, *, root: Path = ROOT) -> int:
    """Run a command line and give its exit code; 2 stands for bad input, with a line for each.

    `root` is the folder of the notebooks and of relative paths.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal may know ASCII alone
    parser, commands = _parser()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in commands:
        close = difflib.get_close_matches(arguments[0], commands, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(commands)}"
        parser.error(f"{arguments[0]}: no such command; {hint}")
    options = parser.parse_args(arguments)
    try:
        found = options.call(options, root)
    except (ValueError, OSError) as error:
        return _say(str(error), 2)
    except ImportError as error:
        return _say(f"{error}; make setup installs what is needed", 2)
    if not callable(found):
        return found  # an exit code
    try:
        return found()  # what is left to do
    except OSError as error:  # such as a full disk
        return _say(str(error), 1)


def _say(error: str, code: int) -> int:
    print("\n".join(f"error: {line}" for line in error.splitlines()), file=sys.stderr)
    return code


def _parser() -> tuple[argparse.ArgumentParser, Sequence[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m kit", epilog="each command tells more: python -m kit run --help"
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND [OPTIONS]", required=True)

    def command(name, call, text):
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(call=call)
        return made

    run = command("run", _run, "execute the notebooks with the parameters of a recipe")
    run.add_argument("--only", metavar="02,03", help="only the notebooks that begin so")
    run.add_argument("--dry-run", action="store_true", help="only say what would be done")
    _add_prediction(command("predict", _predict, "say what is in photos, by a trained model"))
    show = command("params", _list, "print all parameters: value, source, meaning")
    differs = "print what differs between two folders of runs, or recipes"
    show.add_argument("--diff", "-d", nargs=2, metavar=("RUN_A", "RUN_B"), help=differs)
    command("recipes", _list, "list the recipes, and the accuracy that each published")
    doctor = command("doctor", _doctor, "can this machine train, and is it safe to?")
    _add_service(command("data-service", _serve, "decode images on this machine for a trainer"))
    for taker in (run, show, doctor):
        _add_parameters(taker)
    return parser, list(commands.choices)


def _add_prediction(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="an image, or a folder of them")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--run-dir", help="the folder of a training: its model is used")
    model.add_argument("--weights", help="published weights, such as torchvision_v2: 1,000 classes")
    help_ = "classes named per image (default 5)"
    parser.add_argument("--top-k", dest="count", type=int, default=5, metavar="K", help=help_)
    parser.add_argument("--json", action="store_true", help="print a list, with all digits")


class _Parameter(argparse.Action):
    """Take -p NAME VALUE or -p NAME=VALUE into a dict."""

    def __call__(self, parser, namespace, values, option_string=None):
        pair = values[0].split("=", 1) if len(values) == 1 else values
        if len(pair) != 2:
            parser.error(f"-p {' '.join(values)}: write -p NAME VALUE, a VALUE of words in quotes")
        given = getattr(namespace, self.dest) or {}
        setattr(namespace, self.dest, given | {pair[0]: pair[1]})


def _add_parameters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--recipe", help="a name of `recipes`, a YAML file of parameters, or params.yaml itself"
    )
    parser.add_argument(
        *("-p", "--parameter"),
        dest="parameters",
        action=_Parameter,
        nargs="+",
        default={},
        metavar=("NAME", "VALUE"),
        help="one parameter of params.yaml; can be given again",
    )


def _add_service(parser: argparse.ArgumentParser) -> None:
    parts = parser.add_subparsers(dest="part", required=True)
    dispatcher = parts.add_parser("dispatcher", help="deals the work; one of it")
    worker = parts.add_parser("worker", help="decodes; one a machine")
    worker.add_argument("--dispatcher", required=True, metavar="grpc://HOST:PORT")
    dispatcher.add_argument("--port", type=int, required=True)
    worker.add_argument("--port", type=int, default=0, help="default: any that is free")
    kept = "a folder that every worker sees: a restarted dispatcher goes on from there"
    dispatcher.add_argument("--work-dir", default="", help=kept)
    name = "name of this machine for the others that reach it"
    for part in (dispatcher, worker):
        part.add_argument("--host", default="localhost", help=name)


def _run(options, root) -> int:
    from kit.runner import run

    return run.run(options, root)


def _predict(options, root) -> int:
    """Print a line for each image: 1 when one cannot be read, else 0."""
    from kit.inference import predict

    files, skipped = predict.find(options.photos)
    model = predict.classifier(options.run_dir, options.weights, options.count)
    for line in model.passed + skipped:
        print(f"note: {line}", file=sys.stderr)
    found = []
    for answer in predict.answers(model, files, options.count):
        found.append(answer)
        if "problem" in answer:
            print(f"error: {predict.line(answer)}", file=sys.stderr)
        elif not options.json:
            print(predict.line(answer), flush=True)
    if options.json:
        print(json.dumps(found, indent=1))
    return int(any("problem" in answer for answer in found))


def _list(options, root) -> int:
    from kit.runner import listing

    if options.command == "recipes":
        lines = listing.recipes()
    elif options.diff:
        lines = listing.difference(*options.diff, root)
    else:
        lines = listing.parameters(options.recipe, options.parameters)
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:  # `head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _doctor(options, root) -> int:
    """Print a line for each thing that a training needs: 1 when one is a problem, else 0."""
    from kit import params
    from kit.doctor import checks

    run = params.load(options.recipe, options.parameters, folder=Path.cwd()).run
    states = []
    for line in checks.examine(run.run_dir, run.data_dir):
        print(f"{line.state:8} {line.text}", flush=True)
        states.append(line.state)
    return int("problem" in states)


def _serve(options, root) -> int:
    """Start a dispatcher or a worker of tf.data service, and stay until it is interrupted."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once: nothing is to be saved
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # decoding needs none, and a trainer may be beside
    from kit.pipeline import service

    given = {"port": options.port, "host": options.host}
    if options.part == "worker":
        running, lines = service.worker(dispatcher=options.dispatcher, **given)
    else:
        running, lines = service.dispatcher(work_dir=options.work_dir, **given)
    print("\n".join(lines), flush=True)
    running.join()
    return 0


def _preempted(number, frame):
    """End as a run does that SIGTERM stops later: the same command goes on from there."""
    sys.exit(PREEMPTED)


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        signal.signal(signal.SIGTERM, _preempted)
    sys.exit(main())
