"""Every mask against its formula, in float64 NumPy."""

import dataclasses
import json

import keras
import numpy as np
import oracles
import pytest
import reference as ref

from keras_topo import masks
from keras_topo.masks import Grid, Sequence
from keras_topo.masks.mask import operator_for

HEADS, BATCH, CHANNELS = 2, 2, 3

MASKS = {
    "table": {},
    "distance": {},
    "distance-1": {"degree": 1},
    "separable": {},
    "separable-2": {"rank": 2},
    "separable-decay": {"terms": "decay", "rank": 2},
    "decay": {},
    "decay-3": {"num_scales": 3},
    "gaussian": {},
    "gated": {},
    "curves": {},
    "curves-diagonal": {"curves": ("columns", "diagonal")},
    "resolvent": {},
    "causal": {},
}
# Masks that do not support rings, and masks without order.
ON_OPEN_GRIDS = {"gated", "curves", "resolvent", "causal"}

TOPOLOGIES = [
    Sequence(7),
    Sequence(6, causal=True),
    Grid((5,), num_prefix_tokens=2),
    Grid((3, 4)),
    Grid((2, 3, 2), num_prefix_tokens=1),
    Grid((3, 5), periodic=(True, False)),
    Grid((6,), periodic=True),
]
if ref.on_jax:
    # Each compiles for seconds; the operators' own tests have all.
    TOPOLOGIES = [TOPOLOGIES[1], TOPOLOGIES[2]]


def kind_of(name):
    return name.partition("-")[0]


def make(name):
    return masks.get(kind_of(name), **MASKS[name])


def fits(name, topology):
    if kind_of(name) == "curves" and (
        topology.causal or "diagonal" in name and len(topology.shape) != 2
    ):
        return False
    return not any(topology.periodic) or kind_of(name) not in ON_OPEN_GRIDS


def with_inputs(topology, seed=3):
    x = np.random.default_rng(seed).normal(
        size=(BATCH, *topology.shape, CHANNELS)
    )
    return dataclasses.replace(topology, inputs=ref.tensor(x, "float32"))


def built(mask, topology, seed=0):
    """A mask with weights moved from their initial values, of either sign."""
    mask.build(HEADS, with_inputs(topology))
    random = np.random.default_rng(seed)
    for weight in mask.weights:
        weight.assign(random.uniform(-1.5, 1.5, weight.shape))
    return mask


def check(mask, topology, what=""):
    topology = with_inputs(topology)
    found = ref.dense(operator_for(mask, topology))
    expected = oracles.matrix(mask, topology)
    shape = np.broadcast_shapes(found.shape, expected.shape)
    found, expected = (np.broadcast_to(x, shape) for x in (found, expected))
    ref.assert_close(found, expected, 2e-5, f"{topology} {what}")
    # Zeros are exactly zero.
    assert np.all(found[expected == 0] == 0)


@pytest.mark.parametrize("name", MASKS)
def test_every_mask_on_every_topology(name):
    for topology in TOPOLOGIES:
        if fits(name, topology):
            check(built(make(name), topology), topology)


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("name", MASKS)
def test_every_mask_at_other_sizes(name):
    """Each mask is built at one size and used at another."""
    for first, other in (
        (Sequence(4), Sequence(7)),
        (Sequence(6, causal=True), Sequence(4, causal=True)),
        (Grid((3, 4)), Grid((5, 2))),
        (Grid((4, 3), 1, True), Grid((6, 5), 1, True)),
    ):
        if fits(name, first):
            check(built(make(name), first), other, f"made for {first}")


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("name", ["table", "distance", "separable"])
def test_shared_by_heads(name):
    mask = built(masks.get(name, share_heads=True), Grid((3, 4)))
    assert {w.shape[0] for w in mask.weights} == {1}
    check(mask, Grid((3, 4)))


