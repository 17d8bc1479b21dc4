"""VGG: its size, and one whole training step equal to torch's."""
import numpy as np
import pytest

import minilp
from minilp import models, optim
from minilp.autograd import Tensor, no_grad
from minilp.energy import shapes_of
from minilp.nn import functional as F


@pytest.mark.parametrize(("width", "parameters", "macs"), [(64, 9_228_362, 152_769_536), (16, 579_098, 9_880_832)])
def test_size(width, parameters, macs):
    model = models.build("vgg11", width=width)
    assert sum(p.size for p in model.parameters()) == parameters
    assert sum(shape.macs for shape in shapes_of(model, (3, 32, 32))) == macs


def torch_vgg(torch, width):
    """The same network, written with torch's own layers from the list in the publication's table."""
    t, layers, inputs = torch.nn, [], 3
    for entry in (1, "M", 2, "M", 4, 4, "M", 8, 8, "M", 8, 8, "M"):
        if entry == "M":
            layers.append(t.MaxPool2d(2))
        else:
            layers.append(t.Conv2d(inputs, entry * width, 3, padding=1, bias=False))
            layers.append(t.Sequential(t.BatchNorm2d(entry * width), t.ReLU()))
            inputs = entry * width

    class Net(t.Module):
        def __init__(self):
            super().__init__()
            self.features, self.fc = t.Sequential(*layers), t.Linear(inputs, 10)

        def forward(self, x):
            return self.fc(self.features(x).flatten(1))

    return Net()


def test_a_whole_step_equals_torch(torch):
    """Logits, loss, parameters and statistics after a step, and evaluation, in float64."""
    minilp.manual_seed(0)
    ours, theirs = models.build("vgg11", width=4), torch_vgg(torch, 4)
    # torch's batch norm stands in a Sequential with its ReLU: features.1.0.weight for our features.1.weight.
    names = dict(zip(ours.state_dict(), theirs.state_dict(), strict=True))
    assert all(theirs_name.replace(".0.", ".") == name or name.startswith("features.0.")
               for name, theirs_name in names.items())
    theirs.load_state_dict({names[name]: torch.as_tensor(array) for name, array in ours.state_dict().items()})
    ours.to("float64")
    theirs.double()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 3, 32, 32)), rng.integers(0, 10, 6)
    settings = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
    a, b = optim.SGD(ours.parameters(), **settings), torch.optim.SGD(theirs.parameters(), **settings)
    logits, torch_logits = ours(Tensor(x)), theirs(torch.tensor(x))
    loss, torch_loss = F.cross_entropy(logits, y), torch.nn.functional.cross_entropy(torch_logits, torch.tensor(y))
    loss.backward()
    torch_loss.backward()
    a.step()
    b.step()
    np.testing.assert_allclose(logits.data, torch_logits.detach().numpy(), rtol=1e-9, atol=1e-9)
    assert loss.item() == pytest.approx(torch_loss.item(), rel=1e-11)
    state = theirs.state_dict()
    for name, array in ours.state_dict().items():
        np.testing.assert_allclose(array, state[names[name]].numpy(), rtol=1e-8, atol=1e-9, err_msg=name)
    ours.eval()
    theirs.eval()
    with no_grad(), torch.no_grad():
        np.testing.assert_allclose(ours(Tensor(x)).data, theirs(torch.tensor(x)).numpy(), rtol=1e-8, atol=1e-9)
