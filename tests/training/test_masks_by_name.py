"""Masks on the command line."""

import pytest

from keras_topo import masks
from keras_topo.training.masks_by_name import check_mask, has_start, mask_of

MINE = """
import keras
from keras_topo.masks import TableMask

@keras.saving.register_keras_serializable(package="mine")
class Mine(TableMask):
    pass

class NoMask:
    pass
"""


def test_masks_of_keras_topo():
    check_mask("decay")
    assert mask_of("none") is None and mask_of(None) is None
    assert mask_of("table", initial="ones").initial == "ones"


def test_masks_that_have_no_start():
    assert isinstance(mask_of("causal", initial="ones"), masks.CausalMask)
    assert not has_start("causal") and has_start("causal*table")
    product = mask_of("causal*table", initial="ones")
    assert product.masks[1].initial == "ones"


def test_products_of_names():
    check_mask("table*gated*decay")
    product = mask_of("table*gated*decay", initial="ones")
    assert isinstance(product, masks.ProductMask)
    found = [type(mask).__name__ for mask in product.masks]
    assert found == ["TableMask", "GatedMask", "DecayMask"]
    assert all(mask.initial == "ones" for mask in product.masks)
    text = "table*keras_topo.masks:GaussianMask"
    check_mask(text)
    found = mask_of(text, initial="ones").masks
    assert found[0].initial == "ones" and found[1].initial == "decays"
    assert has_start(text)
    for text in ("table*", "table*none", "table*mine"):
        with pytest.raises(ValueError, match="`mask` expects"):
            check_mask(text)


def test_a_class_in_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    text = f"{file}:Mine"
    check_mask(text)
    mask = mask_of(text, initial="ones")
    assert type(mask).__name__ == "Mine" and isinstance(mask, masks.TableMask)
    # The file is run once, or there would be two classes of the name.
    assert type(mask_of(text)) is type(mask)


def test_a_class_in_a_module():
    mask = mask_of("keras_topo.masks:GaussianMask")
    assert isinstance(mask, masks.GaussianMask)


@pytest.mark.parametrize(
    "text",
    [
        "tables",
        "no.such.module:Mask",
        ".:Mask",
        "keras_topo.masks:SumMask",
        "FILE:NoMask",
        "FILE:Missing",
        "FILE",
    ],
)
def test_what_is_no_mask(tmp_path, text):
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    text = text.replace("FILE", str(file))
    with pytest.raises(ValueError, match="Received: "):
        check_mask(text)
