"""``minilp experiment``: what its commands take, and what they print."""
from __future__ import annotations

import argparse
from collections.abc import Callable

import minilp
from minilp import figures
from minilp.experiments import finetune, lns_theory, torch_twin, update_bits, widths, widths_report


def _rate(text: str) -> tuple[str, float]:
    """``NAME=X``, a learning rate of one optimizer."""
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected NAME=X, such as sgd=0.1, got {text!r}") from None


def _widths(text: str) -> tuple[int, ...]:
    """``16,12,10``."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected integers with commas between, got {text!r}") from None


def _lns_theory(args: argparse.Namespace) -> int:
    print(lns_theory.table(lns_theory.update_errors(draws=args.draws, seed=args.seed)))
    return 0


def _torch_twin(args: argparse.Namespace) -> int:
    options = {key: value for key, value in vars(args).items() if key not in ("run", "set") and value is not None}
    found = torch_twin.train(**options, settings=args.set)
    print(f"test accuracy {found['test_acc']:.2%}")
    return 0


def _update_bits(args: argparse.Namespace) -> int:
    return _sweep(args, update_bits.Task())


def _finetune(args: argparse.Namespace) -> int:
    return _sweep(args, finetune.Task(args.path, args.pairs, args.batch_size, args.recipe, tuple(args.set)))


def _sweep(args: argparse.Namespace, task: widths.Trial) -> int:
    if args.threads is not None:
        minilp.set_num_threads(args.threads)
    record = widths.sweep(args.bits, task=task, rounding=args.rounding, seeds=range(args.seeds), rates=dict(args.lr),
                          json_file=args.json, say=lambda line: print(line, flush=True))
    print(f"\n{widths_report.table(record)}")
    if args.plot:
        print(f"plot: {args.plot}" if widths_report.plot(record, args.plot) else figures.MISSING)
    return 0


def add_arguments(sub: argparse.ArgumentParser, add_train: Callable[[argparse.ArgumentParser], None]) -> None:
    """Give a parser the experiments, a command each.

    Parameters
    ----------
    sub : argparse.ArgumentParser
        Of the command.
    add_train : callable
        Gives a parser the arguments of ``minilp train``.
    """
    which = sub.add_subparsers(title="experiments", required=True, metavar="EXPERIMENT")

    words = "LNS-Madam's theory: quantisation errors of three update rules, and their bounds."
    theory = which.add_parser("lns-theory", help=words, description=words, allow_abbrev=False)
    theory.set_defaults(run=_lns_theory)
    theory.add_argument("--draws", type=int, default=200, metavar="N", help="roundings of each step (default 200)")
    theory.add_argument("--seed", type=int, default=0, metavar="S", help="of weights, gradients and rounding")

    words = "A CIFAR ResNet trained by torch in float32: minilp's initial weights, batches and learning rates."
    twin = which.add_parser("torch-twin", help=words, description=words, allow_abbrev=False)
    twin.set_defaults(run=_torch_twin)
    add_train(twin)

    words = "Madam, SGD and AdamW on stored weights of 16 down to 10 bits, some minutes on one core: table and plot."
    bits = which.add_parser("update-bits", help=words, description=words, allow_abbrev=False)
    bits.set_defaults(run=_update_bits)
    _add_sweep(bits, "sgd=0.1")

    words = ("Madam and AdamW on stored weights of 16 down to 10 bits, from the checkpoint of a float32 translation "
             "on: table and plot.")
    tune = which.add_parser("finetune", help=words, description=words, allow_abbrev=False)
    tune.set_defaults(run=_finetune)
    tune.add_argument("path", metavar="RUN", help="a run directory, such as one of minilp train --data multi30k "
                      "--recipe fp32")
    tune.add_argument("--pairs", type=int, default=6000, metavar="N", help="training pairs of a run (default 6000)")
    tune.add_argument("--batch-size", type=int, default=2048, metavar="N", help="tokens a step (default 2048)")
    tune.add_argument("--recipe", default="lns-madam", metavar="NAME", help="whose contractions (default lns-madam)")
    tune.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the run's configuration, "
                      "such as data.source=de with data.target=en; may be repeated")
    _add_sweep(tune, "adamw=0.0001")


def _add_sweep(bits: argparse.ArgumentParser, example: str) -> None:
    bits.add_argument("--bits", type=_widths, default=(16, 15, 14, 13, 12, 11, 10), metavar="N,N,...",
                      help="widths of stored weights (default 16,15,...,10)")
    bits.add_argument("--rounding", choices=("stochastic", "nearest"), default="stochastic",
                      help="of updates (default stochastic)")
    bits.add_argument("--seeds", type=int, default=1, metavar="N",
                      help="runs of each, with seeds 0 to N-1 (default 1)")
    bits.add_argument("--lr", type=_rate, action="append", default=[], metavar="NAME=X",
                      help=f"learning rate of an optimizer, such as {example}, instead of the search's; may be "
                      "repeated")
    bits.add_argument("--json", metavar="FILE", help="record every run here; runs recorded already are not repeated")
    bits.add_argument("--plot", metavar="FILE", help="draw accuracy against bits (PNG)")
    bits.add_argument("--threads", type=int, metavar="N", help="threads of the C kernels; changes no number")
