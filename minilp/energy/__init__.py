"""What training costs: shapes of layers and networks, counts, prices."""
from minilp.energy.shapes import LayerShape

__all__ = ["LayerShape"]
