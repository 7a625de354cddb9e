import types

import pytest

from jaxt2i.verify import find
from jaxt2i.verify.golden import GoldenError


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("clip_hf/new_folder/text_image", "encoders.clip_goldens"),
        ("galip/text_encoder", "encoders.clip_goldens"),
        ("galip/netG", "systems.galip.goldens"),
        ("df_gan/text_encoder", "systems.damsm.goldens"),
        ("no_such_system/netG", None),
        ("dino_vits16/dinov2_tiny/native_42", "encoders.dino_goldens"),
        ("dino_vits16/img_99", "encoders.dino_goldens"),
        ("metrics/resize", "metrics.resize_goldens"),
    ],
)
def test_folders_find_their_runner(name, module):
    folder, _, case = name.rpartition("/")
    found = find.runner(folder, case)
    found = getattr(found, "func", found)
    assert (found and found.__module__) == (module and f"jaxt2i.{module}")


def file(name, *serves):
    return types.SimpleNamespace(__name__=name, SERVES=serves, CASES={"*": name})


def test_the_longest_pattern_wins_and_a_tie_is_an_error(monkeypatch):
    files = (file("one", "a/*", "b/*"), file("two", "a/text_*", "b/?"))
    monkeypatch.setattr(find, "modules", lambda: files)
    assert find.runner("a", "text_1") == "two"
    assert find.runner("a", "other") == "one"
    assert find.runner("c", "other") is None
    with pytest.raises(GoldenError, match="b/x: one and two both serve it"):
        find.runner("b", "x")


@pytest.mark.parametrize(
    ("name", "products"),
    [
        ("stylegan_t/netG", "float32"),
        ("attngan/netG", "float32"),
        ("dm_gan/netG", "float32"),
        ("damsm/losses", "float32"),
        ("souza_single_stage/netG", "float32"),
        ("df_gan/netG", "tensorfloat32"),
        ("df_gan/text_encoder", "float32"),
        ("galip/netG", "default"),
        ("galip/text_encoder", "default"),
        ("no_such_system/netG", "default"),
    ],
)
def test_cases_multiply_as_the_published_presets_train(name, products):
    assert find.training_products(*name.split("/")) == products


def test_presets_that_disagree_have_no_one_answer(monkeypatch):
    def preset(products):
        make = lambda: types.SimpleNamespace(matmul_precision=products)  # noqa: E731
        make.published = True
        return make

    presets = {"one": preset("float32"), "two": preset("default")}
    monkeypatch.setattr("jaxt2i.configs.galip.PRESETS", presets)
    with pytest.raises(
        GoldenError, match="published presets of galip multiply in default, float32"
    ):
        find.training_products("galip", "netG")
