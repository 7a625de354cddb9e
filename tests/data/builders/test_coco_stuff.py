import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from jaxt2i.data.builders.coco_stuff import CocoStuffConfig, Jaxt2iCocoStuff
from jaxt2i.data.schema import DataError
from tests.data.builders import test_coco as coco
from tests.data.builders.built import build
from tests.data.builders.pictures import cut

# Stored labels: id - 1.
BANDS = [0, 90, 91, 181, 255]
# (id, name) of the stuff annotations; 183 stands for all things.
STUFF = [(92, "banner"), (182, "wood"), (183, "other")]
GRASS = np.zeros((48, 64), np.uint8)
GRASS[24:, 20:] = 1


def bands(height, width):
    """A map with one row band for every of `BANDS`."""
    rows = np.array(BANDS, np.uint8).repeat(-(-height // len(BANDS)))[:height]
    return np.repeat(rows[:, None], width, axis=1)


def tree(root, regions=True):
    """COCO 2017's folders, pixel maps, labels.txt and, if asked, stuff annotations."""
    coco.tree(root, "2017")
    for split, pictures in (("train", coco.TRAIN), ("val", coco.VAL)):
        folder = root / "stuffthingmaps_trainval2017" / f"{split}2017"
        folder.mkdir(parents=True)
        for number, (width, height, _) in pictures.items():
            Image.fromarray(bands(height, width)).save(folder / f"{number:012d}.png")
        captions = json.loads((root / "annotations" / f"captions_{split}2017.json").read_text())
        found = []
        if split == "train":
            found = [
                coco.instance(10_000_001, 9, 182, [20, 24, 44, 24], coco.packed(GRASS), area=1056),
                coco.instance(10_000_002, 9, 183, [0, 0, 64, 24], coco.packed(1 - GRASS)),
                coco.instance(10_000_003, 30, 92, [0, 0, 64, 24], coco.packed(1 - GRASS)),
            ]
        if regions:
            content = {
                "images": captions["images"],
                "annotations": found,
                "categories": [{"id": i, "name": n} for i, n in STUFF],
            }
            (root / "annotations" / f"stuff_{split}2017.json").write_text(json.dumps(content))
    names = ["unlabeled", *(f"class {i}" for i in range(1, 183))]
    (root / "labels.txt").write_text("".join(f"{i}: {n}\n" for i, n in enumerate(names)))
    return root


@pytest.fixture(scope="module")
def built_stuff(tmp_path_factory):
    root = tree(tmp_path_factory.mktemp("stuff") / "in")
    skips = {}
    return root, build(Jaxt2iCocoStuff, root, root.parent / "out", skips), skips


def test_every_picture_has_its_map_as_stored(built_stuff):
    _, made, skips = built_stuff
    assert {split: len(rows) for split, rows in made.items()} == {"train": 3, "val": 2}
    assert skips == {"truncated or corrupt": 1}
    for row in made["train"] + made["val"]:
        expected = bands(row["image/height"], row["image/width"])
        np.testing.assert_array_equal(row["segmentation"][..., 0], expected)
    assert "jaxt2i_coco_stuff/val/000000000042" in {row["id"] for row in made["val"]}


def test_stuff_follows_the_things_and_other_is_left_out(built_stuff):
    rows = coco.by_id(built_stuff[1])
    objects = rows[9]["objects"]
    assert objects["id"].tolist() == [501, 500, 503, 10_000_001]
    assert objects["label"].tolist() == [2, 0, 1, 4]
    assert objects["category_id"].tolist() == [90, 1, 13, 182]
    assert objects["name"][3] == "wood"
    assert objects["area"][3] == 1056
    np.testing.assert_allclose(objects["bbox"][3], [0.5, 20 / 64, 1, 1])
    np.testing.assert_array_equal(coco.drawn(rows[9], 3), GRASS)
    assert rows[30]["objects"]["label"].tolist() == [3]


def test_names_cover_objects_and_maps(built_stuff):
    root, _, _ = built_stuff
    metadata = Jaxt2iCocoStuff(data_dir=root.parent / "out").info.metadata
    assert metadata["objects"] == ["person", "stop sign", "toothbrush", "banner", "wood"]
    assert len(metadata["segmentation"]) == 182
    assert metadata["segmentation"][181] == "class 182"


def test_pictures_are_kept_and_two_builds_agree(built_stuff, tmp_path):
    root, made, _ = built_stuff
    again = build(Jaxt2iCocoStuff, root, tmp_path)
    assert [r["id"] for r in again["train"]] == [r["id"] for r in made["train"]]
    for row in again["train"]:
        assert row["image"] == (root / "train2017" / row["image/filename"]).read_bytes()


def test_without_stuff_annotations_there_are_things_alone(tmp_path):
    made = build(Jaxt2iCocoStuff, tree(tmp_path / "in", regions=False), tmp_path / "out")
    assert coco.by_id(made)[9]["objects"]["label"].tolist() == [2, 0, 1]
    assert len(coco.by_id(made)[30]["objects"]["label"]) == 0
    names = Jaxt2iCocoStuff(data_dir=tmp_path / "out").info.metadata["objects"]
    assert names == ["person", "stop sign", "toothbrush"]


def test_lostgans_layouts_are_a_configuration(tmp_path):
    """3 to 8 objects above 2 % of the picture, no crowds; no maps are asked for."""
    root = tree(tmp_path / "in")
    (root / "stuffthingmaps_trainval2017").rename(tmp_path / "away")
    (root / "labels.txt").unlink()
    made = Jaxt2iCocoStuff(data_dir=tmp_path / "out", config="lostgan")
    c = made.builder_config
    assert (c.least_share, c.objects, c.crowds, made.EXPECTED) == (0.02, (3, 8), False, {})

    def kept(**limits):
        given = {"name": "few", "maps": False, "regions": True, **limits}
        builder = Jaxt2iCocoStuff(data_dir=tmp_path, config=CocoStuffConfig(**given))
        items = builder.items(builder.files(root))["train"]
        return {int(i.key): [thing[3] for thing in i.content["objects"]] for i in items}, builder

    every, builder = kept()
    # 25 and the cut off picture are in no stuff annotation.
    assert set(every) == {9, 30}
    assert builder.skips.counts["picture that the stuff annotations do not have"] == 4
    assert sorted(every[9]) == [500, 501, 503, 10_000_001]
    # 500 is a crowd, and 503 covers a twenty-fifth of the picture.
    found, builder = kept(crowds=False, least_share=0.05, objects=(2, 8))
    assert found == {9: [501, 10_000_001]}
    assert builder.skips.counts["object below the least share of its picture"] == 1
    assert builder.skips.counts["picture with too few objects"] == 1
    assert set(kept(least_share=0.039, objects=(4, 4))[0]) == {9}
    assert kept(objects=(0, 3))[1].skips.counts["picture with too many objects"] == 1
    # Of "val" the stuff annotations have no picture.
    with pytest.raises(DataError, match=r"left for the split 'val' \(left out: 4 picture that the"):
        made.whole(made.files(root))
    (root / "annotations/stuff_val2017.json").unlink()
    with pytest.raises(DataError, match=r"stuff_val2017\.json is missing; it is in stuff_anno"):
        made.files(root)


def test_a_missing_map_is_named_with_its_archive(tmp_path):
    root = tree(tmp_path / "in")
    (root / "stuffthingmaps_trainval2017" / "val2017" / "000000000073.png").unlink()
    with pytest.raises(DataError, match=r"maps of 1 pictures, such as 000000000073.*\.zip"):
        build(Jaxt2iCocoStuff, root, tmp_path / "out")


def test_what_is_missing_is_named(tmp_path):
    root = tree(tmp_path / "in")
    (root / "labels.txt").unlink()
    (root / "stuffthingmaps_trainval2017").rename(root / "maps")
    with pytest.raises(DataError) as error:
        build(Jaxt2iCocoStuff, root, tmp_path / "out")
    said = str(error.value)
    maps = "stuffthingmaps_trainval2017"
    assert f"{maps} is missing; it is in {maps}.zip" in said
    assert "labels.txt is missing" in said
    assert "https://github.com/nightrome/cocostuff" in said


def test_maps_may_be_packed(tmp_path):
    root = tree(tmp_path / "in")
    maps = root / "stuffthingmaps_trainval2017"
    with zipfile.ZipFile(root / "stuffthingmaps_trainval2017.zip", "w") as archive:
        for file in maps.rglob("*.png"):
            archive.write(file, file.relative_to(maps))
    maps.rename(tmp_path / "away")
    made = build(Jaxt2iCocoStuff, root, tmp_path / "out")
    np.testing.assert_array_equal(coco.by_id(made)[9]["segmentation"][..., 0], bands(48, 64))


def test_the_list_of_classes_may_lie_beside_the_maps(tmp_path):
    root = tree(tmp_path / "in")
    (root / "labels.txt").rename(root / "stuffthingmaps_trainval2017" / "labels.txt")
    assert len(build(Jaxt2iCocoStuff, root, tmp_path / "out")["train"]) == 3


def test_broken_maps_are_counted(tmp_path):
    root = tree(tmp_path / "in")
    maps = root / "stuffthingmaps_trainval2017"
    cut(maps / "val2017" / "000000000042.png")
    Image.fromarray(bands(48, 32)).save(maps / "train2017" / "000000000030.png")
    wrong = Image.fromarray(np.zeros((48, 64, 3), np.uint8))
    wrong.save(maps / "train2017" / "000000000009.png")
    skips = {}
    made = build(Jaxt2iCocoStuff, root, tmp_path / "out", skips)
    assert (set(coco.by_id(made)), set(coco.by_id(made, "val"))) == ({25}, {73})
    assert skips == {
        "truncated or corrupt": 2,
        "not of the size that was annotated": 1,
        "unsupported pixel format": 1,
    }


def test_stuff_annotations_that_are_cut_off_are_named(tmp_path):
    root = tree(tmp_path / "in")
    cut(root / "annotations" / "stuff_train2017.json")
    with pytest.raises(DataError, match=r"stuff_train2017\.json is not JSON"):
        build(Jaxt2iCocoStuff, root, tmp_path / "out")
