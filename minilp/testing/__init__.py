"""The contract that every number format is held to: ``check_format(MyFormat())`` in your own test suite.

Each law is a small function below; one that fails says which law it is, what went in and what came out. A format that
breaks a law on purpose declares it by a class attribute (``symmetric = False`` and its like, see
:class:`minilp.formats.Format`).
"""
from minilp.testing import contract_laws, record_laws, stream_laws, value_laws
from minilp.testing.contract_laws import contractions
from minilp.testing.runner import LAWS, check_format

__all__ = ["LAWS", "check_format", "contract_laws", "contractions", "record_laws", "stream_laws", "value_laws"]
