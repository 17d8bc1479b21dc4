"""How narrow may stored weights be? Madam against SGD and AdamW, all with the same quantised update.

After the update-bit-width figure of LNS-Madam (Zhao et al., arXiv 2106.13914), whose widths are 16 to 10 bits. The task
is our own and much smaller: a small CNN on some of shapes10's images. Weights live between steps as B_U-bit logarithmic
numbers over the same octaves (``gamma_U = gamma 2^(B_U - B)``); every optimizer's result is rounded back to them, and
there is no float copy. Our assumptions, the same for all optimizers:

* rounding of the exponent (``LNS(draw="exponent")``), stochastic by default, or to nearest;
* weights live as codes in every layer, norms and biases included; SGD's and AdamW's scales follow each tensor's
  maximum, Madam's are fixed at the start (its bound on weights);
* momentum and second moments are float32;
* the schedule is one cycle that peaks after three tenths of the steps, Madam's too;
* the learning rate is the best of a search at 16 bits (:func:`search`), or given, and the same for all widths.

The column float32 has float32 weights and everything else alike; Madam's normalised gradients are then not rounded to
integers, so that it is the limit of many bits.

What came out (``lessons/results/update-bits-*.json``; one seed, and neighbouring widths differ by up to three points
without any order): the paper's advantage of Madam does not show here. At the best learning rates no optimizer loses
anything between 16 and 10 bits under stochastic rounding, and Madam is some 14 points behind both at every width. At
small rates (the file ``-slow``), the same under stochastic rounding; to nearest, SGD loses 11 points at 10 bits, Madam
3 and AdamW nothing. The likely reasons, our own reading:

* A few hundred steps from scratch have to move weights by as much as they measure. Such steps are not small beside the
  gap of 10 bits, 2^(1/32) or 2.2 %, and stochastic rounding keeps their mean. In the paper's figure AdamW collapses in
  fine-tuning, where steps are far below a gap; this task has none.
* For the same reason Madam's own error is not small here: the theory's bound (:mod:`~minilp.experiments.lns_theory`)
  favours it only where ``lr * gamma_U`` is well below 1, and at 10 bits that is 4 at its best rate, 1 at the small one.
* SGD's steps differ in size from weight to weight, AdamW's are normalised like Madam's: to nearest, the smallest of
  SGD's are lost first.
"""
from __future__ import annotations

from dataclasses import dataclass

from minilp import data
from minilp.experiments.widths import Trial, update_settings
from minilp.training import TrainConfig
from minilp.training.session import Session
from minilp.training.task import BatchLoader


@dataclass(frozen=True)
class Task(Trial):
    """What is trained, apart from the optimizer and the width of its updates.

    Attributes
    ----------
    train_images, test_images : int
        The first so many images of shapes10 (seed 0).
    epochs, batch_size : int
        Passes over the training images; images a step. The schedule is one cycle.
    width : int
        Channels of ``small_cnn``'s first convolution.
    recipe : str
        A preset with an ``update`` of LNS: its contractions are used with every optimizer.
    """

    train_images: int = 2000
    test_images: int = 2000
    epochs: int = 6
    batch_size: int = 32
    width: int = 8
    recipe: str = "lns-madam"
    start = {"madam": 2.0**-4, "sgd": 0.1, "adamw": 0.005}

    def config(self, optimizer: str, lr: float, bits: int | None, rounding: str | None, seed: int) -> TrainConfig:
        """The configuration of one run; ``bits`` None is float32 weights. Raises ValueError as TrainConfig does."""
        return TrainConfig.create("shapes10", "small_cnn", self.recipe, optimizer=optimizer, lr=lr, seed=seed,
                                  epochs=self.epochs, batch_size=self.batch_size,
                                  settings=[f"model.width={self.width}", "schedule.pct_start=0.3",
                                            *update_settings(optimizer, bits, rounding)])

    def begin(self, config: TrainConfig) -> tuple[Session, BatchLoader]:
        """See :meth:`Trial.begin`."""
        train, test = data.shapes10.load(0, self.train_images, self.test_images)
        return Session(config, train), config.task.loader(config, test, training=False)
