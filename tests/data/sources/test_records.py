"""Prepared data sets as a source: boxes and masks in the view, languages, lists, damage."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from jaxt2i.configs.common import base
from PIL import Image

from jaxt2i.data import images, schema
from jaxt2i.data.builders.coco_stuff import Jaxt2iCocoStuff
from jaxt2i.data.builders.cub import Jaxt2iCub
from jaxt2i.data.builders.multi30k import Jaxt2iMulti30k
from jaxt2i.data.pictures import Framing
from jaxt2i.data.pipeline import Pipeline
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources import files, make_source, records
from jaxt2i.data.sources.records import Records, Wanted
from tests.data.builders import test_coco, test_coco_stuff, test_cub, test_multi30k
from tests.data.builders.built import build
from tests.data.test_pipeline import Lengths, equal

pytestmark = pytest.mark.xdist_group("records")
WIDE = Framing(64, "none")


@pytest.fixture(scope="module")
def stuff(tmp_path_factory):
    """COCO-Stuff: pictures of 64 x 48 and 80 x 60 with boxes, masks and classes of pixels."""
    root = tmp_path_factory.mktemp("stuff")
    build(Jaxt2iCocoStuff, test_coco_stuff.tree(root / "in"), root / "out")
    return root / "out"


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    root = tmp_path_factory.mktemp("birds")
    build(Jaxt2iCub, test_cub.tree(root / "in"), root / "out")
    return root / "out"


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory):
    root = tmp_path_factory.mktemp("multi")
    build(Jaxt2iMulti30k, test_multi30k.tree(root / "in"), root / "out", config="task2")
    return root / "out"


@pytest.fixture(scope="module")
def arrays(birds):
    """The birds in ArrayRecord files."""
    root = birds.parent
    config = tfds.download.DownloadConfig(manual_dir=root / "in", register_checksums=False)
    builder = Jaxt2iCub(data_dir=root / "arrays", file_format="array_record")
    builder.download_and_prepare(download_config=config)
    return root / "arrays"


def by_name(source):
    return {source.name(i).rsplit("/", 1)[-1]: i for i in range(source.size)}


def numbered(source, number):
    """The example of a COCO picture."""
    return next(i for name, i in by_name(source).items() if name.endswith(f"{number:012d}"))


# --- What an example holds ---------------------------------------------------------------------


def test_boxes_are_fractions_of_the_view(stuff):
    source = Records(str(stuff), "train", WIDE, Wanted(object_order="annotation"))
    example = source.example(numbered(source, 9), source.gives)
    seen = example["box_mask"]
    row = next(
        r
        for r in test_coco.build(Jaxt2iCocoStuff, stuff.parent / "in", stuff)["train"]
        if r["image/filename"].endswith("000000000009.jpg")
    )
    good = ~row["objects"]["is_crowd"]
    top, left, bottom, right = row["objects"]["bbox"][good].T
    expected = np.stack([left, top, right - left, bottom - top], 1)
    np.testing.assert_allclose(example["boxes"][seen], expected, atol=1e-6)
    np.testing.assert_array_equal(example["box_label"][seen], row["objects"]["label"][good])
    assert not example["boxes"][~seen].any()
    assert source.object_names[example["box_label"][0]] == row["objects"]["name"][0]


def test_masks_lie_where_they_were_drawn(stuff):
    """Picture 9 in 64 x 48: a stop sign at rows 30 to 39, columns 0 to 11, shown at 64 x 64."""
    source = Records(str(stuff), "train", WIDE, Wanted(mask_resolution=64))
    example = source.example(numbered(source, 9), source.gives)
    names = [source.object_names[label] for label in example["box_label"][example["box_mask"]]]
    mask = example["shape_masks"][names.index("stop sign")]
    expected = np.zeros((64, 64), bool)
    expected[40:53, :12] = True
    np.testing.assert_array_equal(mask > 127, expected)
    assert not example["shape_masks"][~example["box_mask"]].any()


def test_segmentation_is_the_class_and_one(stuff):
    source = Records(str(stuff), "train", WIDE)
    i = numbered(source, 9)
    stored = source._row(i).byte_strings("segmentation")[0]
    with Image.open(io.BytesIO(stored)) as image:
        classes = np.asarray(image.resize((64, 64), Image.Resampling.NEAREST)).astype(int)
    shown = source.example(i, ("segmentation",))["segmentation"]
    np.testing.assert_array_equal(shown, np.where(classes == 255, 0, classes + 1))
    assert 0 in shown
    assert shown.max() > 90


def test_everything_follows_chance_together(stuff):
    """Mirrored: boxes, masks and classes are mirror images of each other's plain forms."""
    source = Records(str(stuff), "train", Framing(32, "random_stretched", margin=1.0))
    i = numbered(source, 9)
    plain = source.example(i, source.gives, (0.0, 0.0, 0.9))
    turned = source.example(i, source.gives, (0.0, 0.0, 0.1))
    for key in ("image", "segmentation"):
        np.testing.assert_array_equal(turned[key], plain[key][:, ::-1])
    np.testing.assert_array_equal(turned["shape_masks"], plain["shape_masks"][:, :, ::-1])
    x, y, w, h = plain["boxes"][plain["box_mask"]].T
    expected = np.stack([1 - x - w, y, w, h], 1)
    np.testing.assert_allclose(turned["boxes"][turned["box_mask"]], expected, atol=1e-6)


