"""The Transformer against the same one in torch, under every recipe, and what padding may not do."""
import numpy as np
import pytest

import minilp
from minilp import contract, models, nn, optim, recipe
from minilp.energy.shapes import total
from minilp.energy.trace import shapes_of
from minilp.nn import functional as F

SIZES = {"src_vocab_size": 30, "tgt_vocab_size": 30, "d_model": 16, "nhead": 2, "num_encoder_layers": 2,
         "num_decoder_layers": 2, "dim_feedforward": 24, "max_len": 12}


def sentences(seed, lengths, longest, vocabulary=30):
    """Integers with zeros behind the end."""
    array = np.random.default_rng(seed).integers(4, vocabulary, (len(lengths), longest))
    return np.where(np.arange(longest) < np.array(lengths)[:, None], array, 0)


SRC, TGT = sentences(0, (7, 3, 1, 5), 7), sentences(1, (2, 6, 4, 1), 6)


def build(**options):
    minilp.manual_seed(0)
    return models.build("transformer", **{**SIZES, "dropout": 0.0, **options})


def torch_logits(torch, model, src, tgt, options):
    """The same network out of torch's layers, with the parameters of ours."""
    t, d = torch.nn, SIZES["d_model"]
    norm_first = options.get("norm_first", True)
    named = {"batch_first": True, "norm_first": norm_first, "activation": options.get("activation", "relu")}
    layer = (d, SIZES["nhead"], SIZES["dim_feedforward"], 0.0)
    norms = [t.LayerNorm(d) if norm_first else None for _ in range(2)]
    encoder = t.TransformerEncoder(t.TransformerEncoderLayer(*layer, **named), 2, norms[0], enable_nested_tensor=False)
    decoder = t.TransformerDecoder(t.TransformerDecoderLayer(*layer, **named), 2, norms[1])
    state = {key: torch.tensor(value) for key, value in model.state_dict().items()}
    for name, stack in (("encoder", encoder), ("decoder", decoder)):
        stack.load_state_dict({key[8:]: value for key, value in state.items() if key.startswith(name)})
    free = {key: value.clone().requires_grad_() for key, value in state.items() if "coder" not in key}

    def embed(index, side):
        table = free["src_embedding.weight" if options.get("shared_embeddings", True) else f"{side}_embedding.weight"]
        places = free.get(f"{side}_positions.weight")
        if places is None:
            places = torch.tensor(getattr(model, f"{side}_positions").weight)
        return table[index] * d ** 0.5 + places[:index.shape[1]]

    src, tgt = torch.from_numpy(src), torch.from_numpy(tgt)
    causal = torch.ones(tgt.shape[1], tgt.shape[1], dtype=torch.bool).triu(1)
    memory = encoder(embed(src, "src"), src_key_padding_mask=src == 0)
    out = decoder(embed(tgt, "tgt"), memory, causal, tgt_key_padding_mask=tgt == 0, memory_key_padding_mask=src == 0)
    tied = options.get("tied_output", True)
    key = ("src_embedding.weight" if options.get("shared_embeddings", True) else "tgt_embedding.weight") if tied \
        else "output.weight"
    logits = out @ free[key].T + (0 if tied else free["output.bias"])
    return logits, {"encoder": encoder, "decoder": decoder}, free


@pytest.mark.parametrize("options", [
    {}, {"norm_first": False, "activation": "gelu"}, {"shared_embeddings": False, "positions": "learned"},
    {"tied_output": False}])
def test_equals_torch(torch, options):
    """Logits and all gradients of a loss on sentences of different lengths."""
    model = build(**options)
    logits = model(SRC, TGT)
    expected, stacks, free = torch_logits(torch, model, SRC, TGT, options)
    real = TGT != 0
    np.testing.assert_allclose(logits.data[real], expected.detach().numpy()[real], rtol=1e-4, atol=2e-5)
    assert not logits.data[~real].any()
    loss = F.cross_entropy(logits.reshape(-1, 30), TGT.reshape(-1), ignore_index=0)
    loss.backward()
    torch.nn.functional.cross_entropy(expected.reshape(-1, 30), torch.from_numpy(TGT.reshape(-1)),
                                      ignore_index=0).backward()
    theirs = {f"{name}.{key}": p.grad for name, stack in stacks.items() for key, p in stack.named_parameters()}
    theirs |= {key: value.grad for key, value in free.items()}
    for name, param in model.named_parameters():
        want = theirs[name].numpy().copy()
        if "embedding" in name and "positions" not in name and not options.get("tied_output", True):
            want[0] = 0
        np.testing.assert_allclose(param.grad, want, rtol=1e-3, atol=2e-5, err_msg=name)


