"""The arguments of ``minilp sweep`` and ``minilp results``."""
from __future__ import annotations

import argparse

from minilp import figures
from minilp.results import reporting, sweeping
from minilp.results.repeat import repeated
from minilp.results.summary import refresh


def add_sweep(sub: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of ``minilp sweep``; its namespace then has ``run``."""
    sub.add_argument("plan", metavar="PLAN", help="a JSON file that lists trainings, such as "
                     "lessons/plans/headline.json")
    sub.add_argument("--list", action="store_true", help="train nothing; say what is recorded and what is missing")
    sub.add_argument("--results", default=sweeping.RESULTS, metavar="DIR",
                     help=f"folder of the records (default {sweeping.RESULTS})")
    sub.add_argument("--runs", default=sweeping.RUNS, metavar="DIR", help="where run directories are (default runs)")
    sub.add_argument("--jobs", type=int, default=1, metavar="N", help="trainings at a time (default 1)")
    sub.add_argument("--threads", type=int, metavar="M", help="of each (default all, shared by the jobs); changes no "
                     "number")
    sub.add_argument("--root", metavar="DIR", help="folder of the data sets")
    sub.set_defaults(run=_sweep)


def add_results(sub: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of ``minilp results``; its namespace then has ``run``."""
    sub.add_argument("--results", default=sweeping.RESULTS, metavar="DIR",
                     help=f"folder of the records (default {sweeping.RESULTS})")
    sub.add_argument("--plans", default=reporting.PLANS, metavar="DIR",
                     help=f"folder of the plans (default {reporting.PLANS})")
    sub.add_argument("--repeated", nargs="+", metavar="RUN", help="write nothing; say whether these finished trainings "
                     "gave the numbers that are recorded for their configurations, to the last digit")
    sub.add_argument("--readme", metavar="FILE", help="also write the tables anew that stand in this file between "
                     "'<!-- minilp results: PLAN -->' and '<!-- end -->'")
    sub.set_defaults(run=_results)


def _sweep(args: argparse.Namespace) -> int:
    found = sweeping.sweep(args.plan, results=args.results, runs=args.runs, jobs=args.jobs, threads=args.threads,
                           root=args.root, only_list=args.list)
    print(found)
    return 1 if found.failed else 0


def _results(args: argparse.Namespace) -> int:
    if args.repeated:
        found = [repeated(run, args.results) for run in args.repeated]
        print(*found, sep="\n")
        return 0 if all(found) else 1
    print(f"wrote {reporting.report(args.results, args.plans)}")
    if args.readme:
        print(f"wrote {refresh(args.readme, args.results, args.plans)}")
    if not figures.available():
        print(figures.MISSING)
    return 0
