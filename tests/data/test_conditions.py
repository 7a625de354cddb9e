"""Words to arrays and back: stable both ways, and one sentence for every mistake."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxt2i.data import pictures, schema
from jaxt2i.data.conditions import OPTIONAL, READ, Conditions, Row, laid_over, read_file
from jaxt2i.data.drawn.synthetic import Synthetic
from jaxt2i.data.pictures import Framing
from jaxt2i.data.schema import FIELDS, DataError, Sizes

NAMES = {"label": ("rose", "daisy", "tulip"), "box_label": ("cat", "dog", "mat", "dog house")}
SIZES = Sizes(batch=1, height=16, width=16, tokens=5, objects=3, mask_resolution=8, text_width=2)
LAYOUT = ("boxes", "box_label", "box_mask", "shape_masks")
ALL = tuple(READ)


def tokens(captions):
    """The first five characters' numbers."""
    ids = np.zeros((len(captions), 5), np.int32)
    for row, text in zip(ids, captions, strict=True):
        row[: len(text[:5])] = [ord(c) for c in text[:5]]
    return ids, ids > 0


def conditions(root=Path(), height=16, width=16, names=NAMES, **kw):
    sizes = {**vars(SIZES), "height": height, "width": width}
    return Conditions(tokenizer=tokens, sizes=Sizes(**sizes), class_names=names, root=root, **kw)


def noise(width, height, mode="RGB", seed=0):
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, shape, np.uint8))


# --- both ways ------------------------------------------------------------------------------------

UNIT = st.floats(0, 1)
SIDE = st.floats(1e-3, 1)
LABELS = st.sampled_from([*NAMES["box_label"], 0, 1, 2, 3])


@st.composite
def boxes(draw):
    x, y, w, h = draw(UNIT), draw(UNIT), draw(SIDE), draw(SIDE)
    return [min(x, 0.99), min(y, 0.99), w, h]  # may reach out


@st.composite
def random_rows(draw, height, width):
    def pixels(*shape):
        seed = draw(st.integers(0, 99))
        return np.random.RandomState(seed).randint(0, 256, shape, np.uint8)

    things = []
    for box in draw(st.lists(boxes(), max_size=5)):
        thing = {"label": draw(LABELS), "box": box}
        things.append(thing | ({"mask": pixels(8, 8)} if draw(st.booleans()) else {}))
    numbers = st.floats(-1e9, 1e9, width=32)
    row = {
        "prompt": draw(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)),
        "label": draw(st.sampled_from([*NAMES["label"], 0, 1, 2])),
        "objects": things,
        "image": pixels(height, width, 3),
        "edit_region": draw(st.sampled_from([pixels(height, width), [[0.1, 0.2, 0.7, 0.9]]])),
        "segmentation": pixels(height, width).astype(np.int32) // 128,
        "text_vector": draw(st.lists(numbers, min_size=2, max_size=2)),
    }
    if draw(st.booleans()):
        side = draw(st.integers(1, 50))
        row |= {"units": "pixels", "size": [width * side, height * side]}
        scale = [width * side, height * side] * 2
        for thing in things:
            thing["box"] = [n * m for n, m in zip(thing["box"], scale, strict=True)]
        if isinstance(row["edit_region"], list):
            row["edit_region"] = [[n / 2 for n in scale]]
    return row


@pytest.mark.parametrize("shape", [(16, 16), (16, 32), (24, 8)])
@given(data=st.data())
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_words_and_arrays_are_stable_both_ways(shape, data):
    by = conditions(height=shape[0], width=shape[1])
    row = data.draw(random_rows(*shape))
    first = by.arrays(row, ALL)
    back = by.row(first, row["prompt"])
    second = by.arrays(back, ALL)
    assert set(first) == set(second) == set(ALL)
    for key in ALL:
        assert first[key].dtype == second[key].dtype == FIELDS[key].dtype
        np.testing.assert_array_equal(first[key], second[key], err_msg=key)
    again = by.row(second, row["prompt"])
    np.testing.assert_equal(dict(again), dict(back))
    schema.validate({k: v[None] for k, v in first.items()}, by.sizes, ALL)


