"""Recorded trainings: plans of what to train, sweeps that train what is missing, the report of what came out."""
from minilp.results.plan import Plan, load_plan
from minilp.results.record import Record, read, record_name
from minilp.results.repeat import Repeat, repeated
from minilp.results.reporting import report
from minilp.results.sweeping import Sweep, sweep

__all__ = ["Plan", "Record", "Repeat", "Sweep", "load_plan", "read", "record_name", "repeated", "report", "sweep"]
