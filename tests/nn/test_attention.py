"""Attention and Transformer layers against torch's: outputs, all gradients, masks; and gradient checks in float64."""
import numpy as np
import pytest

from minilp import nn, recipe
from minilp.autograd import Tensor, gradcheck
from minilp.autograd.attention import masked_softmax, merge_heads, split_heads
from minilp.nn import functional as F
from minilp.nn.tokens import Tokens

N, L, S, E, H = 3, 5, 7, 12, 4
PADDING = np.arange(S) >= np.array([[7], [4], [1]])
TARGET_PADDING = np.arange(L) >= np.array([[5], [2], [3]])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def twins(torch, name, *args, **options):
    """Ours and torch's of one name, with the same random parameters."""
    ours, theirs = getattr(nn, name)(*args, **options), getattr(torch.nn, name)(*args, **options)
    for i, (key, value) in enumerate(theirs.state_dict().items()):
        value.copy_(torch.from_numpy(0.3 * normal(*value.shape, seed=i)))
        assert key in ours.state_dict()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def compare(torch, ours, theirs, run, arrays, where=None, rtol=2e-5, atol=2e-5):
    """Outputs, and gradients of inputs and parameters, of the same weighted sum of the outputs that ``where`` picks."""
    mine, yours = [Tensor(a, requires_grad=True) for a in arrays], [torch.tensor(a, requires_grad=True) for a in arrays]
    out, expected = run(ours, mine, lambda mask: mask), run(theirs, yours, lambda mask: None if mask is None
                                                            else torch.from_numpy(mask))
    weight = normal(*expected.shape, seed=9)
    if where is not None:
        weight *= where
        np.testing.assert_allclose(out.data * where, expected.detach().numpy() * where, rtol=rtol, atol=atol)
    else:
        np.testing.assert_allclose(out.data, expected.detach().numpy(), rtol=rtol, atol=atol)
    (out * weight).sum().backward()
    (expected * torch.from_numpy(weight)).sum().backward()
    for a, b in zip(mine, yours, strict=True):
        np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=rtol, atol=atol)
    for (name, p), (other, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other
        np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=5 * rtol, atol=5 * atol, err_msg=name)


@pytest.mark.parametrize("options", [
    {}, {"is_causal": True}, {"scale": 0.3}, {"attn_mask": normal(L, S, seed=3)},
    {"attn_mask": normal(L, S, seed=4) > -0.7}, {"attn_mask": ~PADDING[:, None, None]}])
def test_function_equals_torch(torch, options):
    arrays = [normal(N, 2, L, 6), normal(N, 2, S, 6, seed=1), normal(N, 2, S, 3, seed=2)]
    mine, yours = [Tensor(a, requires_grad=True) for a in arrays], [torch.tensor(a, requires_grad=True) for a in arrays]
    theirs = {key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
              for key, value in options.items()}
    out = F.scaled_dot_product_attention(*mine, **options)
    expected = torch.nn.functional.scaled_dot_product_attention(*yours, **theirs)
    np.testing.assert_allclose(out.data, expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    (out * out).sum().backward()
    (expected * expected).sum().backward()
    for a, b in zip(mine, yours, strict=True):
        np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=2e-5, atol=2e-6)


def test_gradients_in_float64():
    """The function under a mask, and the operations that carry rows of tokens into heads and back."""
    arrays = [normal(2, 3, 4).astype(np.float64), normal(2, 5, 4, seed=1).astype(np.float64),
              normal(2, 5, 2, seed=2).astype(np.float64)]
    mask = normal(2, 3, 5, seed=5) > -0.5
    assert gradcheck(lambda *x: F.scaled_dot_product_attention(*x, attn_mask=mask), arrays)
    assert gradcheck(lambda *x: F.scaled_dot_product_attention(*x, attn_mask=normal(3, 5).astype(np.float64)), arrays)
    tokens = Tokens((2, 3), np.array([[True, True, False], [True, False, False]]))

    def there_and_back(rows):
        a, b = split_heads(rows, 2, 2, tokens)
        return merge_heads(a * b + a, tokens)

    assert gradcheck(there_and_back, [normal(3, 8).astype(np.float64)])
    assert gradcheck(lambda x: masked_softmax(x, mask, 0.7), [normal(2, 3, 5).astype(np.float64)])


