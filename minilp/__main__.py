"""``python -m minilp``: the command line."""
import sys

from minilp.cli import main

sys.exit(main())
