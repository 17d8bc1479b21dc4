"""What training costs: operations counted as they are executed, or from shapes of layers and networks; prices."""
from minilp.energy.counts import Counts, Unpriced
from minilp.energy.networks import available_networks, network
from minilp.energy.recorder import count
from minilp.energy.shapecount import count_shapes
from minilp.energy.shapes import LayerShape
from minilp.energy.trace import shapes_of

__all__ = ["Counts", "LayerShape", "Unpriced", "available_networks", "count", "count_shapes", "network", "shapes_of"]