def test_objects_outside_the_view_are_left_out(stuff):
    whole = Records(str(stuff), "train", WIDE)
    i = numbered(whole, 25)
    assert whole.example(i, ("box_mask",))["box_mask"].sum() >= 1
    sizes = whole._row(i).floats("objects/bbox").reshape(-1, 4)
    assert (sizes[:, 3] > 0.99).any(), "the fixture has a box at the right border"
    centre = Records(str(stuff), "train", Framing(64, "centre"))
    example = centre.example(i, centre.gives)
    boxes = example["boxes"][example["box_mask"]]
    assert (boxes[:, :2] + boxes[:, 2:] <= 1 + 1e-6).all()
    assert (boxes[:, 2:] * 64 >= 1).all()


def test_the_largest_objects_come_first(stuff):
    source = Records(str(stuff), "train", WIDE, Wanted(objects=2))
    boxes = source.example(numbered(source, 9), ("boxes",))["boxes"]
    assert boxes.shape == (2, 4)
    assert boxes[0, 2] * boxes[0, 3] >= boxes[1, 2] * boxes[1, 3] > 0


def test_objects_beyond_the_places_are_said_and_counted(stuff):
    every, two = (Records(str(stuff), "train", WIDE, Wanted(objects=n)) for n in (100, 2))
    assert every.crowded() == ""
    counts = np.array([every.object_count(i) for i in range(every.size)])
    many, left = (counts > 2).sum(), np.maximum(counts - 2, 0).sum()
    assert many > 0
    assert two.report["objects"] == {"places": 2, "crowded": many, "left_out": left}
    said = f"data: {many} of {two.size} pictures have more than 2 objects"
    assert two.crowded().startswith(said)
    assert f"the largest are used, {left} left out" in two.crowded()


def test_birds_are_cropped_to_their_surroundings(birds):
    root = birds.parent / "in" / "CUB_200_2011" / "images"
    source = Records(str(birds), "train", Framing(32, "none"))
    plain = Records(str(birds), "train", Framing(32, "none"), Wanted(around_box=False))
    i = by_name(source)["Black_Footed_Albatross_0001_1"]
    with Image.open(
        root / "001.Black_footed_Albatross" / "Black_Footed_Albatross_0001_1.jpg"
    ) as im:
        # Box 10 5 30.5 20: centre (25, 15), reach 22.
        cut = im.crop((3, 0, 47, 37)).resize((32, 32), Image.Resampling.LANCZOS)
        whole = im.resize((32, 32), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(source.example(i)["image"], np.asarray(cut))
    np.testing.assert_array_equal(plain.example(i)["image"], np.asarray(whole))
    assert source.example(i, ("label",))["label"] == 0
    assert source.class_names[0] == "Black footed Albatross"
    assert "boxes" not in source.gives


def test_pictures_without_classes_are_classes_of_their_own(stuff):
    source = Records(str(stuff), "train", WIDE)
    labels = [int(source.example(i, ("label",))["label"]) for i in range(source.size)]
    assert labels == list(range(source.size))


# --- Choosing ----------------------------------------------------------------------------------


def test_languages(multilingual):
    everything = Records(str(multilingual), "train", WIDE)
    german = Records(str(multilingual), "train", WIDE, Wanted(languages=("de",)))
    assert len(everything.captions(0)) == 10
    assert len(german.captions(0)) == 5
    assert all(text.startswith("de") for text in german.captions(0))
    assert set(german.by_language(0)) == {"de", "en"}
    assert german.by_language(0)["de"] == german.captions(0)
    with pytest.raises(DataError, match=r"captions in de, en, none in ja.*config\.data\.languages"):
        Records(str(multilingual), "train", WIDE, Wanted(languages=("ja",)))


def test_a_fixed_list_of_captions(birds):
    source = Records(str(birds), "train", WIDE)
    pairs = ((source.name(2), 7), (source.name(0), 3))
    listed = Records(str(birds), "train", WIDE, Wanted(pairs=pairs))
    assert listed.size == 2
    assert listed.captions(0) == [source.captions(2)[7]]
    assert listed.captions(1) == [source.captions(0)[3]]
    np.testing.assert_array_equal(listed.example(1)["image"], source.example(0)["image"])
    with pytest.raises(DataError, match=r"config\.data\.list names 1 records.*nobody"):
        Records(str(birds), "train", WIDE, Wanted(pairs=(("nobody", 0),)))


def test_rare_classes_are_seen_more_often(birds, tmp_path):
    data = base().data
    data.update(source="records", path=str(birds), rare="balanced")
    source = make_source(data, 16, "train", tmp_path)
    order = source.order(0, 4)
    labels = [int(source.example(order(p), ("label",))["label"]) for p in range(300)]
    # Two albatrosses and one raven: half of the sightings each.
    assert np.mean(np.array(labels) == 1) == pytest.approx(0.5, abs=0.02)
    report = json.loads((tmp_path / "data_report_train.json").read_text())
    assert report["classes"] == {"White necked Raven": [1, 1.5], "Black footed Albatross": [2, 1.5]}
    held_out = make_source(data, 16, "val")
    assert "classes" not in held_out.report


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rare": "often"}, r"'often'; known: repeat, balanced"),
        ({"source": "folder"}, r"source=folder does not know; set --config\.data\.rare=''"),
        ({"batches": "objects"}, r"set one of them to ''"),
    ],
)
def test_rare_classes_need_classes(changes, said):
    data = base().data
    data.update({"rare": "repeat"} | changes)
    with pytest.raises(DataError, match=said):
        make_source(data, 16, "val")


