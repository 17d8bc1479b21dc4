"""The arguments of ``minilp bench``, and what it prints and writes."""
from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from minilp import figures
from minilp.bench import imports, kernels, quantise, scale, step
from minilp.kernels.backend import FAMILIES, TIERS

Rows = list[dict[str, Any]]


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected an integer, got {text!r}") from None


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Give the parser of ``minilp bench`` its measurements, each with its arguments.

    Parameters
    ----------
    sub : argparse.ArgumentParser
        Of the command; a chosen measurement sets ``run``, which returns the exit code.
    """
    which = sub.add_subparsers(title="measurements", required=True, metavar="MEASUREMENT")

    def add(name: str, module: Any, words: str,
            measure: Callable[[argparse.Namespace], Rows]) -> argparse.ArgumentParser:
        def run(args: argparse.Namespace) -> int:
            rows = measure(args)
            print(module.table(rows))
            if args.json:
                path = pathlib.Path(args.json)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(rows, indent=1) + "\n")
            if args.plot:
                print(f"plot: {args.plot}" if module.plot(rows, args.plot) else figures.MISSING)
            return 0

        parser = which.add_parser(name, help=words, description=words, allow_abbrev=False)
        parser.set_defaults(run=run)
        parser.add_argument("--json", metavar="FILE", help="write the rows here too, a list of objects")
        parser.add_argument("--plot", metavar="FILE", help="draw them (PNG)")
        return parser

    found = add("step", step, "Whole training steps, interleaved, against torch where it is installed.", _step)
    found.add_argument("--model", action="append", metavar="NAME", help="may be repeated (default resnet20)")
    _recipes(found, "fp32 and potq")
    _set(found)
    _tiers(found)
    found.add_argument("--rival", action="append", choices=step.RIVALS, metavar="NAME",
                       help=f"of torch: {', '.join(step.RIVALS)}; may be repeated (default eager)")
    found.add_argument("--no-rival", action="store_true", help="leave torch out where it is installed")
    _number(found, "--batch-size", 128, "images a step")
    _number(found, "--steps", 31, "rounds that count")
    _number(found, "--threads", 2, "threads of each system")
    found.add_argument("--profile", action="store_true", help="also: which part and kernel takes which share of a step")

    found = add("kernels", kernels, "Contractions alone: GMAC/s of each kernel, against the machine's measured peak "
                "and NumPy's sgemm.", _kernels)
    found.add_argument("--format", action="append", metavar="FORMAT",
                       help=f"fp32, or as for explain; may be repeated (default {', '.join(kernels.FORMATS)})")
    found.add_argument("--kind", action="append", choices=kernels.KINDS, metavar="KIND",
                       help=f"{', '.join(kernels.KINDS)}; may be repeated (default all)")
    found.add_argument("--shape", action="append", metavar="NAME",
                       help=f"{', '.join(kernels.SHAPES)}, or all; may be repeated (default the first three)")
    _tiers(found)
    _number(found, "--batch-size", 128, "images")
    _number(found, "--rounds", 7, "rounds that count")
    _number(found, "--threads", 1, "threads of ours and of NumPy's")

    found = add("scale", scale, "How the time of a step grows with batch, depth and width.", _scale)
    found.add_argument("--series", action="append", choices=scale.SERIES, metavar="NAME",
                       help=f"{', '.join(scale.SERIES)}; may be repeated (default all)")
    _recipes(found, "potq")
    _set(found)
    _number(found, "--batch-size", 128, "images a step, where depth or width grows")
    _number(found, "--steps", 11, "rounds that count")
    _number(found, "--threads", 2, "threads of each system")

    found = add("quantise", quantise, "Encoding and decoding alone: GB/s of float32, against a copy.", _quantise)
    found.add_argument("--format", action="append", metavar="FORMAT",
                       help=f"as for explain; may be repeated (default {', '.join(quantise.FORMATS)})")
    _tiers(found, families=False)
    _number(found, "--batch-size", 128, "images of 16 maps of 32 x 32")
    _number(found, "--rounds", 7, "rounds that count")
    _number(found, "--threads", 1, "threads of ours")

    found = add("import", imports, "Starting Python and importing minilp, against importing NumPy.", _import)
    _number(found, "--rounds", 31, "rounds that count")


def _number(sub: argparse.ArgumentParser, name: str, default: int, words: str) -> None:
    sub.add_argument(name, type=_whole, default=default, metavar="N", help=f"{words} (default {default})")


def _recipes(sub: argparse.ArgumentParser, default: str) -> None:
    sub.add_argument("--recipe", action="append", metavar="RECIPE[:KEY=VALUE,...]",
                     help=f"with settings of its own, such as potq:pot.bits=4; may be repeated (default {default})")


def _set(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                     help="change every recipe, as for train, such as pot.bits=4; may be repeated")


def _tiers(sub: argparse.ArgumentParser, families: bool = True) -> None:
    sub.add_argument("--isa", action="append", choices=("auto", *TIERS), metavar="TIER",
                     help=f"force {', '.join(TIERS)}; may be repeated (default auto, the best)")
    if families:
        sub.add_argument("--kernels", action="append", choices=FAMILIES, metavar="FAMILY",
                         help="shift (no multiply instruction) or emulate; may be repeated (default auto, the faster)")


def _given(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """The repeatable options that were given; the others keep the function's default."""
    plural = {"model": "models", "recipe": "recipes", "isa": "isas", "kernels": "kernels", "format": "formats",
              "kind": "kinds", "shape": "shapes", "series": "series", "rival": "rivals"}
    return {plural[name]: tuple(getattr(args, name)) for name in names if getattr(args, name) is not None}


def _step(args: argparse.Namespace) -> Rows:
    given = _given(args, ("model", "recipe", "isa", "kernels", "rival"))
    if args.no_rival:
        given["rivals"] = ()
    return step.bench_step(**given, settings=tuple(args.set), batch_size=args.batch_size, steps=args.steps,
                           threads=args.threads, profile=args.profile)


def _kernels(args: argparse.Namespace) -> Rows:
    return kernels.bench_kernels(**_given(args, ("format", "kind", "shape", "isa", "kernels")),
                                 batch_size=args.batch_size, rounds=args.rounds, threads=args.threads)


def _scale(args: argparse.Namespace) -> Rows:
    return scale.bench_scale(**_given(args, ("series", "recipe")), settings=tuple(args.set),
                             batch_size=args.batch_size, steps=args.steps, threads=args.threads)


def _quantise(args: argparse.Namespace) -> Rows:
    return quantise.bench_quantise(**_given(args, ("format", "isa")), batch_size=args.batch_size, rounds=args.rounds,
                                   threads=args.threads)


def _import(args: argparse.Namespace) -> Rows:
    return imports.bench_import(rounds=args.rounds)
