"""Transformers: totals against the publications, our own formula and torch's layers and counters."""
import re

import pytest

from minilp import energy
from minilp.energy.shapes import total


def flops(torch, build, *inputs):
    """What torch's own counter sees on the meta device: two for a multiply-accumulate."""
    from torch.utils.flop_counter import FlopCounterMode
    with torch.device("meta"), torch.no_grad():
        model = build().train()  # in training torch takes no fused path that its counter cannot see
        arguments = [torch.zeros(*shape) for shape in inputs]
        with FlopCounterMode(display=False) as counter:
            model(*arguments)
    return counter.get_total_flops(), sum(p.numel() for p in model.parameters())


# Parameters with the pooler (h^2 + h): 109,482,240 and 335,141,888 in the released uncased models ("110M" and "340M"
# in Devlin et al. 2019). Multiply-accumulates at length 384: 35.333 G and 123.212 G in the papers' notes.
@pytest.mark.parametrize(("name", "layers", "h", "heads", "macs", "params"), [
    ("bert_base", 12, 768, 12, 35_332_816_896, 109_482_240),
    ("bert_large", 24, 1024, 16, 123_211_874_304, 335_141_888),
])
def test_bert(torch, name, layers, h, heads, macs, params):
    net, s = energy.network(name), 384
    assert total(net) == macs == layers * (12 * h * h * s + 2 * s * s * h)
    assert total(net, "params") + h * h + h == params
    encoder = [layer for layer in net if layer.name.startswith("encoder.")]
    counted = flops(torch, lambda: torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(h, heads, 4 * h, activation="gelu", batch_first=True), layers,
        enable_nested_tensor=False), (1, s, h))
    assert (2 * total(encoder), total(encoder, "params")) == counted
    assert all(layer.input_grad for layer in net)


@pytest.mark.parametrize("length", [128, 384, 512])
def test_bert_ratio_of_the_energy_table(length):
    """The recalled mJ of LNS-Madam's table, 311.58 / 89.35 = 3.48719, speak for length 384."""
    ratio = total(energy.network("bert_large", length=length)) / total(energy.network("bert_base", length=length))
    assert (abs(ratio - 311.58 / 89.35) < 1e-4) == (length == 384)


def test_bert_counts_what_is_no_contraction():
    s, h, layers, heads = 384, 768, 12, 12
    net = energy.network("bert_base", head=True)
    outputs = {kind: total(net, "activations_out", [kind]) for kind in ("layer_norm", "gelu", "softmax", "add", "mul")}
    assert outputs == {"layer_norm": (2 * layers + 1) * s * h, "gelu": layers * s * 4 * h,
                       "softmax": layers * heads * s * s, "add": (2 * layers + 2) * s * h,
                       "mul": layers * heads * s * s}
    assert total(net) == 35_332_816_896 + s * h * 2  # the two outputs of question answering


def test_transformer_base(torch):
    """torch.nn.Transformer has one more LayerNorm behind each side, and neither table nor output layer.

    Table 3 of the publication says 65 million parameters; with 37000 rows ours has 63.1.
    """
    net = energy.network("transformer_base", source_length=20, target_length=30)
    inner = [layer for layer in net if re.match(r"(en|de)coder\.\d", layer.name)]
    counted, params = flops(torch, lambda: torch.nn.Transformer(512, 8, 6, 6, 2048, batch_first=True), (1, 20, 512),
                            (1, 30, 512))
    assert 2 * total(inner) == counted
    assert total(inner, "params") == params - 2 * 2 * 512
    assert total(net) == total(inner) + 30 * 512 * 37000
    assert total(net, "params") == total(inner, "params") + 37000 * 512 == 63_082_496
