"""The command line. Every command is a function that Python users can call; here its arguments are read and it speaks.

Exit codes: 0 done, 1 the work failed (a diverged training, a download that broke), 2 a wrong argument, 130 Ctrl-C.
"""
from __future__ import annotations

import argparse
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Sequence

import minilp
from minilp import data, figures, models, recipe, report, training
from minilp.bench import cli as bench_cli
from minilp.energy import command as energy_command
from minilp.experiments import command as experiments_command
from minilp.results import command as results_command


def _number(kind: Callable[[str], float], words: str) -> Callable[[str], float]:
    """An argparse type whose error says what was expected."""
    def convert(text: str) -> float:
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {words}, got {text!r}") from None
    return convert


WHOLE, REAL = _number(int, "an integer"), _number(float, "a number")
ROOT = "folder of the data sets (default $MINILP_DATA, else ~/.cache/minilp)"
THREADS = "threads of the C kernels; changes no number (of NumPy's float32 products: OPENBLAS_NUM_THREADS=N)"


def _train(args: argparse.Namespace) -> int:
    options = {key: value for key, value in vars(args).items() if key not in ("run", "set")}
    training.train(**options, settings=args.set)
    return 0


def _eval(args: argparse.Namespace) -> int:
    if args.threads is not None:
        minilp.set_num_threads(args.threads)
    found = training.evaluate(args.path, root=args.root)
    print(f"{args.path}: {found}")
    return 0


def _translate(args: argparse.Namespace) -> int:
    if args.threads is not None:
        minilp.set_num_threads(args.threads)
    given = args.sentences or [line.rstrip("\n") for line in sys.stdin]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", UserWarning)
        found = training.translate(args.path, given, beam=args.beam, length_penalty=args.length_penalty)
    for warning in seen:
        print(f"minilp: {warning.message}", file=sys.stderr)
    print("\n".join(found))
    return 0


def _compare(args: argparse.Namespace) -> int:
    found = training.compare(args.paths, plot=args.plot)
    print(found)
    print(f"plot: {found.plot}" if found.plot else figures.MISSING)
    return 0


def _explain(args: argparse.Namespace) -> int:
    print(report.explain(args.format, args.a, args.b))
    return 0


def _formats(args: argparse.Namespace) -> int:
    if args.model is None:
        print(report.formats())
    else:
        print(training.inspect_recipe(args.model, args.recipe, args.set, batch_size=args.batch_size).groupings())
    return 0


def _inspect(args: argparse.Namespace) -> int:
    if args.threads is not None:
        minilp.set_num_threads(args.threads)
    found = training.inspect(args.path, recipe=args.recipe, settings=args.set, batches=args.batches, layer=args.layer,
                             root=args.root)
    print(f"{found}\n\n{found.histograms()}")
    if args.json:
        pathlib.Path(args.json).write_text(found.to_json())
    if args.plot:
        print(f"plot: {args.plot}" if found.plot(args.plot) else figures.MISSING)
    return 0