# --- Batches -----------------------------------------------------------------------------------

SIZES = schema.Sizes(batch=4, height=16, width=16, tokens=6, objects=3, mask_resolution=8)
NEEDS = (
    *("image", "tokens", "token_mask", "label", "boxes", "box_label", "box_mask"),
    *("shape_masks", "segmentation", "id", "mask"),
)


def pipeline(source, index=0, count=1, **kw):
    return Pipeline(
        source, Lengths(), SIZES, NEEDS, seed=5, process_index=index, process_count=count, **kw
    )


def opened(path, split="train"):
    wanted = Wanted(objects=3, mask_resolution=8)
    return Records(str(path), split, Framing(16, "random", cache_mb=1), wanted)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_share_one_stream(stuff, count):
    parts = [pipeline(opened(stuff), i, count).batch_at(9) for i in range(count)]
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    equal(joined, pipeline(opened(stuff)).batch_at(9))


def test_a_resumed_run_sees_what_it_would_have_seen(stuff):
    steps = pipeline(opened(stuff)).iterate(0)
    before = [next(steps) for _ in range(7)]
    steps.close()
    again = pipeline(opened(stuff)).iterate(5)
    equal(next(again), before[5])
    equal(next(again), before[6])
    again.close()


# --- Formats -----------------------------------------------------------------------------------


def test_both_formats_hold_the_same_examples(birds, arrays):
    old, new = (Records(str(path), "train", WIDE) for path in (birds, arrays))
    assert old.size == new.size == 3
    for i in range(3):
        equal(old.example(i, old.gives), new.example(i, new.gives))
        assert old.captions(i) == new.captions(i)
        assert old.name(i) == new.name(i)
    assert old.order(1, 4)(2) == new.order(1, 4)(2), "a run may go on with the other format"


def test_array_records_of_a_bucket(arrays):
    for name in files.walk(str(arrays)):
        tf.io.gfile.makedirs(f"ram://arrays/{Path(name).parent}")
        with tf.io.gfile.GFile(f"ram://arrays/{name}", "wb") as stream:
            stream.write((arrays / name).read_bytes())
    here, there = (Records(str(p), "train", WIDE) for p in (arrays, "ram://arrays"))
    equal(there.example(1, there.gives), here.example(1, here.gives))