def test_without_padding_rows_and_logits_are_one():
    model = build()
    src, tgt = sentences(2, (5, 5), 5), sentences(3, (4, 4), 4)
    rows, tokens = model.logits(src, tgt)
    np.testing.assert_array_equal(model(src, tgt).data.reshape(8, 30), rows.data)
    assert tokens.mask is None and tokens.count == 8


@pytest.mark.parametrize("attention", ["coded", "float"])
@pytest.mark.parametrize("name", ["fp32", "potq", "mls", "lns-madam", "fp8", "int8", "mxfp4", "mxfp6", "mxint8"])
def test_every_recipe_learns(name, attention):
    """Six steps on one batch, with dropout; coded attention runs in the room in both directions."""
    model = build(dropout=0.1)
    chosen = recipe.get(name).set("attention", attention)
    chosen.apply(model)
    optimizer = optim.Madam(model.parameters(), lr=2**-4) if chosen.optimizer == "madam" else optim.AdamW(
        model.parameters(), lr=1e-2)
    losses = []
    with contract.executed() as how:
        for step in range(6):
            optimizer.zero_grad()
            with contract.rounding_context(0, step):
                rows, tokens = model.logits(SRC, TGT[:, :-1])
                loss = F.cross_entropy(rows, tokens.gather(TGT[:, 1:]), ignore_index=0, label_smoothing=0.1)
                loss.backward()
                optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3, losses
    kinds = {key.split(":")[0] for key in how}
    coded = {"scores", "scores_query_grad", "scores_key_grad", "context", "context_probability_grad",
             "context_value_grad"}
    assert kinds & coded == (coded if attention == "coded" and name != "fp32" else set())


def test_longer_padding_changes_no_bit():
    """Two zeros more behind every sentence: the same logits and gradients, in integers and in float32."""
    for name in ("fp32", "int8", "potq"):
        results = []
        for more in (0, 2):
            model = build()
            if name != "fp32":
                recipe.get(name).set("attention", "coded").set("error.rounding", "nearest").apply(model)
            src, tgt = np.pad(SRC, ((0, 0), (0, more))), np.pad(TGT, ((0, 0), (0, more)))
            rows, tokens = model.logits(src, tgt)
            F.cross_entropy(rows, tokens.gather(tgt), ignore_index=0).backward()
            results.append([rows.data, *(p.grad for p in model.parameters())])
        for a, b in zip(*results, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda: build(tgt_vocab_size=31), ValueError, "shared_embeddings"),
    (lambda: build(positions="rotary"), ValueError, "positions"),
    (lambda: build()(SRC, TGT[:2]), ValueError, "as many sentences"),
    (lambda: build()(SRC.astype(np.float32), TGT), TypeError, "src: expected integers"),
    (lambda: build()(SRC[0], TGT), ValueError, r"src: expected sentences"),
    (lambda: build(max_len=5)(SRC, TGT), ValueError, "max_len"),
    (lambda: build(colour=3), ValueError, "unknown option colour")])
def test_errors_name_the_argument(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_shapes_of_a_layer():
    """The trace knows attention, fused softmax and the ways between rows and heads; plain and coded alike."""
    layer = nn.TransformerEncoderLayer(16, 2, 24, 0.0, batch_first=True)
    plain = shapes_of(layer, (5, 16))
    assert [one.kind for one in plain] == ["linear", "matmul", "mul", "softmax", "matmul", "linear", "add",
                                           "layer_norm", "linear", "relu", "linear", "add", "layer_norm"]
    assert total(plain) == 5 * (4 * 16 * 16 + 2 * 16 * 24) + 2 * 5 * 5 * 16
    assert [one.keys for one in plain if one.kind == "matmul"] == [True, False]
    recipe.get("int8").set("attention", "coded").apply(layer)
    assert shapes_of(layer, (5, 16)) == plain