@pytest.mark.slow_on_jax
def test_sums_and_products():
    def inside(mask, cells):
        if not isinstance(mask, (masks.SumMask, masks.ProductMask)):
            return oracles.matrix(mask, cells)
        inner = [inside(m, cells) for m in mask.masks]
        combine = np.sum if isinstance(mask, masks.SumMask) else np.prod
        return combine(np.broadcast_arrays(*inner), axis=0)

    def oracle(mask, topology):
        return ref.bordered(
            inside(mask, topology.cells), topology.num_prefix_tokens
        )

    get = masks.get
    cases = [
        (get("decay") + get("table"), Grid((3, 4), num_prefix_tokens=1)),
        (get("gated") + get("decay"), Sequence(6, causal=True)),
        (get("decay") * get("decay"), Sequence(6)),
        (get("gated") * get("decay"), Sequence(6)),
        # As many tokens as heads.
        (get("gated") * get("decay"), Sequence(HEADS, causal=True)),
        (get("gated") * get("causal"), Sequence(6)),
        (get("decay") * get("causal"), Sequence(6)),
        (get("causal") * get("causal"), Sequence(6)),
        (get("table") * get("decay"), Sequence(6, causal=True)),
        (get("table") * get("gaussian"), Grid((3, 4), num_prefix_tokens=2)),
        (get("curves") * get("resolvent"), Grid((2, 2, 3))),
        (get("decay") * (get("gated") + get("causal")), Sequence(6)),
        ((get("table") + get("decay")) * get("decay"), Sequence(6)),
    ]
    for mask, topology in cases:
        mask = built(mask, topology)
        topology = with_inputs(topology)
        found = ref.dense(operator_for(mask, topology))
        expected = oracle(mask, topology)
        found = np.broadcast_to(found, expected.shape)
        ref.assert_close(found, expected, 2e-5, f"{mask} {topology}")
    # In its simplest form.
    product = built(get("gated") * get("decay"), Sequence(6, causal=True))
    operator = operator_for(product, with_inputs(Sequence(6, causal=True)))
    assert type(operator).__name__ == "GatedDecay" and operator.carries_state
    assert not isinstance(get("decay").__add__("decay"), masks.Mask)


# Starts.


@pytest.mark.few_on_jax("table", "decay")
@pytest.mark.parametrize("name", ["table", "distance", "separable", "decay"])
def test_masks_start_as_decays(name):
    """Decays have several scales: heads differ in the rate of the distance."""
    cases = [
        (Grid((4, 3)), 0.5 ** np.arange(HEADS)),
        (Sequence(6), 2 ** (-8 * np.arange(1, HEADS + 1) / HEADS)),
    ]
    for topology, rates in cases:
        mask = masks.get(name)
        mask.build(HEADS, topology)
        found = ref.dense(operator_for(mask, topology))
        distance = sum(abs(o) for o in oracles.offsets(topology))
        expected = np.exp(-rates[:, None, None] * distance)
        ref.assert_close(found, expected, 1e-5)


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("name", MASKS)
def test_masks_that_start_as_ones(name):
    topology = with_inputs(Grid((4, 3), num_prefix_tokens=1))
    if kind_of(name) == "causal":
        return
    mask = masks.get(kind_of(name), initial="ones", **MASKS[name])
    mask.build(HEADS, topology)
    found = ref.dense(operator_for(mask, topology))[..., 1:, 1:]
    # All but one, up to a common factor; noise tells several tables apart,
    # and a resolvent counts paths.
    found = found / found[..., :1, :1]
    bound = {"separable-2": 0.25, "resolvent": np.inf}.get(name, 0.02)
    assert np.abs(found - 1).max() < bound


@pytest.mark.slow_on_jax
def test_the_other_masks_start_local():
    for name in ("gaussian", "gated", "curves", "resolvent", "decay-3"):
        topology = with_inputs(Grid((4, 4)))
        mask = make(name)
        mask.build(HEADS, topology)
        found = ref.dense(operator_for(mask, topology))
        found = found.reshape(-1, *found.shape[-2:])
        assert np.all(found[:, 0, 1] > found[:, 0, 3]), name
        # From head to head.
        assert np.all(found[0, 0, 1] < found[1, 0, 1] * 0.99), name


def test_rates_from_head_to_head():
    rates = masks.initial_rates(12, Grid((8, 8)))
    np.testing.assert_allclose(rates[[0, -1]], [1, 1 / 128])
    ratios = rates[1:] / rates[:-1]
    np.testing.assert_allclose(ratios, ratios[0])
    slopes = masks.initial_rates(8, Sequence(100))
    np.testing.assert_allclose(slopes, 0.5 ** np.arange(1, 9))


# Configuration.


@pytest.mark.parametrize("name", [*MASKS, "sum", "product"])
def test_config_round_trip(name):
    combinations = {
        "sum": lambda: masks.get("table", reach=3) + masks.get("decay"),
        "product": lambda: masks.get("gated") * masks.get("causal"),
    }
    mask = combinations[name]() if name in combinations else make(name)
    topology = with_inputs(Sequence(5))
    mask.build(HEADS, topology)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(mask)))
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(mask) and again.get_config() == mask.get_config()
    for other in (again, mask.clone(), masks.get(mask), masks.get(config)):
        assert not other.built and not other.weights
        other.build(HEADS, topology)
        for new, old in zip(other.weights, mask.weights, strict=True):
            assert new is not old and new.shape == old.shape
            assert new.name == old.name


