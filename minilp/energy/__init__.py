"""What training costs: operations counted as they are executed, or from shapes alone; then priced."""
from minilp.energy.counts import Counts, Unpriced
from minilp.energy.recorder import count
from minilp.energy.shapecount import count_shapes
from minilp.energy.shapes import LayerShape

__all__ = ["Counts", "LayerShape", "Unpriced", "count", "count_shapes"]