def test_the_corpus_survives_the_trip():
    source = Synthetic("scenes", 32, mask_resolution=16)
    by = Conditions(
        tokenizer=None, sizes=Sizes(batch=1, height=32, width=32),
        class_names=schema.names_of(source),
    )  # fmt: skip
    keys = (*LAYOUT, "image", "label", "segmentation")
    for i in range(60):
        given_arrays = source.example(i, keys)
        words = by.row(given_arrays, source.captions(i)[0])
        assert all(isinstance(thing["label"], str) for thing in words["objects"])
        found = by.arrays(words, keys)
        for key in keys:
            np.testing.assert_array_equal(found[key], given_arrays[key], err_msg=key)
    assert not by.noted


def test_what_is_written_beside_pictures_is_drawn_again(tmp_path):
    """A row with arrays, written as PNG and JSON as `sample` does, gives the same arrays."""
    by = conditions()
    row = Row({"prompt": "a cat", "seed": 9, "controls": {"psi": 0.5}, "label": "tulip"})
    row |= {"objects": [{"label": "dog", "box": [0.123456789, 0.2, 0.5, 0.3]}]}
    row |= {"image": np.asarray(noise(16, 16)), "edit_region": [[0.1, 0.1, 0.33, 0.8]]}
    first = by.arrays(row, (*ALL[:4], "label", *LAYOUT, "image", "edit_region"))
    line = row | by.row(first)
    for i, (word, pixels) in enumerate([(w, line[w]) for w in ("image", "edit_region")]):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        line[word] = f"{i}.png"
    for thing in line["objects"]:
        Image.fromarray(thing["mask"]).save(tmp_path / "m.png")
        thing["mask"] = "m.png"
    line |= {"file_name": "0.png", "text": "a cat", "number": 0}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(line) + "\n")
    (back,) = read_file(tmp_path / "metadata.jsonl")
    assert back["seed"] == 9
    for key, value in by.arrays(back, tuple(first)).items():
        np.testing.assert_array_equal(value, first[key], err_msg=key)


def test_every_word_of_the_schema_has_a_translation():
    without = {"all_tokens", "all_token_mask", "captions_mask", "box_attributes", "setting"}
    without |= {"relation_objects", "relation_label", "relation_mask", "attributes"}
    without |= {"object_attributes", "latent_mean", "latent_std"}
    assert set(FIELDS) - set(READ) == without | {"mask", "id"}
    assert set(OPTIONAL) <= set(READ)


# --- texts, classes, objects ----------------------------------------------------------------------


def test_texts_and_what_is_not_said():
    found = conditions().arrays({"prompt": "abc"}, (*ALL[:4], "edit_region"))
    np.testing.assert_array_equal(found["tokens"], [97, 98, 99, 0, 0])
    assert not found["negative_tokens"].any()
    assert (found["edit_region"] == 255).all()
    found = conditions().arrays({"negative": "b"}, ("negative_tokens",))
    assert found["negative_tokens"][0] == 98


def test_classes_by_name_or_number():
    for label in ("tulip", 2, np.int64(2)):
        assert conditions().arrays({"label": label}, ("label",))["label"] == 2
    assert conditions(names=()).arrays({"label": 7}, ("label",))["label"] == 7
    assert conditions(names=("a", "b")).arrays({"label": "b"}, ("label",))["label"] == 1
    same = conditions(names={"label": ("a", "b", "a")})
    assert [same.row({"label": n})["label"] for n in (0, 1, 2, 3)] == [0, "b", 2, 3]


def test_the_largest_come_first_and_the_smallest_give_way(capsys):
    things = [{"label": i % 4, "box": [0, 0, 0.1 * (i % 4 + 1), 0.5]} for i in range(5)]
    by = conditions()
    for _ in range(2):
        found = by.arrays({"objects": things}, LAYOUT)
        assert found["box_label"].tolist() == [3, 2, 1]
    said = capsys.readouterr().err
    assert said.count("a row has 5 objects; the 3 largest are drawn (config.data.objects)") == 1
    assert by.noted == {"objects too many": 2, "boxes filled": 6}
    found = conditions(object_order="annotation").arrays({"objects": things}, LAYOUT)
    assert found["box_label"].tolist() == [1, 2, 3]


def test_boxes_become_masks_where_there_are_none():
    by = conditions()
    found = by.arrays({"objects": [{"box": [0.25, 0.5, 0.5, 0.01]}]}, ("shape_masks",))
    assert by.noted == {"boxes filled": 1}
    mask = found["shape_masks"][0]
    assert mask[4, 2:6].tolist() == [255] * 4
    assert mask.sum() == 4 * 255, "a box is never without a pixel"


