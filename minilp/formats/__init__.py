"""Number formats: real numbers to integer codes and back. Knows nothing of autograd."""
from minilp.formats.base import Format, available
from minilp.formats.fixed import Fixed
from minilp.formats.lns import LNS
from minilp.formats.minifloat import Minifloat
from minilp.formats.mls import MLS
from minilp.formats.mx import MX
from minilp.formats.pot import PoT
from minilp.formats.qtensor import QTensor
from minilp.formats.rounding import Stream
from minilp.formats.spec import Spec
from minilp.kernels.quantise import NotFiniteError, absmax

__all__ = ["LNS", "MLS", "MX", "Fixed", "Format", "Minifloat", "NotFiniteError", "PoT", "QTensor", "Spec", "Stream",
           "absmax", "available"]