def test_damaged_array_records(arrays, tmp_path, capfd):
    shutil.copytree(arrays, tmp_path / "out")
    folder = Path(records.find_dataset(str(tmp_path / "out")))
    file = next(folder.glob("*train.array_record*"))
    Records(str(folder), "train", WIDE)  # makes the index
    content = file.read_bytes()
    jpeg = content.index(b"\xff\xd8\xff")
    file.write_bytes(
        content[: jpeg + 200] + bytes([content[jpeg + 200] ^ 1]) + content[jpeg + 201 :]
    )
    source = Records(str(folder), "train", Framing(16))
    pipe = Pipeline(source, Lengths(), SIZES, ("image",), seed=0)
    assert pipe.batch_at(0)["image"].shape == (4, 16, 16, 3)
    assert pipe.skipped[images.CORRUPT] > 0
    assert ", record " in capfd.readouterr().err
    for index in folder.glob("index-*"):
        index.unlink()
    file.write_bytes(content[:-9])
    with pytest.raises(DataError, match=r"should hold 3 records; 0 can be read, then it is cut"):
        Records(str(folder), "train", WIDE)


def test_other_formats_are_named(birds, tmp_path):
    folder, _ = copied(birds, tmp_path)
    info = json.loads((folder / records.INFO).read_text())
    (folder / records.INFO).write_text(json.dumps({**info, "fileFormat": "parquet"}))
    with pytest.raises(DataError, match="holds parquet files; array_record and tfrecord are read"):
        Records(str(folder), "train", WIDE)


# --- Damage ------------------------------------------------------------------------------------


def copied(birds, tmp_path):
    shutil.copytree(birds, tmp_path / "out")
    folder = Path(records.find_dataset(str(tmp_path / "out")))
    return folder, next(folder.glob("*train.tfrecord*"))


def test_a_damaged_record_is_replaced_and_counted(birds, tmp_path, capfd):
    folder, file = copied(birds, tmp_path)
    Records(str(folder), "train", WIDE)  # makes the index
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    file.write_bytes(content)
    pipe = Pipeline(
        Records(str(folder), "train", Framing(16)), Lengths(), SIZES, ("image",), seed=0
    )
    assert pipe.batch_at(0)["image"].shape == (4, 16, 16, 3)
    assert pipe.skipped == {images.CORRUPT: 2} or pipe.skipped[images.CORRUPT] > 0
    assert "at byte 12" in capfd.readouterr().err


def test_a_file_cut_off_is_an_error(birds, tmp_path):
    folder, file = copied(birds, tmp_path)
    for index in folder.glob("index-*"):
        index.unlink()
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(
        DataError, match=r"should hold 3 records; 2 can be read, then it is cut off"
    ):
        Records(str(folder), "train", WIDE)


def test_a_missing_file_is_an_error(birds, tmp_path):
    folder, file = copied(birds, tmp_path)
    file.unlink()
    with pytest.raises(DataError, match=r"should hold 1 files of the split 'train' and holds 0"):
        Records(str(folder), "train", WIDE)


def test_an_index_of_other_records_is_made_again(birds, tmp_path):
    folder, _ = copied(birds, tmp_path)
    for split in ("train", "test"):
        Records(str(folder), split, WIDE)  # makes the index
    shutil.copy(folder / "index-test.npz", folder / "index-train.npz")
    assert Records(str(folder), "train", WIDE).size == 3


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("", r"config\.data\.path is ''.*jaxt2i\.prepare"),
        ("empty", r"holds no prepared data set: no dataset_info\.json"),
        ("both", "holds several data sets: .*jaxt2i_cub/1.0.0.*Set --config.data.path to one"),
    ],
)
def test_a_wrong_path_is_named(birds, stuff, tmp_path, path, match):
    (tmp_path / "empty").mkdir()
    for place in (birds, stuff):
        shutil.copytree(place, tmp_path / "both", dirs_exist_ok=True)
    with pytest.raises(DataError, match=match):
        Records(path and str(tmp_path / path), "train", WIDE)


def test_unknown_splits_are_named(birds):
    with pytest.raises(DataError, match="has the splits train, test, and none named 'dev'"):
        Records(str(birds), "dev", WIDE)
    data = base().data
    data.update(source="records", path=str(birds))
    assert make_source(data, 16, "val").size == 1, "test stands in for val"


def test_a_bucket_is_read_in_lanes(birds):
    """TensorFlow's file system in memory stands for one."""
    for name in files.walk(str(birds)):
        tf.io.gfile.makedirs(f"ram://birds/{Path(name).parent}")
        with tf.io.gfile.GFile(f"ram://birds/{name}", "wb") as stream:
            stream.write((birds / name).read_bytes())
    here, there = (Records(str(p), "train", WIDE) for p in (birds, "ram://birds"))
    np.testing.assert_array_equal(there.example(1)["image"], here.example(1)["image"])
    order = there.order(0, 4)
    assert sorted(order(p) for p in range(3)) == [0, 1, 2]
