"""What training costs: shapes of layers and networks, counts, prices."""
from minilp.energy.networks import available_networks, network
from minilp.energy.shapes import LayerShape

__all__ = ["LayerShape", "available_networks", "network"]
