"""What training costs: shapes of layers and networks, counts, prices."""
from minilp.energy.networks import available_networks, network
from minilp.energy.shapes import LayerShape
from minilp.energy.trace import shapes_of

__all__ = ["LayerShape", "available_networks", "network", "shapes_of"]
