"""Prices: every number has a source; what has no price is an error that names it."""
import json

import pytest

from minilp import energy, recipe
from minilp.energy import LayerShape, Unpriced, available_prices, load_prices
from minilp.energy.prices import DEFAULT, PROVENANCES

LAYERS = [LayerShape(name="conv", kind="conv2d", in_channels=4, out_channels=8, kernel=(3, 3), padding=(1, 1),
                     in_size=(8, 8), out_size=(8, 8)),
          LayerShape(name="fc", kind="linear", in_features=8, out_features=10)]


@pytest.fixture
def own(tmp_path):
    def write(rows, **head):
        path = tmp_path / "own.json"
        path.write_text(json.dumps({"unit": "pJ", "prices": rows, **head}))
        return path
    return write


def row(operation, value, **more):
    return {"operation": operation, "value": value, "source": "a test", "provenance": "default", **more}


def test_every_number_has_a_source_a_node_and_a_provenance():
    assert {"horowitz-45nm", "als-potq", "mls-65nm", "lns-madam-pe"} <= set(available_prices())
    for name in available_prices():
        listed = load_prices(name)
        assert listed.name == name and listed.node and listed.title
        for found in listed.prices.values():
            assert found.source and found.node and found.provenance in PROVENANCES
    assert {found.provenance for found in load_prices("mls-65nm").prices.values()} == {"recalled", "default"}


def test_the_paper_tables_are_as_read():
    table = load_prices("als-potq").prices
    read = {"fp32_mul": 3.7, "int32_mul": 3.1, "fp8_mul": 0.23, "int8_mul": 0.19, "int4_mul": 0.048, "fp32_add": 0.9,
            "int32_add": 0.14, "int16_add": 0.05, "int8_add": 0.03, "int4_add": 0.015, "int32_shift4": 0.96,
            "int32_shift3": 0.72, "int4_shift3": 0.081}
    assert {name: found.value for name, found in table.items() if found.provenance == "verified"} == read
    horowitz = {name: found.value for name, found in load_prices(DEFAULT).prices.items()
                if found.provenance == "verified"}
    assert horowitz == {"fp32_mul": 3.7, "fp32_add": 0.9, "int32_mul": 3.1, "int32_add": 0.1}


def test_an_operation_without_a_price_is_an_error_naming_it_and_the_list(own):
    counts = energy.count_shapes(LAYERS, recipe.potq(), optimizer=None)
    path = own([row("fp32_mul", 1), row("fp32_add", 1), row("int8_add", 1), row("int4_add", 1),
                row("int32_add", 1)])
    with pytest.raises(Unpriced, match=r"'xor1' \(forward of layer conv\) .*'own'.*own\.json"):
        energy.price(counts, load_prices(path))


@pytest.mark.parametrize("name", recipe.PRESETS)
def test_the_default_list_prices_every_preset(name):
    chosen = recipe.get(name)
    optimizer = energy.step.OPTIMIZERS[chosen.optimizer]
    priced = energy.price(energy.count_shapes(LAYERS, chosen, 2, optimizer=optimizer), load_prices())
    assert priced.picojoules > 0 and priced.picojoules == pytest.approx(sum(priced.rows.values()))


def test_a_linear_layer_by_hand(own):
    counts = energy.count_shapes(LAYERS[1:], recipe.fp32(), 3, optimizer=None)
    priced = energy.price(counts, load_prices(own([row("fp32_mul", 3), row("fp32_add", 0.5)], unit="fJ")))
    assert priced.rows == {("fc", which): 3 * 80 * 3.5 for which in ("forward", "input_grad", "weight_grad")}
    assert priced.picojoules == pytest.approx(3 * 3 * 80 * 3.5e-3)


def test_a_narrower_integer_takes_the_next_wider_price_only_where_the_list_says_so(own):
    rows = [row("int8_mul", 2), row("int16_mul", 5), row("int32_mul", 9)]
    wide = load_prices(own(rows, wider=True))
    assert [wide.find(f"int{n}_mul").value for n in (5, 8, 9, 16, 17)] == [2, 2, 5, 5, 9]
    for listed, name in ((wide, "int33_mul"), (wide, "int5_add"), (load_prices(own(rows)), "int5_mul")):
        with pytest.raises(Unpriced, match=name):
            listed.find(name)


def test_a_list_can_extend_another(own):
    listed = load_prices(own([row("fp32_mul", 1.5, node="7 nm")], extends="horowitz-45nm"))
    assert listed.find("fp32_mul").value == 1.5 and listed.find("fp32_mul").node == "7 nm"
    assert listed.find("fp32_add").value == 0.9 and listed.find("int5_mul").value == 0.2


def test_a_whole_mac_goes_before_its_parts(own):
    counts = energy.count_shapes(LAYERS[1:], recipe.fp8(), 1, training=False)
    rows = [row("mac_fp8", 7), row("fp8_mul", 100), row("int64_add", 100)]
    assert energy.price(counts, load_prices(own(rows, covers=["forward"]))).total() == 7 * 80


def test_memory_is_off_unless_asked_for():
    counts = energy.count_shapes(LAYERS, recipe.potq())
    listed = load_prices()
    bits = sum(sum(row.values()) for row in counts.traffic.values())
    without, beside = energy.price(counts, listed), energy.price(counts, listed, memory=True)
    assert without.total("memory") == 0
    assert beside.total() - without.total() == pytest.approx(bits * listed.find("memory_bit").value)
    with pytest.raises(Unpriced, match=r"memory_bit.*als-potq"):
        energy.price(counts, load_prices("als-potq"), memory=True)


def test_a_unit_that_is_no_energy_gives_no_joules():
    assert energy.price(energy.count_shapes(LAYERS, recipe.fp32()), load_prices("mls-65nm")).picojoules is None


@pytest.mark.parametrize(("text", "words"), [
    ("{", "not JSON"), ("[]", "unit"), ('{"unit": "pJ"}', "prices"),
    ('{"unit": "pJ", "prices": [], "colour": 1}', "colour"),
    ('{"unit": "pJ", "prices": [{"operation": "fp32_mul", "value": 1}]}', "price 1: expected operation, provenance"),
    (json.dumps({"unit": "pJ", "prices": [row("fp32_mul", -1)]}), "fp32_mul: value"),
    (json.dumps({"unit": "pJ", "prices": [row("fp32_mul", "1")]}), "fp32_mul: value"),
    (json.dumps({"unit": "pJ", "prices": [row("fp32_mul", 1, provenance="sure")]}), "provenance out of"),
    (json.dumps({"unit": "pJ", "prices": [], "covers": ["heating"]}), "covers"),
    (json.dumps({"unit": "fJ", "prices": [], "extends": "horowitz-45nm"}), "unit"),
])
def test_a_broken_list_is_refused_with_a_reason(text, words, tmp_path):
    path = tmp_path / "own.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        load_prices(path)
    with pytest.raises(ValueError, match="horowitz-45nm"):
        load_prices("nowhere")