@pytest.mark.slow_on_jax
def test_weights_are_float32_at_least():
    for policy, dtype in (
        ("mixed_bfloat16", "float32"),
        ("mixed_float16", "float32"),
        ("bfloat16", "float32"),
        ("float64", "float64"),
    ):
        for name in ("table", "distance", "separable-decay", "gated", "curves"):
            mask = masks.get(kind_of(name), dtype=policy, **MASKS[name])
            topology = with_inputs(Grid((2, 3), dtype=dtype))
            mask.build(HEADS, topology)
            assert {w.dtype for w in mask.weights} == {dtype}, (name, policy)
            operator = operator_for(mask, topology)
            assert operator.dtype == dtype


def test_python_sums():
    mask = sum([masks.DecayMask(), masks.CausalMask(), masks.TableMask()])
    assert isinstance(mask, masks.SumMask)
    for number in (1, 0.5):
        with pytest.raises(TypeError, match="unsupported operand"):
            number + masks.DecayMask()


def test_sizes_that_are_not_known():
    assert Grid((None, 3)).extents == (None, 3.0)
    assert Sequence(None).units == (1.0,)


# Errors.


@pytest.mark.parametrize(
    "name", ["table", "separable", "decay", "gaussian", "resolvent"]
)
def test_weights_for_each_axis(name):
    mask = built(masks.get(name), Grid((3, 4)))
    for topology in (Sequence(12), Grid((2, 3, 4))):
        with pytest.raises(ValueError, match="a grid of 2 axes.*Received: "):
            operator_for(mask, topology)
    mask = built(masks.get(name), Sequence(12))
    with pytest.raises(ValueError, match="a sequence.*Received: "):
        operator_for(mask, Grid((3, 4)))


def test_the_graph_of_a_mask_has_other_nodes():
    mask = masks.DiffusionMask(np.ones((5, 5)) - np.eye(5))
    mask.build(2)
    with pytest.raises(ValueError, match="5 nodes.*Received.* 6 tokens"):
        operator_for(mask, masks.Nodes(6))


@pytest.mark.parametrize("name", sorted(masks.NAMES.keys() - {"causal"}))
def test_nodes_have_no_offsets(name):
    tokens = masks.Nodes(3, inputs=np.zeros((1, 3, 4), "float32"))
    mask = masks.get(name)
    with pytest.raises(ValueError, match="`topology`.*GraphMask.*Received"):
        mask.build(2, tokens)
        mask.operator(tokens)


def test_errors():
    cases = [
        (lambda: masks.get("tabel"), "`mask`.*'tabel'"),
        (lambda: masks.get("Decay"), "`mask`.*'Decay'"),
        (lambda: masks.get(3), "`mask`.*3"),
        (lambda: masks.get("diffusion"), "`mask`.*DiffusionMask"),
        (lambda: masks.get(masks.DecayMask), r"`mask`.*DecayMask\(...\)"),
        (lambda: masks.get(masks.DecayMask(), num_scales=2), "options"),
        (lambda: masks.DecayMask(num_scales=0), "`num_scales`.*0"),
        (lambda: masks.DecayMask(initial="zeros"), "`initial`.*'zeros'"),
        (lambda: masks.TableMask(reach=0), "`reach`.*0"),
        (lambda: masks.TableMask(reach=(3, 2.5)), "`reach`.*2.5"),
        (lambda: masks.DistanceMask(degree=3), "`degree`.*3"),
        (lambda: masks.SeparableMask(terms="rows"), "`terms`.*'rows'"),
        (lambda: masks.CurvesMask("rows"), "`curves`.*'rows'"),
        (lambda: masks.CurvesMask(["row"]), "`curves`.*'row'"),
        (lambda: masks.SumMask([]), "`masks`"),
        (lambda: masks.ProductMask([None]), "`masks`"),
        (lambda: masks.TableMask().build(2, Sequence(None)), "`reach`.*None"),
        (lambda: masks.TableMask(3).build(2, Grid((2, 2))), None),
        (lambda: masks.TableMask((3, 3)).build(2, Sequence(4)), "`reach`"),
        (lambda: masks.GatedMask().build(2, Sequence(4)), "`inputs`"),
        (
            lambda: operator_for(
                built(masks.CurvesMask(), Sequence(4)), Sequence(4, True)
            ),
            "CurvesMask",
        ),
        (
            lambda: masks.CausalMask().operator(masks.Nodes(3)),
            "CausalMask.*Received",
        ),
    ]
    for call, message in cases:
        if message is None:
            call()
            continue
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "Received: " in str(caught.value)
