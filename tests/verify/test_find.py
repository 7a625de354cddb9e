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
