"""state_dict and load_state_dict, with torch on the other side."""
import numpy as np
import pytest

from minilp import nn


def ours():
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Flatten(), nn.Linear(4, 3)),
                         nn.Embedding(5, 3), nn.LayerNorm(3))


def theirs(torch):
    t = torch.nn
    return t.Sequential(t.Conv2d(2, 4, 3), t.BatchNorm2d(4), t.Sequential(t.Flatten(), t.Linear(4, 3)),
                        t.Embedding(5, 3), t.LayerNorm(3))


def test_torch_weights_load_and_go_back(torch):
    a, b = ours(), theirs(torch)
    b[1](torch.randn(2, 4, 3, 3))  # statistics and the batch count move
    assert a.load_state_dict(b.state_dict()) == ([], [])
    state = a.state_dict()
    assert list(state) == list(b.state_dict())
    for name, tensor in b.state_dict().items():
        np.testing.assert_array_equal(state[name], tensor.numpy())
        assert state[name].dtype == tensor.numpy().dtype
    assert state["1.num_batches_tracked"] == 1
    assert state["1.num_batches_tracked"].dtype == np.int64
    c = theirs(torch)
    c.load_state_dict({name: torch.as_tensor(array) for name, array in state.items()})
    for name, tensor in b.state_dict().items():
        np.testing.assert_array_equal(c.state_dict()[name].numpy(), tensor.numpy())


def test_a_state_is_a_snapshot():
    m = ours()
    state = m.state_dict()
    before = state["0.weight"].copy()
    m[0].weight.data += 1
    np.testing.assert_array_equal(state["0.weight"], before)
    m.load_state_dict(state)
    np.testing.assert_array_equal(m[0].weight.data, before)


def test_loading_copies_in_place_and_keeps_the_dtype():
    m = nn.Linear(2, 2, bias=False)
    array, param = m.weight.data, m.weight
    source = np.arange(4, dtype=np.float64).reshape(2, 2)
    m.load_state_dict({"weight": source})
    source[...] = 9
    assert m.weight is param
    assert m.weight.data is array
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, [[0, 1], [2, 3]])
    m.load_state_dict({"weight": nn.Linear(2, 2).weight})


def test_errors_name_keys_and_shapes_and_change_nothing():
    m = ours()
    before = m.state_dict()
    state = m.state_dict()
    state["0.weight"] = np.zeros((4, 2, 5, 5), np.float32)
    state["2.1.bias"] = np.zeros(3, complex)
    state["extra"] = np.zeros(1)
    state["1.weight"] = np.zeros(4, np.float32)
    del state["4.bias"]
    with pytest.raises(RuntimeError) as caught:
        m.load_state_dict(state)
    for text in ("does not fit Sequential", "missing: 4.bias", "unexpected: extra",
                 "0.weight: shape (4, 2, 5, 5) came, (4, 2, 3, 3) was expected", "2.1.bias: dtype complex128"):
        assert text in str(caught.value)
    with pytest.raises(RuntimeError, match=r"0.weight"):
        m.load_state_dict(state, strict=False)
    for name, array in m.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_not_strict_reports():
    m = ours()
    state = m.state_dict()
    state["extra"] = state.pop("4.bias")
    state["4.weight"] = state["4.weight"] + 1
    keys = m.load_state_dict(state, strict=False)
    assert keys.missing_keys == ["4.bias"]
    assert keys.unexpected_keys == ["extra"]
    assert (m[4].weight.data == 2).all()


def test_buffers_can_stay_out():
    m = nn.Module()
    m.register_buffer("kept", np.zeros(1))
    m.register_buffer("left", np.zeros(1), persistent=False)
    assert list(m.state_dict("x.")) == ["x.kept"]
    assert [name for name, _ in m.named_buffers()] == ["kept", "left"]
