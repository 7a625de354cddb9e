import json
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import scipy.io
from PIL import Image

from jaxt2i.data.builders.ade20k import Jaxt2iAde20k
from jaxt2i.data.builders.record import Object, runs_of
from jaxt2i.data.builders.regions import connected, regions, sentence
from jaxt2i.data.schema import DataError
from tests.data.builders.built import build
from tests.data.builders.pictures import cut, save

ROOM = "ADE_train_00000001"
STREET = "ADE_train_00000002"
VAL = "ADE_val_00000001"
SCENES = {ROOM: "bedroom", STREET: "apartment_building_outdoor", VAL: "misc"}
# Ids of SceneParse150: 1 wall, 8 bed, 9 windowpane, 37 lamp; 0 unlabelled, 150 flag.
NAMES = {1: "wall", 8: "bed", 9: "windowpane, window", 37: "lamp", 150: "flag"}


def room():
    """Unlabelled sky-light, a wall, a bed, two windows, and a speck of lamp."""
    labels = np.ones((48, 64), np.uint8)
    labels[:4] = 0
    labels[30:46, 10:40] = 8
    labels[10:20, 5:15] = labels[10:20, 45:60] = 9
    labels[25, 62] = 37
    return labels


def numbered():
    """The instances of `room`: red in the numbering of 100 classes, green the instance."""
    out = np.zeros((48, 64, 3), np.uint8)
    out[30:46, 10:40, :2] = (3, 4)
    out[10:20, 5:15, :2] = (9, 1)
    out[10:20, 45:60, :2] = (9, 2)
    out[24:26, 61:63, :2] = (20, 7)  # more of it is wall than lamp, and one pixel nothing
    return out


def drawn(row, index):
    """The mask of a stored object."""
    runs = row["objects"]["rle"][index]
    shape = (row["image/width"], row["image/height"])
    return np.repeat(np.arange(len(runs)) % 2, runs).reshape(shape).T


def challenge(root, instances=False):
    """SceneParse150's folders with two and one pictures."""
    base = root / "ADEChallengeData2016"
    flag = np.full((48, 64), 150, np.uint8)
    for split, stem, labels in (
        ("training", ROOM, room()),
        ("training", STREET, flag),
        ("validation", VAL, np.zeros((48, 64), np.uint8)),
    ):
        save(base / "images" / split / f"{stem}.jpg", 64, 48, len(stem))
        folder = base / "annotations" / split
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels).save(folder / f"{stem}.png")
        if instances:
            folder = root / "annotations_instance" / split
            folder.mkdir(parents=True, exist_ok=True)
            found = numbered() if stem == ROOM else np.zeros((48, 64, 3), np.uint8)
            Image.fromarray(found).save(folder / f"{stem}.png")
    lines = [f"{i}\t0.1\t9\t1\t1\t{NAMES.get(i, f'class {i}')}" for i in range(1, 151)]
    (base / "objectInfo150.txt").write_text(
        "\n".join(["Idx\tRatio\tTrain\tVal\tStuff\tName", *lines])
    )
    scenes = "".join(f"{stem} {scene}\n" for stem, scene in SCENES.items())
    (base / "sceneCategories.txt").write_text(scenes)
    return root


CLASSES = [f"class {i}" for i in range(1, 601)]
CLASSES[299], CLASSES[511] = "traffic light, stoplight", "car, auto"
# class, instance, rows, columns of what the full release's maps show.
SHOWN = [
    (512, 10, slice(20, 40), slice(4, 24)),
    (512, 15, slice(20, 40), slice(30, 50)),
    (300, 5, slice(0, 10), slice(60, 64)),
]


