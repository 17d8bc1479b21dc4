"""What training costs: operations counted as they are executed, or from shapes of layers and networks; then priced."""
from minilp.energy.counts import Counts, Unpriced
from minilp.energy.networks import available_networks, network
from minilp.energy.prices import PriceList, available_prices, load_prices
from minilp.energy.pricing import Priced, price
from minilp.energy.recorder import count
from minilp.energy.report import Report, report
from minilp.energy.shapecount import count_shapes
from minilp.energy.shapes import LayerShape
from minilp.energy.step import count_evaluation, count_named, count_training
from minilp.energy.trace import shapes_of

__all__ = ["Counts", "LayerShape", "PriceList", "Priced", "Report", "Unpriced", "available_networks",
           "available_prices", "count", "count_evaluation", "count_named", "count_shapes",
           "count_training", "load_prices", "network", "price",
           "report", "shapes_of"]
