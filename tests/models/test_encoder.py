"""The BERT-shaped encoder: its size, padding, heads, and a task that needs to look at neighbours."""
import numpy as np
import pytest

import minilp
from minilp import models, optim
from minilp.nn import functional as F

IDS = np.array([[5, 6, 7, 8], [9, 4, 0, 0]])


def build(**options):
    minilp.manual_seed(0)
    return models.build("encoder", **{"vocab_size": 20, "num_classes": 3, "d_model": 16, "nhead": 2,
                                      "dim_feedforward": 32, "max_len": 8, **options})


def test_parameters_of_bert_base():
    """Devlin et al.: 109,482,240 with the pooler and without a head, here at a tenth of the width and two layers."""
    h, layers, vocabulary, length = 48, 2, 100, 64
    model = models.build("encoder", vocab_size=vocabulary, num_classes=2, d_model=h, nhead=4, dim_feedforward=4 * h,
                         num_layers=layers, max_len=length)
    embeddings = (vocabulary + length + 2) * h + 2 * h
    expected = embeddings + layers * (12 * h * h + 13 * h) + h * h + h + 2 * h + 2
    assert sum(p.size for p in model.parameters()) == expected


def test_padding_and_heads():
    model = build().eval()
    logits = model(IDS)
    assert logits.shape == (2, 3)
    np.testing.assert_allclose(model(IDS[1:, :2]).data, logits.data[1:], rtol=1e-4, atol=1e-6)
    tokens = build(per_token=True).eval()(IDS)
    assert tokens.shape == (2, 4, 3) and not tokens.data[1, 2:].any() and tokens.data[1, :2].all()
    types = np.array([[0, 0, 1, 1], [0, 1, 0, 0]])
    assert not np.allclose(model(IDS, types).data, logits.data)


def test_learns_to_count_a_neighbour():
    """Is the first token repeated in the sentence? No token alone knows."""
    model, rng = build(num_classes=2, dropout=0.0), np.random.default_rng(0)
    optimizer = optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(400):
        ids = rng.integers(1, 6, (64, 4))
        label = (ids[:, 1:] == ids[:, :1]).any(1).astype(int)
        loss = F.cross_entropy(model(ids), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.3 < 0.6 < losses[0]


def test_errors_name_the_argument():
    for call, words in ((lambda: build()(np.array([[0, 5]])), "start of all"), (lambda: build()(IDS, IDS[:1]), "types"),
                        (lambda: build()(np.ones((1, 9), int)), "max_len")):
        with pytest.raises(ValueError, match=words):
            call()
