"""``minilp energy``: its arguments, and what it prints."""
from __future__ import annotations

import argparse

from minilp import figures
from minilp import recipe as recipes
from minilp.energy import papers
from minilp.energy.plot import plot
from minilp.energy.prices import DEFAULT, available_prices
from minilp.energy.report import report
from minilp.settings import change


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Give a parser the command's arguments.

    Parameters
    ----------
    sub : argparse.ArgumentParser
        Of the command.
    """
    sub.add_argument("--model", metavar="NAME", help="a model that runs (a real step is counted; default resnet20), or "
                     "the shapes of alexnet, vgg16, googlenet, resnet18 to resnet101, transformer_base, bert_base, ...")
    sub.add_argument("--recipe", default="potq", metavar="NAME", help=f"one of {', '.join(recipes.PRESETS)} (potq)")
    sub.add_argument("--batch-size", type=int, default=128, metavar="N", help="images a step (default 128)")
    sub.add_argument("--prices", default=DEFAULT, metavar="NAME|FILE",
                     help=f"one of {', '.join(available_prices())}, or a JSON file of your own (default {DEFAULT})")
    sub.add_argument("--memory", action="store_true", help="price memory traffic too; the papers' figures exclude it")
    sub.add_argument("--paper", choices=("potq", "mls", "lns-madam"), help="the paper's own accounting beside ours")
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                     help="change the recipe, or the model by model.KEY=VALUE; may be repeated")
    sub.add_argument("--plot", metavar="FILE", help="draw the recipes side by side (PNG)")
    sub.add_argument("--json", metavar="FILE", help="write everything here too")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code.

    Parameters
    ----------
    args : argparse.Namespace
        See :func:`add_arguments`.
    """
    if args.paper:
        if args.json or args.plot:
            raise ValueError("paper: prints a text; --json and --plot belong to the report without --paper")
        _, options = change(recipes.get(args.recipe), args.set, ["model"])
        print(papers.describe(args.paper, args.model, options["model"]))
        return 0
    found = report(args.model or "resnet20", args.recipe, args.set, batch_size=args.batch_size, prices=args.prices,
                   memory=args.memory)
    print(found)
    if args.json:
        found.write_json(args.json)
    if args.plot:
        done = plot(found, args.plot)
        print(f"\nplot: {args.plot}" if done else f"\n{figures.MISSING}")
    return 0