def test_pixels_are_those_of_the_size_or_the_image(tmp_path):
    noise(64, 32).save(tmp_path / "a.png")
    box = {"objects": [{"label": 0, "box": [16, 0, 32, 16]}], "units": "pixels"}
    for of in ({"size": [64, 32]}, {"image": "a.png"}):
        by = conditions(tmp_path, height=16, width=32)
        found = by.arrays(box | of, ("boxes", "box_mask"))
        np.testing.assert_allclose(found["boxes"][0], [0.25, 0, 0.5, 0.5])
        assert not by.noted


def test_boxes_that_reach_out_are_cut_and_said(capsys):
    by = conditions()
    row = {"objects": [{"label": 0, "box": [-0.25, 0.5, 0.5, 0.75]}]}
    found = by.arrays(row, ("boxes",))["boxes"][0]
    np.testing.assert_allclose(found, [0, 0.5, 0.25, 0.5])
    assert by.noted == {"boxes cut at the border": 1}
    assert "the box [-0.25, 0.5, 0.5, 0.75] reaches out of the picture" in capsys.readouterr().err


def test_a_models_boxes_that_are_none_are_left_out(capsys):
    by = conditions()
    drawn = {
        "boxes": np.array([[0, 0, 0.5, 0.5], [0.1, 0.1, 0, 0.5], [np.nan] * 4], np.float32),
        "box_label": np.array([1, 2, 3]),
        "box_mask": np.ones(3, bool),
    }
    found = by.row(drawn)
    assert found["objects"] == [{"label": "dog", "box": [0, 0, 0.5, 0.5]}]
    assert by.noted == {"boxes that are none": 2}
    assert capsys.readouterr().err.count("the object is left out") == 1


# --- pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "shape"), [((50, 50), (16, 16)), ((61, 40), (16, 16)),
                                             ((40, 61), (16, 32))])  # fmt: skip
def test_pictures_are_cropped_and_resized_as_held_out_ones(tmp_path, capsys, size, shape):
    image = noise(*size)
    image.save(tmp_path / "a.png")
    by = conditions(tmp_path, *shape)
    found = by.arrays({"image": "a.png"}, ("image",))["image"]
    want, _ = Framing(shape).show(0, lambda need: (image, image.size))
    assert (found.dtype, found.shape) == (np.uint8, (*shape, 3))
    np.testing.assert_array_equal(found, want)
    cropped = size[0] * shape[0] != size[1] * shape[1]
    said = capsys.readouterr().err
    assert ("cropped to the shape of what is drawn" in said) == cropped
    assert by.noted["cropped pictures"] == cropped


