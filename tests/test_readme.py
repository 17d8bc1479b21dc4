"""What the README's examples show is what happens."""
import pathlib
import re

import numpy as np
import pytest

from minilp import PoT, models, nn, optim, recipe, testing
from minilp.autograd import Tensor
from minilp.recipe import Recipe

README = pathlib.Path(__file__).resolve().parent.parent / "README.md"


@pytest.fixture(scope="module")
def blocks():
    """The README's Python blocks."""
    return re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)


@pytest.fixture(scope="module")
def text():
    return README.read_text()


def test_the_first_example_prints_what_it_says(blocks, capsys):
    exec(compile(blocks[0], "README.md", "exec"), {})
    printed = capsys.readouterr().out.split("\n")
    shown = [line.split("# ", 1)[1] for line in blocks[0].splitlines() if line.startswith("print")]
    for promised, got in zip(shown, printed, strict=False):
        assert promised.startswith(got), (promised, got)
    assert len(printed) == len(shown) + 1


def test_the_readmes_own_format_keeps_the_laws_and_trains(blocks):
    (block,) = [b for b in blocks if "class Ternary" in b]
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    ternary = names["Ternary"]()
    testing.check_format(ternary)
    model = recipe.apply(Recipe(weight=ternary), models.build("small_cnn"))
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, y = np.random.default_rng(0).standard_normal((16, 3, 16, 16)).astype(np.float32), np.arange(16) % 10
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(Tensor(x)), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0], losses


def test_the_readmes_loop_names_things_that_exist(blocks):
    (block,) = [b for b in blocks if "Loader" in b]
    shortened = block.replace("resnet20", "small_cnn").replace("optimizer.step()", "optimizer.step()\n    break")
    names: dict = {}
    exec(compile(shortened, "README.md", "exec"), names)
    assert np.isfinite(names["loss"].item())


def test_errors_of_ten_equal_probabilities_no_longer_sum_to_nought(text):
    errors = np.full((1, 10), 0.1, np.float32)
    errors[0, 3] = -0.9
    rounded = PoT(5).encode(errors).decode()
    assert rounded[0, 3] == -1 and (np.delete(rounded[0], 3) == 0.125).all()
    assert "give nine errors of 0.125 against one of -1" in " ".join(text.split())


def test_powers_of_two_are_off_by_a_fifth(text):
    x = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    relative = np.linalg.norm(PoT(5).encode(x).decode() - x) / np.linalg.norm(x)
    assert relative == pytest.approx(0.2, abs=0.01)
    assert "off by a fifth (root mean square)" in " ".join(text.split())


def test_the_energy_example_prints_what_it_says(blocks, capsys):
    (block,) = [b for b in blocks if "energy.count" in b]
    exec(compile(block, "README.md", "exec"), {})
    shown = [line.split("# ", 1)[1] for line in block.splitlines() if line.startswith("print")]
    assert capsys.readouterr().out.split() == shown
