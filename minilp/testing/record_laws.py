"""Laws about what a format and a coded tensor are: values that compare, store, pack and keep their layout."""
from __future__ import annotations

import dataclasses
import inspect
import json

import numpy as np

from minilp.formats import Format, QTensor, Stream
from minilp.formats.pack import packed_size
from minilp.testing.runner import law, levels, numbers, same


@law("a format is a frozen dataclass that compares, hashes and prints")
def _declared(fmt: Format, rng: np.random.Generator) -> None:
    assert isinstance(fmt, Format), f"{fmt!r} is no Format"
    annotations = inspect.get_annotations(type(fmt))
    annotated = {name for name, kind in annotations.items() if "ClassVar" not in str(kind)}
    missing = annotated - {field.name for field in dataclasses.fields(fmt)}
    assert not missing, f"{sorted(missing)} are no fields; decorate the class with @dataclass(frozen=True)"
    twin = type(fmt)(**{field.name: getattr(fmt, field.name) for field in dataclasses.fields(fmt)})
    assert fmt == twin and hash(fmt) == hash(twin), f"an equal copy {twin!r} does not compare or hash equal"
    assert repr(fmt) == repr(twin) and str(fmt), "it does not print itself"
    assert isinstance(fmt.bits, int) and fmt.bits >= 1, f"bits must be a positive integer, got {fmt.bits!r}"


@law("from_config(to_config()) is the format, through JSON")
def _config(fmt: Format, rng: np.random.Generator) -> None:
    back = Format.from_config(json.loads(json.dumps(fmt.to_config())))
    assert back == fmt, f"{fmt.to_config()} came back as {back!r}"


@law("formats and coded tensors are immutable")
def _immutable(fmt: Format, rng: np.random.Generator) -> None:
    q = fmt.encode(numbers(rng, 8))
    for record, field in ((fmt, "bits"), (q, "codes"), (q, "scales")):
        try:
            setattr(record, field, getattr(record, field))
        except (dataclasses.FrozenInstanceError, AttributeError):
            continue
        raise AssertionError(f"{type(record).__name__}.{field} could be assigned")
    for array in (q.codes, *q.scales):
        assert not array.flags.writeable, "an array of the coded tensor is writeable"


@law("codes are integers of the tensor's shape and of at most `stored_bits` bits; values are float32")
def _coded(fmt: Format, rng: np.random.Generator) -> None:
    for shape in ((), (1,), (7,), (3, 5), (2, 3, 4, 5)):
        x = numbers(rng, *shape)
        before = x.copy()
        q = fmt.encode(x)
        same(x, before, "encode changed its input")
        assert isinstance(q, QTensor) and q.format == fmt, f"encode returned {q!r}"
        assert q.codes.dtype.kind in "iu" and q.shape == shape, f"codes are {q.codes.dtype} of shape {q.shape}"
        assert q.codes.dtype == fmt.codes().dtype, f"codes are {q.codes.dtype}, codes() says {fmt.codes().dtype}"
        assert np.isin(q.codes, fmt.codes()).all(), f"encode made a code that codes() does not list, of {x}"
        y = q.decode()
        assert y.dtype == np.float32 and y.shape == shape, f"decode returned {y.dtype} of shape {y.shape}"


@law("packed codes take ceil(stored_bits * n / 8) bytes and come back")
def _packed(fmt: Format, rng: np.random.Generator) -> None:
    for n in (0, 1, 7, 8, 9, 255):
        q = fmt.encode(numbers(rng, n))
        packed = q.pack()
        assert packed.size == packed_size(n, fmt.stored_bits), f"{n} codes packed into {packed.size} bytes"
        same(QTensor.unpack(packed, fmt, q.scales, q.shape).codes, q.codes, f"{n} codes after pack and unpack")
    codes = fmt.codes()
    same(QTensor.unpack(QTensor(fmt, codes).pack(), fmt, (), codes.shape).codes, codes, "all codes after pack, unpack")


@law("codes take the memory order of x and do not depend on it")
def _memory_order(fmt: Format, rng: np.random.Generator) -> None:
    x = numbers(rng, 2, 3, 4, 5)
    for stream in (None, Stream(seed=3)) if fmt.stochastic else (None,):
        want = fmt.encode(x, stream=stream)
        for order in ((0, 1, 2, 3), (1, 2, 3, 0), (3, 2, 1, 0)):
            stored = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
            q = fmt.encode(stored, stream=stream)
            same(q.codes, want.codes, f"codes of x stored in axis order {order}, stream={stream}")
            for array in (q.codes, q.decode()):
                assert array.transpose(order).flags.c_contiguous, f"x is stored in axis order {order}, not the result"
        wide = np.repeat(x, 2, axis=3)[..., ::2]
        same(fmt.encode(wide, stream=stream).codes, want.codes, "codes of a strided view")


@law("transposed and reshaped codes decode to the transposed and reshaped values")
def _views(fmt: Format, rng: np.random.Generator) -> None:
    for keep in ((), (0,)):
        q = fmt.encode(numbers(rng, 4, 3, 2, 1, 1), keep=keep)  # five axes: no format has groups of its own there
        turned = (2, 0, 1, 4, 3)
        same(q.transpose(*turned).decode(), q.decode().transpose(turned), f"transpose, keep={keep}")
        same(q.reshape(4, -1).decode(), q.decode().reshape(4, -1), f"reshape, keep={keep}")


@law("the table holds the values of the codes in units of the scale")
def _tabled(fmt: Format, rng: np.random.Generator) -> None:
    table = fmt.table()
    if table is None:
        return
    assert table.dtype in (np.int8, np.int16) and table.shape == (256,), (
        f"the table is {table.dtype} of shape {table.shape}")
    values, q = levels(fmt, rng)
    entries = table[q.codes.astype(np.int64) & 255].astype(np.float64)
    unit = np.abs(values[entries != 0] / entries[entries != 0]).min()
    off = np.abs(entries * unit - values) > np.abs(values) * 2.0**-22  # a scale of any float32 value rounds the values
    assert not off.any(), f"table entry times the unit: {(entries * unit)[off][0]} instead of {values[off][0]}"