def test_files_are_shown_as_viewers_do(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    sharp = Image.new("RGB", (32, 32), "black")
    sharp.paste("white", (0, 0, 32, 16))
    sharp.save(tmp_path / "turned.png", exif=exif)
    Image.new("LA", (16, 16), (0, 0)).save(tmp_path / "clear.png")
    by = conditions(tmp_path)
    found = by.arrays({"image": "turned.png"}, ("image",))["image"]
    assert found[8, 14, 0] == 255, "the upper half is at the right now"
    assert found[8, 1, 0] == 0
    assert (by.arrays({"image": "clear.png"}, ("image",))["image"] == 255).all()


def test_boxes_and_masks_are_cropped_with_their_picture(tmp_path, capsys):
    """A picture of 64 x 32 shows its middle; what lies left of it is gone."""
    image = Image.new("L", (64, 32))
    image.paste(255, (16, 0, 32, 32))
    image.save(tmp_path / "half.png")
    by = conditions(tmp_path)
    row = {
        "image": "half.png",
        "edit_region": "half.png",
        "objects": [
            {"label": 1, "box": [0.25, 0, 0.25, 1], "mask": "half.png"},
            {"label": 2, "box": [0, 0, 0.2, 1]},
        ],
    }
    found = by.arrays(row, ("image", "edit_region", *LAYOUT))
    np.testing.assert_array_equal(found["boxes"][0], [0, 0, 0.5, 1])
    assert found["box_mask"].tolist() == [True, False, False]
    left = np.arange(16) < 8
    np.testing.assert_array_equal(found["edit_region"], np.tile(left * 255, (16, 1)))
    np.testing.assert_array_equal(found["shape_masks"][0], np.tile(left[::2] * 255, (8, 1)))
    assert by.noted["boxes not shown"] == 1
    stretched = conditions(tmp_path, crop="none").arrays(row, ("boxes", "box_mask"))
    assert stretched["box_mask"].tolist() == [True, True, False]


def test_masks_may_be_smaller_copies(tmp_path):
    noise(64, 32).save(tmp_path / "a.png")
    noise(32, 16, "L").save(tmp_path / "m.png")
    by = conditions(tmp_path)
    found = by.arrays({"image": "a.png", "edit_region": "m.png"}, ("edit_region",))
    np.testing.assert_array_equal(found["edit_region"], np.asarray(noise(32, 16, "L"))[:, 8:24])


def test_classes_of_pixels_are_numbers_not_colours(tmp_path):
    classes = np.random.RandomState(0).randint(0, 3, (16, 16)).astype(np.uint8)
    picture = Image.fromarray(classes).convert("P")
    picture.putdata(classes.ravel().tolist())
    picture.save(tmp_path / "p.png")
    Image.fromarray(classes.astype(np.uint16)).save(tmp_path / "wide.png")
    for name in ("p.png", "wide.png"):
        found = conditions(tmp_path).arrays({"segmentation": name}, ("segmentation",))
        np.testing.assert_array_equal(found["segmentation"], classes)


def test_vectors_from_numbers_and_files(tmp_path):
    np.save(tmp_path / "v.npy", np.array([1.5, -2], np.float64))
    for vector in ([1.5, -2], "v.npy", np.array([1.5, -2])):
        found = conditions(tmp_path).arrays({"text_vector": vector}, ("text_vector",))
        np.testing.assert_array_equal(found["text_vector"], np.array([1.5, -2], np.float32))


# --- what is wrong --------------------------------------------------------------------------------


def thing(**kw):
    return {"objects": [{"label": 0, "box": [0, 0, 1, 1]}, {"label": 0, "box": [0, 0, 1, 1], **kw}]}


WRONG = {
    "missing": ("tokens", {"label": 1}, r"'prompt' is missing, from which this run draws \(token"),
    "no such key": ("all_tokens", {}, r"no word of a row gives 'all_tokens'; did you mean"),
    "unknown word": ("tokens", {"promt": "a"}, r"no word 'promt'; did you mean 'prompt'\?"),
    "prompt": ("label", {"label": 1, "prompt": None}, r"'prompt' is null; expected a text"),
    "class": ("label", {"label": "rosy"}, r"'label': no class 'rosy'; did you mean 'rose'\?"),
    "class far": ("label", {"label": "xx"}, r"no class 'xx'; known: rose, daisy, tulip"),
    "class above": ("label", {"label": 3}, r"'label' is 3; expected the name or the number of a "
                    r"class, from 0 to 2"),
    "class below": ("label", {"label": -1}, r"'label' is -1; expected .* from 0 to 2"),
    "class truth": ("label", {"label": True}, r"'label' is true; expected the name or the number"),
    "class float": ("label", {"label": 1.0}, r"'label' is 1\.0; expected the name or the number"),
    "class list": ("label", {"label": ["rose"]}, r"'label' is \[\"rose\"\]; expected the name or"),
    "object class": ("box_label", thing(label="dgo"), r"'objects\[1\]\.label': no class 'dgo'; did "
                     r"you mean 'dog'( or '.*')?\?"),
    "object number": ("box_label", thing(label=4), r"'objects\[1\]\.label' is 4; expected .* to 3"),
    "object unnamed": ("box_label", {"objects": [{"box": [0, 0, 1, 1]}]}, r"has no 'label', which"),
    "objects": ("boxes", {"objects": {}}, r"'objects' is \{\}; expected a list of objects"),
    "object": ("boxes", {"objects": ["cat"]}, r"'objects\[0\]' is \"cat\"; expected an object suc"),
    "object word": ("boxes", thing(lable=3), r"'objects\[1\]': an object has no word 'lable'; did "
                    r"you mean 'label'\?"),
    "no box": ("boxes", {"objects": [{"label": 0}]}, r"'objects\[0\]' has no 'box'; expected \[x,"),
    "box null": ("boxes", thing(box=None), r"'objects\[1\]\.box' is null; expected \[x, y, width"),
    "box short": ("boxes", thing(box=[0, 0, 1]), r"box' is \[0, 0, 1\]; expected .* four finite"),
    "box long": ("boxes", thing(box=[0] * 5), r"box' is \[0, 0, 0, 0, 0\]; expected .* four finit"),
    "box NaN": ("boxes", thing(box=[0, 0, 1, float("nan")]), r"box' is \[0, 0, 1, NaN\]; expected"),
    "box endless": ("boxes", thing(box=[0, 0, 1, 10**400]), r"four finite numbers"),
    "box of texts": ("boxes", thing(box=["0", 0, 1, 1]), r"box' is \[\"0\", 0, 1, 1\]; expected"),
    "box negative": ("boxes", thing(box=[0.5, 0.5, -0.1, 0.2]), r"expected .* height above 0"),
    "box flat": ("boxes", thing(box=[0.5, 0.5, 0.1, 0]), r"expected .* width and height above 0"),
    "box outside": ("boxes", thing(box=[1.0, 0.2, 0.5, 0.5]), r"expected .*, inside the picture"),
    "box pixels": ("boxes", thing(box=[12, 9, 40, 30]), r"these look like pixels: write \"units\": "
                   r"\"pixels\" and \"size\": \[width, height\] in the row"),
    "box corner": ("boxes", thing(box=[0, 0, 40, 30]), r"these look like pixels"),
    "pixels of what": ("boxes", thing(box=[0, 0, 4, 3]) | {"units": "pixels"}, r"of which picture"),
    "pixels outside": ("boxes", {"units": "pixels", "size": [64, 64], "objects": [
        {"label": 0, "box": [64, 0, 9, 9]}]}, r"box' is \[64, 0, 9, 9\]; expected .* inside the p"),
    "image missing": ("image", {"image": "pohto.png"}, r"'image' is 'pohto\.png': no such file; "
                      r"did you mean 'photo\.png'\?"),
    "image nameless": ("image", {"image": ""}, r"'image' is '': no such file"),
    "image odd name": ("image", {"image": "\0" * 9}, r"'image' is .*: no such file"),
    "image long name": ("image", {"image": "a" * 5000}, r"'image' is .*: no such file"),
    "image folder": ("image", {"image": "."}, r"'image' is .*: cannot be read; expected a picture"),
    "image none": ("image", {"image": "words.txt"}, r"words\.txt: not an image; expected a pictur"),
    "image cut": ("image", {"image": "cut.png"}, r"cut\.png: truncated or corrupt; expected a pic"),
    "image cut JPEG": ("image", {"image": "cut.jpg"}, r"cut\.jpg: truncated or corrupt"),
    "image empty": ("image", {"image": "empty.png"}, r"empty\.png: empty file"),
    "image number": ("image", {"image": 3}, r"'image' is 3; expected the name of a picture file"),
    "image floats": ("image", {"image": np.zeros((4, 4, 3))}, r"'image' is an array float64\[4, 4, "
                     r"3\]; expected uint8\[height, width, 3\]"),
    "mask missing": ("shape_masks", thing(mask="no.png"), r"'objects\[1\]\.mask' is 'no\.png': no"),
    "mask none": ("shape_masks", thing(mask="words.txt"), r"'objects\[1\]\.mask' is .*: not an im"),
    "mask shape": ("shape_masks", thing(mask="photo.png"), r"'objects\[1\]\.mask' has 20 x 10 "
                   r"pixels; expected 16 x 16, as the picture that it .* or that shape, or 8 x 8"),
    "mask of boxes": ("shape_masks", thing(mask=[[0, 0, 1, 1]]), r"\.mask' is .* the name of a pi"),
    "mask floats": ("shape_masks", thing(mask=np.zeros((8, 8))), r"expected uint8 or bool\[height"),
    "region shape": ("edit_region", {"edit_region": "photo.png"}, r"'edit_region' has 20 x 10 pix"),
    "region box": ("edit_region", {"edit_region": [[0, 0, 1, 1], [0, 0, 9, 9]]}, r"'edit_regi"
                   r"on\[1\]' is \[0, 0, 9, 9\]; expected .* these look like pixels"),
    "region boxless": ("edit_region", {"edit_region": [0, 0, 1, 1]}, r"'edit_region\[0\]' is 0; e"),
    "region number": ("edit_region", {"edit_region": 1}, r"'edit_region' is 1; expected the name "),
    "classes colour": ("segmentation", {"segmentation": "photo.png"}, r"unsupported pixel format"),
    "classes floats": ("segmentation", {"segmentation": np.zeros((16, 16))}, r"holds float64\[16,"),
    "vector short": ("text_vector", {"text_vector": [1.0]}, r"'text_vector' is an array \[1\]; exp"
                     r"ected 2 numbers, or a \.npy file of them \(config\.data\.text_width\)"),
    "vector NaN": ("text_vector", {"text_vector": [1, float("nan")]}, r"'text_vector' is not all "),
    "vector texts": ("text_vector", {"text_vector": ["a", "b"]}, r"'text_vector' is \[\"a\", "),
    "vector file": ("text_vector", {"text_vector": "words.txt"}, r"'text_vector' is \"words\."),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("given")
    noise(20, 10).save(root / "photo.png")
    (root / "words.txt").write_text("no picture")
    (root / "empty.png").write_bytes(b"")
    for name, kind in (("cut.png", "PNG"), ("cut.jpg", "JPEG")):
        out = io.BytesIO()
        noise(64, 64).save(out, kind)
        (root / name).write_bytes(out.getvalue()[: len(out.getvalue()) // 2])
    return root


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_with_its_place(folder, tmp_path, case):
    key, row, sentence = WRONG[case]
    with pytest.raises(DataError, match=sentence) as alone:
        conditions(folder).arrays(row, (key,))
    assert "\n" not in str(alone.value)
    placed = Row(row, {"": "c.jsonl line 7", **dict.fromkeys(row, "c.jsonl line 7")})
    with pytest.raises(DataError, match=r"^c\.jsonl line 7: ") as found:
        conditions(folder).arrays(placed, (key,))
    assert str(found.value).endswith(str(alone.value))


def test_names_that_a_run_does_not_have():
    with pytest.raises(DataError, match=r"'label' is \"rose\"; expected the number of a class"):
        conditions(names=()).arrays({"label": "rose"}, ("label",))
    with pytest.raises(DataError, match=r"'label' is -1; .* from 0 on"):
        conditions(names=()).arrays({"label": -1}, ("label",))
    by = conditions(names={"segmentation": ("sky",)})
    with pytest.raises(DataError, match=r"'segmentation' holds 2 at most; expected .* 1 to 1 for"):
        by.arrays({"segmentation": np.full((16, 16), 2)}, ("segmentation",))
    with pytest.raises(DataError, match=r"config\.data\.crop is 'middle'"):
        conditions(crop="middle").arrays({"objects": [{"box": [0, 0, 1, 1]}]}, ("boxes",))


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
    | st.sampled_from(["photo.png", "cut.png", "cat", "pixels"]),
    lambda x: st.lists(x, max_size=4)
    | st.dictionaries(st.sampled_from(["label", "box", "mask", "a"]), x, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(
    ["prompt", "label", "objects", "image", "edit_region", "segmentation", "text_vector",
     "units", "size", "negative"]), ODD))  # fmt: skip
@settings(deadline=None, max_examples=400, suppress_health_check=list(HealthCheck))
def test_anything_is_arrays_or_one_sentence(folder, row):
    by, said = conditions(folder), ""
    for key in ALL:
        try:
            found = by.arrays(row, (key,))[key]
            schema.validate({key: found[None]}, by.sizes, (key,))
        except DataError as error:
            said += str(error)
    assert "\n" not in said


def test_layers_as_the_command_line_lays_them(folder):
    rows = laid_over([{"prompt": "a"}, {"prompt": "b"}], [{"label": "daisy"}])
    found = [conditions(folder).arrays(row, ("tokens", "label")) for row in rows]
    assert [int(x["tokens"][0]) for x in found] == [97, 98]
    assert all(x["label"] == 1 for x in found)


def test_margins_of_pictures_are_not_part_of_it():
    """Held-out pictures are cropped at the centre, whatever training does."""
    row = {"image": np.asarray(noise(40, 20))}
    plain = conditions().arrays(row, ("image",))["image"]
    for crop in pictures.CROPS[2:3]:
        found = conditions(crop=crop).arrays(row, ("image",))["image"]
        np.testing.assert_array_equal(found, plain)