def test_part_of_the_heads_gets_its_gradient_alone():
    """A second walk, and one that reaches one part only, add up as two plain slices would."""
    rows = Tensor(normal(6, 8), requires_grad=True)
    a, b = split_heads(rows * 1, 2, 2, Tokens((2, 3)))
    a.sum().backward(retain_graph=True)
    np.testing.assert_array_equal(rows.grad, np.tile([1.0] * 4 + [0.0] * 4, (6, 1)))
    (a + b).sum().backward()
    np.testing.assert_array_equal(rows.grad, np.tile([2.0] * 4 + [1.0] * 4, (6, 1)))


def test_row_without_a_key_is_zero():
    query = Tensor(normal(2, 3), requires_grad=True)
    mask = np.array([[True, True], [False, False]])
    out = F.scaled_dot_product_attention(query, Tensor(normal(2, 3, seed=1)), Tensor(normal(2, 3, seed=2)), mask)
    out.sum().backward()
    assert not out.data[1].any() and not query.grad[1].any() and query.grad[0].any()


@pytest.mark.parametrize(("args", "options"), [
    ((E, H), {"batch_first": True}), ((E, H), {}), ((E, 3), {"bias": False, "batch_first": True}),
    ((E, H), {"kdim": 6, "vdim": 10, "batch_first": True})])
@pytest.mark.parametrize("masks", ["none", "padding", "attention", "both", "heads", "float"])
def test_multihead_attention_equals_torch(torch, args, options, masks):
    ours, theirs = twins(torch, "MultiheadAttention", *args, **options)
    given = {"none": {}, "padding": {"key_padding_mask": PADDING}, "attention": {"attn_mask": ~np.tri(L, S, 2, bool)},
             "both": {"key_padding_mask": PADDING, "attn_mask": ~np.tri(L, S, 2, bool)},
             "heads": {"attn_mask": normal(N * args[1], L, S, seed=7) > 0.8},
             "float": {"attn_mask": normal(L, S, seed=8)}}[masks]
    arrays = [normal(N, L, E), normal(N, S, options.get("kdim", E), seed=1), normal(N, S, options.get("vdim", E),
                                                                                   seed=2)]
    if not options.get("batch_first"):
        arrays = [np.ascontiguousarray(a.transpose(1, 0, 2)) for a in arrays]

    def run(layer, inputs, mask):
        out, weights = layer(*inputs, **{key: mask(value) for key, value in given.items()})
        assert tuple(weights.shape) == (N, L, S)
        return out

    compare(torch, ours, theirs, run, arrays)