def full(root, year=2021):
    """A full release's folders with one picture in each split."""
    base = root / ("ADE20K_2021_17_01" if year == 2021 else "ADE20K_2016_07_26")
    shown = np.zeros((48, 64, 3), np.uint8)
    for kind, number, rows, columns in SHOWN:
        shown[rows, columns] = (kind // 256 * 10, kind % 256, number)
    for split, stem in (("training", ROOM), ("validation", VAL)):
        if year == 2021:
            folder = base / "images" / "ADE" / split / "urban" / "street"
        else:
            folder = base / "images" / split / "a" / "apartment_building" / "outdoor"
        save(folder / f"{stem}.jpg", 64, 48, len(stem))
        Image.fromarray(shown).save(folder / f"{stem}_seg.png")
        Image.fromarray(shown).save(folder / f"{stem}_parts_1.png")
        if year == 2021:
            annotation = {"scene": ["outdoor", "urban", "street"], "source": {"origin": "found"}}
            (folder / f"{stem}.json").write_text(json.dumps({"annotation": annotation}))
            (folder / stem).mkdir()
            Image.fromarray(shown[..., 0]).save(folder / stem / f"instance_000_{stem}.png")
        else:
            (folder / f"{stem}_atr.txt").write_text('001 # 0 # 0 # car, auto # car # ""\n')
    if year == 2021:
        index = {"objectnames": CLASSES, "objectcounts": np.arange(600.0), "n": np.int64(600)}
        (base / "index_ade20k.pkl").write_bytes(pickle.dumps(index, protocol=4))
    else:
        names = np.array(CLASSES, dtype=object)
        scipy.io.savemat(base / "index_ade20k.mat", {"index": {"objectnames": names}})
    return root


def by_name(made, split="train"):
    return {row["image/filename"].removesuffix(".jpg"): row for row in made[split]}


def metadata(row):
    return json.loads(row["metadata"])


@pytest.fixture(scope="module")
def built_150(tmp_path_factory):
    root = challenge(tmp_path_factory.mktemp("ade") / "in")
    return root, build(Jaxt2iAde20k, root, root.parent / "out", config="scene150")


def test_segmentations_count_from_zero_and_unlabelled_is_void(built_150):
    root, made = built_150
    assert {split: len(rows) for split, rows in made.items()} == {"train": 2, "val": 1}
    row = by_name(made)[ROOM]
    assert row["id"] == f"jaxt2i_ade20k/train/{ROOM}"
    expected = np.where(room() == 0, 255, room() - 1)
    np.testing.assert_array_equal(row["segmentation"][..., 0], expected)
    assert (by_name(made)[STREET]["segmentation"] == 149).all()
    assert (by_name(made, "val")[VAL]["segmentation"] == 255).all()
    builder = Jaxt2iAde20k(data_dir=root.parent / "out", config="scene150")
    names = builder.info.metadata["segmentation"]
    assert (len(names), names[0], names[8], names[149]) == (
        150,
        "wall",
        "windowpane, window",
        "flag",
    )
    assert builder.EXPECTED == {"train": 20210, "val": 2000}


def test_without_instances_connected_regions_are_objects(built_150):
    row = by_name(built_150[1])[ROOM]
    objects = row["objects"]
    # One wall around everything, the bed, two windows; the lamp of one pixel is a speck.
    assert objects["label"].tolist() == [0, 7, 8, 8]
    assert objects["category_id"].tolist() == [1, 8, 9, 9]
    assert objects["name"][1:] == ["bed", "windowpane, window", "windowpane, window"]
    np.testing.assert_array_equal(drawn(row, 1), room() == 8)
    np.testing.assert_allclose(objects["bbox"][1], [30 / 48, 10 / 64, 46 / 48, 40 / 64], rtol=1e-6)
    np.testing.assert_allclose(objects["area"], [(room() == 1).sum(), 480, 100, 150])
    left = np.where(np.arange(64) < 32, room() == 9, 0)
    np.testing.assert_array_equal(drawn(row, 2), left)


def test_captions_are_composed_of_scene_and_classes_and_say_so(built_150):
    rows = by_name(built_150[1])
    assert rows[ROOM]["captions"]["text"] == ["a bedroom with wall, bed and windowpane"]
    assert rows[STREET]["captions"]["text"] == ["an apartment building outdoor with flag"]
    assert by_name(built_150[1], "val")[VAL]["captions"]["text"] == ["a scene"]
    assert metadata(rows[ROOM]) == {"scene": "bedroom", "captions": "composed"}


def test_pictures_are_kept_byte_for_byte_and_two_builds_agree(built_150, tmp_path):
    root, made = built_150
    again = build(Jaxt2iAde20k, root, tmp_path, config="scene150")
    assert [r["id"] for r in again["train"]] == [r["id"] for r in made["train"]]
    assert [r["captions"]["text"] for r in again["train"]] == [
        r["captions"]["text"] for r in made["train"]
    ]
    folder = root / "ADEChallengeData2016" / "images" / "training"
    for row in made["train"]:
        assert row["image"] == (folder / row["image/filename"]).read_bytes()


def test_instances_take_the_class_of_most_of_their_pixels(tmp_path):
    root = challenge(tmp_path / "in", instances=True)
    row = by_name(build(Jaxt2iAde20k, root, tmp_path / "out", config="scene150"))[ROOM]
    objects = row["objects"]
    assert objects["id"].tolist() == [1, 2, 4, 7]
    assert objects["label"].tolist() == [8, 8, 7, 0]
    np.testing.assert_array_equal(drawn(row, 2), numbered()[..., 1] == 4)
    np.testing.assert_allclose(objects["bbox"][3], [24 / 48, 61 / 64, 26 / 48, 63 / 64])
    # The bed covers 480 pixels, the windows 250, the wall 4.
    assert row["captions"]["text"] == ["a bedroom with a bed, two windowpanes and a wall"]


def test_own_captions_go_before_composed_ones(tmp_path):
    root = challenge(tmp_path / "in")
    (root / "captions.json").write_text(json.dumps({ROOM: ["one", "two"], "ADE_train_9": ["x"]}))
    (root / "captions").mkdir()
    (root / "captions" / f"{STREET}.txt").write_text("a flag\n\nin the wind\n")
    skips = {}
    made = build(Jaxt2iAde20k, root, tmp_path / "out", skips, config="scene150")
    rows = by_name(made)
    assert rows[ROOM]["captions"]["text"] == ["one", "two"]
    assert rows[STREET]["captions"]["text"] == ["a flag", "in the wind"]
    assert "captions" not in metadata(rows[ROOM])
    assert "captions" not in metadata(rows[STREET])
    assert metadata(by_name(made, "val")[VAL])["captions"] == "composed"
    assert skips == {"caption without image": 1}
    (root / "captions.json").write_text(json.dumps({ROOM: "one"}))
    with pytest.raises(DataError, match=rf"captions\.json: expected .*'{ROOM}' has no list"):
        build(Jaxt2iAde20k, root, tmp_path / "b", config="scene150")


@pytest.mark.parametrize("year", [2021, 2017])
def test_full_releases_give_every_instance(tmp_path, year):
    made = build(Jaxt2iAde20k, full(tmp_path / "in", year), tmp_path / "out", config="full")
    assert {split: len(rows) for split, rows in made.items()} == {"train": 1, "val": 1}
    row = by_name(made)[ROOM]
    objects = row["objects"]
    assert objects["id"].tolist() == [5, 10, 15]
    assert objects["category_id"].tolist() == [300, 512, 512]
    assert objects["label"].tolist() == [299, 511, 511]
    assert objects["name"] == ["traffic light, stoplight", "car, auto", "car, auto"]
    np.testing.assert_allclose(objects["bbox"][0], [0, 60 / 64, 10 / 48, 1])
    shape = np.zeros((48, 64), int)
    shape[20:40, 30:50] = 1
    np.testing.assert_array_equal(drawn(row, 2), shape)
    assert row["segmentation"].shape == (1, 1, 1)
    scene = "a street" if year == 2021 else "an outdoor apartment building"
    assert row["captions"]["text"] == [f"{scene} with two cars and a traffic light"]
    assert metadata(row)["captions"] == "composed"
    assert metadata(row).get("source") == ({"origin": "found"} if year == 2021 else None)
    builder = Jaxt2iAde20k(data_dir=tmp_path / "out", config="full")
    assert builder.info.metadata["objects"] == CLASSES
    assert builder.EXPECTED == {"train": 25574, "val": 2000}


def test_broken_files_of_one_picture_are_counted(tmp_path):
    root = full(tmp_path / "in")
    street = root / "ADE20K_2021_17_01" / "images" / "ADE" / "training" / "urban" / "street"
    for i, stem in enumerate(("ADE_train_00000003", "ADE_train_00000004", "ADE_train_00000005")):
        save(street / f"{stem}.jpg", 64, 48, i)
        (street / f"{stem}_seg.png").write_bytes((street / f"{ROOM}_seg.png").read_bytes())
    cut(street / "ADE_train_00000003.jpg")
    (street / "ADE_train_00000004.json").write_text("{")
    Image.fromarray(np.full((48, 64, 3), 250, np.uint8)).save(street / "ADE_train_00000005_seg.png")
    skips = {}
    made = build(Jaxt2iAde20k, root, tmp_path / "out", skips, config="full")
    assert set(by_name(made)) == {ROOM}
    assert skips == {
        "truncated or corrupt": 1,
        "malformed annotation": 1,
        "class that the index does not name": 1,
    }


def test_maps_that_do_not_fit_are_counted(tmp_path):
    root = challenge(tmp_path / "in", instances=True)
    file = root / "annotations_instance" / "training" / f"{ROOM}.png"
    Image.fromarray(numbered()[:40]).save(file)
    save(root / "ADEChallengeData2016" / "images" / "validation" / "ADE_val_00000002.jpg", 64, 40)
    for folder in ("ADEChallengeData2016/annotations", "annotations_instance"):
        place = root / folder / "validation"
        (place / "ADE_val_00000002.png").write_bytes((place / f"{VAL}.png").read_bytes())
    skips = {}
    made = build(Jaxt2iAde20k, root, tmp_path / "out", skips, config="scene150")
    assert (set(by_name(made)), set(by_name(made, "val"))) == ({STREET}, {VAL})
    assert skips == {"not of the size that was annotated": 2}


def test_archives_are_unpacked(tmp_path):
    root = challenge(tmp_path / "in", instances=True)
    packed = tmp_path / "packed"
    packed.mkdir()
    with zipfile.ZipFile(packed / "ADEChallengeData2016.zip", "w") as archive:
        for file in (root / "ADEChallengeData2016").rglob("*.*"):
            archive.write(file, file.relative_to(root))
    with tarfile.open(packed / "annotations_instance.tar", "w") as archive:
        archive.add(root / "annotations_instance", "annotations_instance")
    made = build(Jaxt2iAde20k, packed, tmp_path / "out", config="scene150")
    assert by_name(made)[ROOM]["objects"]["id"].tolist() == [1, 2, 4, 7]


def test_what_is_missing_is_named(tmp_path):
    root = challenge(tmp_path / "in")
    with pytest.raises(DataError, match=r"ADE20K_2021_17_01 or ADE20K_2016_07_26 is missing"):
        build(Jaxt2iAde20k, root, tmp_path / "a", config="full")
    base = root / "ADEChallengeData2016"
    (base / "annotations" / "training" / f"{ROOM}.png").unlink()
    with pytest.raises(DataError, match=rf"1 pictures have no annotation; .*{ROOM}\.png.*in part"):
        build(Jaxt2iAde20k, root, tmp_path / "b", config="scene150")
    (base / "images" / "validation" / f"{VAL}.jpg").unlink()
    Image.fromarray(room()).save(base / "annotations" / "training" / f"{ROOM}.png")
    with pytest.raises(DataError, match=r"images/validation holds no \.jpg file"):
        build(Jaxt2iAde20k, root, tmp_path / "c", config="scene150")


def test_malformed_lists_are_named(tmp_path):
    root = challenge(tmp_path / "in")
    base = root / "ADEChallengeData2016"
    whole = (base / "sceneCategories.txt").read_text()
    (base / "sceneCategories.txt").write_text(f"{ROOM}\n")
    with pytest.raises(DataError, match=rf"sceneCategories\.txt: expected lines .*'{ROOM}'"):
        build(Jaxt2iAde20k, root, tmp_path / "a", config="scene150")
    (base / "sceneCategories.txt").write_text(whole)
    (base / "objectInfo150.txt").write_text("Idx,Name\n1,wall\n")
    with pytest.raises(DataError, match=r"objectInfo150\.txt: expected a table"):
        build(Jaxt2iAde20k, root, tmp_path / "b", config="scene150")


def test_a_full_release_without_its_maps_or_index_is_named(tmp_path):
    root = full(tmp_path / "in")
    base = root / "ADE20K_2021_17_01"
    index = base / "index_ade20k.pkl"
    whole = index.read_bytes()
    index.write_bytes(pickle.dumps({"objectnames": print}))
    with pytest.raises(DataError, match=r"builtins\.print, which is refused without running it"):
        build(Jaxt2iAde20k, root, tmp_path / "a", config="full")
    index.write_bytes(whole[:100])
    with pytest.raises(DataError, match=r"index_ade20k\.pkl .* should hold objectnames"):
        build(Jaxt2iAde20k, root, tmp_path / "b", config="full")
    index.unlink()
    with pytest.raises(DataError, match=r"index_ade20k\.mat .* should hold objectnames"):
        build(Jaxt2iAde20k, root, tmp_path / "c", config="full")
    index.write_bytes(whole)
    next(base.rglob(f"{VAL}_seg.png")).unlink()
    with pytest.raises(DataError, match=rf"1 pictures have no annotation; .*{VAL}_seg\.png"):
        build(Jaxt2iAde20k, root, tmp_path / "d", config="full")


def test_regions_are_what_masks_one_by_one_would_give():
    numbers = np.random.RandomState(0).randint(0, 4, (7, 9))
    numbers[:, 3:5] = 9  # runs on over a column's end
    numbers[-1, -1] = 3
    found = regions(numbers)
    assert [r.number for r in found] == [1, 2, 3, 9]
    for region in found:
        mask = numbers == region.number
        y, x = np.nonzero(mask)
        assert region.rle == runs_of(mask)
        assert region.area == mask.sum()
        sides = (np.ptp(x) + 1, np.ptp(y) + 1)
        assert region.bbox == (x.min(), y.min(), *sides)


def test_regions_that_touch_by_a_corner_are_two():
    labels = np.array([[5, 5, 0], [0, 0, 5], [7, 0, 0]])
    found = connected(labels, void=0)
    assert [(label, region.area) for label, region in found] == [(5, 2), (5, 1), (7, 1)]
    assert connected(np.zeros((2, 2), int), void=0) == []


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "an airport"),
        (["box"] * 2 + ["body"], "an airport with two boxes and a body"),
        (["chest of drawers"] * 3, "an airport with three chests of drawers"),
        (["berry"] * 11 + ["bay"] * 2, "an airport with 11 berries and two bays"),
        (["person, individual"] * 2 + ["ear"], "an airport with two people and an ear"),
        (list("ihgfedcba"), "an airport with an a, a b, a c, a d, an e, a f, a g and a h"),
    ],
)
def test_sentences_count_in_plain_english(names, said):
    objects = [Object(0, name, (0, 0, 1, 1), area=1) for name in names]
    assert sentence("airport", objects, counted=True) == said