def _data(args: argparse.Namespace) -> int:
    try:
        print(data.describe(args.name, args.root))
    except FileNotFoundError:
        if args.name != "cifar10":
            raise
        data.cifar10.download(args.root, layout=args.layout)
        print(data.describe(args.name, args.root))
    return 0


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line.

    Returns
    -------
    argparse.ArgumentParser
        Its namespace has ``run``, the function of the chosen command.
    """
    top = argparse.ArgumentParser(prog="minilp", description="Train networks on low-bit numbers.")
    top.add_argument("--version", action="version", version=f"minilp {minilp.__version__} ({minilp.backend()})")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int] | None, words: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=words, description=words, allow_abbrev=False)
        if run is not None:  # else its own commands have one each
            sub.set_defaults(run=run)
        return sub

    _add_train(command("train", _train, "Train a model; without arguments small_cnn with potq on shapes10."))

    results_command.add_sweep(command("sweep", None, "Train what a plan lists and is not recorded yet; may be cut off "
                                      "at any moment and goes on where it was."))
    results_command.add_results(command("results", None, "Write RESULTS.md and its pictures from the recorded "
                                        "trainings."))

    sub = command("eval", _eval, "Evaluate a run's checkpoint on the test images.")
    sub.add_argument("path", metavar="RUN", help="a run directory, such as runs/NAME")
    sub.add_argument("--root", metavar="DIR", help="folder of the data sets, if not the one of the training")
    sub.add_argument("--threads", type=WHOLE, metavar="N", help=THREADS)

    sub = command("translate", _translate, "Translate sentences with the model of a run, one a line.")
    sub.add_argument("path", metavar="RUN", help="a run directory of a translation, such as runs/NAME")
    sub.add_argument("sentences", nargs="*", metavar="SENTENCE", help="what to translate (default: lines of stdin)")
    sub.add_argument("--beam", type=WHOLE, default=1, metavar="N", help="translations followed at once (1: greedy)")
    sub.add_argument("--length-penalty", type=REAL, default=1.0, metavar="X", help="of a beam (default 1)")
    sub.add_argument("--threads", type=WHOLE, metavar="N", help=THREADS)

    sub = command("compare", _compare, "Put runs side by side: one table and one plot.")
    sub.add_argument("paths", nargs="+", metavar="RUN", help="run directories; gaps are against the first")
    sub.add_argument("--plot", default="compare.png", metavar="FILE", help="picture of the curves (compare.png)")

    sub = command("explain", _explain, "One multiply-accumulate, field by field.")
    sub.add_argument("format", metavar="FORMAT", help="a format such as pot or pot:bits=4, or a recipe such as potq")
    sub.add_argument("a", type=REAL, help="first factor")
    sub.add_argument("b", type=REAL, help="second factor")

    _add_inspect(command("inspect", _inspect, "What a run's recipe does to its own numbers, per layer and role: "
                         "relative error (ARE), zeros, saturation, groups, histograms. Writes only what is asked for."))

    sub = command("formats", _formats, "Every format: bits, levels, range, scale, source; or with --model, what shares "
                  "a scale in each of its layers, and what scales cost.")
    sub.add_argument("--model", choices=models.available(), metavar="NAME", help="such as resnet20")
    sub.add_argument("--recipe", default="mls", metavar="NAME", help="whose formats code the model (default mls)")
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe, as for train")
    sub.add_argument("--batch-size", type=WHOLE, default=8, metavar="N", help="random images of 32 x 32 (default 8)")

    sub = command("data", _data, "Describe a data set; a missing cifar10 is downloaded (resumable) and checked.")
    sub.add_argument("name", metavar="NAME", help="cifar10, shapes10, multi30k, numbers, or the path of a folder or "
                     ".npz file")
    sub.add_argument("--root", metavar="DIR", help=ROOT)
    sub.add_argument("--layout", choices=("binary", "python"), default="binary",
                     help="which CIFAR-10 archive to download (default binary)")

    bench_cli.add_arguments(command("bench", None, "Speed, measured side by side: whole steps, kernels, scaling, "
                                    "quantising, importing."))

    energy_command.add_arguments(command("energy", energy_command.run, "Operations and energy of one training step, "
                                         "per layer and role, beside fp32 and fp8; the source of every price."))

    experiments_command.add_arguments(command("experiment", None, "Small experiments behind claims of the papers."),
                                      _add_train)
    return top


def _add_inspect(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("path", metavar="RUN", help="a run directory, such as runs/NAME")
    sub.add_argument("--recipe", metavar="NAME", help="what would another recipe's formats do to the same tensors?")
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                     help="change that recipe, by default the run's own, such as mls.group=n; may be repeated")
    sub.add_argument("--batches", type=WHOLE, default=1, metavar="N", help="training batches to measure (default 1)")
    sub.add_argument("--layer", default="*", metavar="PATTERN", help="only these layers, such as 'layer1.*'")
    sub.add_argument("--json", metavar="FILE", help="write all of it here too")
    sub.add_argument("--plot", metavar="FILE", help="draw the histograms (PNG)")
    sub.add_argument("--root", metavar="DIR", help="folder of the data sets, if not the one of the training")
    sub.add_argument("--threads", type=WHOLE, metavar="N", help=THREADS)


def _add_train(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--data", metavar="NAME", help="shapes10 (default), cifar10, or the path of a folder or .npz "
                     "file; multi30k or numbers to translate")
    sub.add_argument("--model", metavar="NAME", help="small_cnn (default), resnet20, resnet32, ..., vgg11; "
                     "transformer for sentences")
    sub.add_argument("--recipe", metavar="NAME", help=f"potq (default); one of {', '.join(recipe.PRESETS)}")
    sub.add_argument("--epochs", type=WHOLE, metavar="N", help="passes over the training data")
    sub.add_argument("--batch-size", type=WHOLE, metavar="N", help="images a batch, in evaluation too; of sentences, "
                     "tokens on either side with padding")
    sub.add_argument("--accumulate", type=WHOLE, metavar="N", help="batches whose gradients make one step (default 1)")
    sub.add_argument("--optimizer", metavar="NAME", help="sgd, adamw or madam (default sgd; adamw for sentences; madam "
                     "for lns-madam)")
    sub.add_argument("--lr", type=REAL, metavar="X", help="learning rate (the peak of a one-cycle schedule)")
    sub.add_argument("--momentum", type=REAL, metavar="X", help="of sgd, Nesterov's (default 0.9)")
    sub.add_argument("--weight-decay", type=REAL, metavar="X", help="default 5e-4 (sgd), 1e-2 (adamw), 0 (madam)")
    sub.add_argument("--schedule", metavar="NAME", help="onecycle (default), cosine, step, inverse_sqrt (default "
                     "of multi30k) or constant")
    sub.add_argument("--label-smoothing", type=REAL, metavar="X", help="share of the target spread over all classes "
                     "(default 0; 0.1 for multi30k)")
    sub.add_argument("--train-images", type=WHOLE, metavar="N", help="train on N of the training images, the same for "
                     "every seed (default all)")
    sub.add_argument("--augment", metavar="NAME", help="none or crop_flip (default for cifar10)")
    sub.add_argument("--seed", type=WHOLE, metavar="S", help="of everything random (default 0)")
    sub.add_argument("--init", metavar="RUN", help="begin with the weights that another run ended with, of any recipe")
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                     help="change the recipe, model, optimizer or schedule, such as act.bits=4, mls.group=n, "
                          "model.shortcut=A, schedule.pct_start=0.1, "
                          "data.vocab_size=8000, decode.beam_size=4; may be repeated")
    sub.add_argument("--threads", type=WHOLE, metavar="N", help=THREADS)
    sub.add_argument("--root", metavar="DIR", help=ROOT)
    sub.add_argument("--out", metavar="DIR", help="run directory (default runs/<data>-<model>-<recipe>-s<seed>)")
    sub.add_argument("--resume", action="store_true", help="continue the unfinished run in --out, or the latest one")
    sub.add_argument("--save-every", type=WHOLE, metavar="N",
                     help="a checkpoint every N steps, besides those at the ends of epochs")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; default those of the process.

    Returns
    -------
    int
        The exit code.
    """
    args = parser().parse_args(argv)
    try:
        status = args.run(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of a pipe has seen enough, as in `minilp formats | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to flush at exit
        return 1  # silently, but not as done: it may have been a training
    except KeyboardInterrupt as stop:
        print(f"minilp: {str(stop) or 'stopped'}", file=sys.stderr)
        return 130
    except (ValueError, FileNotFoundError, ImportError) as error:
        print(f"minilp: error: {error}", file=sys.stderr)
        return 2
    except (training.Diverged, OSError) as error:
        print(f"minilp: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