def test_multihead_attention_of_one_tensor_and_its_weights(torch):
    """Self-attention with padding, every head's weights, and one sentence without a batch."""
    ours, theirs = twins(torch, "MultiheadAttention", E, H, batch_first=True)
    compare(torch, ours, theirs, lambda layer, x, mask: layer(x[0], x[0], x[0], mask(PADDING))[0], [normal(N, S, E)])
    ours.zero_grad()
    theirs.zero_grad()
    compare(torch, ours, theirs, lambda layer, x, mask: layer(x[0], x[0], x[0])[0], [normal(S, E)])
    x = normal(N, S, E)
    _, weights = ours(*[Tensor(x)] * 3, PADDING, average_attn_weights=False)
    _, expected = theirs(*[torch.from_numpy(x)] * 3, torch.from_numpy(PADDING), average_attn_weights=False)
    np.testing.assert_allclose(weights.data, expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert ours(*[Tensor(x)] * 3, need_weights=False)[1] is None


ENCODER = [{"batch_first": True}, {"activation": "gelu"}, {"norm_first": True, "batch_first": True, "bias": False}]


@pytest.mark.parametrize("options", ENCODER)
@pytest.mark.parametrize("masks", [(None, None), (~np.tri(S, dtype=bool), None), (None, PADDING),
                                   (~np.tri(S, dtype=bool), PADDING)])
def test_encoder_layer_equals_torch(torch, options, masks):
    ours, theirs = twins(torch, "TransformerEncoderLayer", E, H, 20, 0.0, **options)
    x = normal(N, S, E)
    x = x if options.get("batch_first") else np.ascontiguousarray(x.swapaxes(0, 1))
    compare(torch, ours, theirs, lambda layer, inputs, mask: layer(inputs[0], *map(mask, masks)), [x])


@pytest.mark.parametrize("options", ENCODER)
def test_decoder_layer_equals_torch(torch, options):
    ours, theirs = twins(torch, "TransformerDecoderLayer", E, H, 20, 0.0, **options)
    arrays = [normal(N, L, E), normal(N, S, E, seed=1)]
    if not options.get("batch_first"):
        arrays = [np.ascontiguousarray(a.swapaxes(0, 1)) for a in arrays]

    def run(layer, inputs, mask):
        return layer(*inputs, tgt_mask=mask(~np.tri(L, dtype=bool)), tgt_key_padding_mask=mask(TARGET_PADDING),
                     memory_key_padding_mask=mask(PADDING))

    compare(torch, ours, theirs, run, arrays)


def test_stacks_equal_torch(torch):
    """Names, and copies that learn apart."""
    def stack(module, kind):
        layer = getattr(module, f"Transformer{kind}Layer")(E, H, 20, 0.0, batch_first=True)
        return getattr(module, f"Transformer{kind}")(layer, 2, module.LayerNorm(E))

    for kind, arrays in (("Encoder", [normal(N, L, E)]), ("Decoder", [normal(N, L, E), normal(N, S, E, seed=1)])):
        ours, theirs = stack(nn, kind), stack(torch.nn, kind)
        for i, value in enumerate(theirs.state_dict().values()):
            value.copy_(torch.from_numpy(0.3 * normal(*value.shape, seed=i)))
        ours.load_state_dict(theirs.state_dict())
        compare(torch, ours, theirs, lambda layer, inputs, mask: layer(*inputs), arrays)


@pytest.mark.parametrize("name", ["potq", "mls", "int8"])
def test_coded_layer_never_sees_padding(name):
    """What stands at the padding changes no bit of the result, of a gradient, or of a scale."""
    results = []
    for fill in (0.0, 1e3):
        layer = nn.TransformerEncoderLayer(E, H, 20, 0.0, batch_first=True)
        layer.load_state_dict({key: 0.3 * normal(*value.shape, seed=i)
                               for i, (key, value) in enumerate(layer.state_dict().items())})
        recipe.get(name).set("attention", "coded").set("first", "same").set("last", "same").apply(layer)
        x = normal(N, S, E)
        x[PADDING] = fill
        x = Tensor(x, requires_grad=True)
        out = layer(x, src_key_padding_mask=PADDING)
        (out * normal(N, S, E, seed=5)).sum().backward()
        assert not out.data[PADDING].any() and not x.grad[PADDING].any()
        results.append([out.data, x.grad, *(p.grad for p in layer.parameters())])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_coded_function_leaves_hidden_keys_out():
    """A key that no query may look at reaches no scale."""
    q = nn.MultiheadAttention(E, H, q=recipe.get("int8").set("attention", "coded")).q
    query, key = normal(N, 2, L, 6), normal(N, 2, S, 6, seed=1)
    loud = np.where(PADDING[:, None, :, None], np.float32(1e4), key)
    outs = [F.scaled_dot_product_attention(Tensor(query), Tensor(k), Tensor(k), ~PADDING[:, None, None], q=q).data
            for k in (key, loud)]
    np.testing.assert_array_equal(*outs)


@pytest.mark.parametrize(("call", "words"), [
    (lambda: nn.MultiheadAttention(10, 3), "num_heads"),
    (lambda: nn.MultiheadAttention(E, H)(*[Tensor(normal(2, 3, E + 1))] * 3), "features"),
    (lambda: nn.MultiheadAttention(E, H)(*[Tensor(normal(2, 3, E))] * 3, attn_mask=np.ones((9, 9), bool)), "attn_mask"),
    (lambda: nn.MultiheadAttention(E, H)(*[Tensor(normal(2, 3, E))] * 3, key_padding_mask=np.ones((9, 9), bool)),
     "key_padding_mask"),
    (lambda: F.scaled_dot_product_attention(*[Tensor(normal(2, 3))] * 2, Tensor(normal(4, 3))), "key"),
    (lambda: nn.TransformerEncoderLayer(E, H, activation="swish"), "activation")])
def test_errors_name_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()
