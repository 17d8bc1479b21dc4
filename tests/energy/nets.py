"""The CIFAR ResNets as shapes, written down beside the code that runs them, and one real step of such a network."""
import numpy as np

from minilp import models, nn, recipe, rounding_context
from minilp.autograd import Tensor
from minilp.energy import LayerShape, count
from minilp.energy.shapecount import default_optimizer


def resnet(depth=20, width=16, size=32, shortcut="B", classes=10):
    """A CIFAR ResNet as shapes."""
    layers = []

    def conv(name, i, o, kernel, stride, size_in):
        out = size_in // stride
        layers.append(LayerShape(name=name, kind="conv2d", in_channels=i, out_channels=o, kernel=(kernel, kernel),
                                 stride=(stride, stride), padding=(kernel // 2,) * 2, in_size=(size_in, size_in),
                                 out_size=(out, out), input_grad=bool(layers)))
        norm = name.replace("conv", "bn") if "conv" in name else name[:-1] + "1"
        layers.append(LayerShape(name=norm, kind="batch_norm", elements=o * out * out, features=o, bias=True))
        return out

    conv("conv1", 3, width, 3, 1, size)
    channels = width
    for stage in (1, 2, 3):
        for block in range((depth - 2) // 6):
            stride, out = (2, 2 * channels) if block == 0 and stage > 1 else (1, channels)
            name, before = f"layer{stage}.{block}", size
            size = conv(f"{name}.conv1", channels, out, 3, stride, before)
            conv(f"{name}.conv2", out, out, 3, 1, size)
            if stride > 1 and shortcut == "B":
                conv(f"{name}.shortcut.0", channels, out, 1, stride, before)
            channels = out
    layers.append(LayerShape(name="fc", kind="linear", in_features=channels, out_features=classes, bias=True))
    return layers


def counted_step(chosen, batch=2, size=32, optimizer=default_optimizer, **options):
    """Counts of one real training step, of one evaluation, and the model."""
    model = recipe.apply(chosen, models.build("resnet", **options)) if isinstance(chosen, str) else chosen.apply(
        models.build("resnet", **options))
    step = optimizer(list(model.parameters()))
    x, y = np.random.default_rng(0).standard_normal((batch, 3, size, size)).astype(np.float32), np.arange(batch) % 10
    with count(model) as training, rounding_context(0, 0):
        nn.functional.cross_entropy(model(Tensor(x)), y).backward()
        step.step()
    with count(model) as evaluation, rounding_context(0, 0):
        model.eval()(Tensor(x))
    return training, evaluation, model
