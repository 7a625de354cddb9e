import gzip
import shutil
import tarfile

import pytest

from jaxt2i.data.builders.multi30k import Jaxt2iMulti30k
from jaxt2i.data.schema import DataError
from tests.data.builders.built import build
from tests.data.builders.pictures import cut, save

PICTURES = {
    "train": ["1000092795.jpg", "10002456.jpg", "1000268201.jpg"],
    "val": ["1018148011.jpg"],
    "test_2016_flickr": ["1007129816.jpg", "1009434119.jpg"],
    "test_2017_flickr": ["22439193117_4183a49ec2.jpg"],
    "test_2017_mscoco": [
        "COCO_train2014_000000117071.jpg#367178",
        "COCO_val2014_000000398076.jpg#657409",
    ],
    "test_2018_flickr": ["11832916064_229e7bd246.jpg"],
}
LANGUAGES = {
    "test_2017_flickr": ["en", "de", "fr"],
    "test_2017_mscoco": ["en", "de", "fr"],
}
# One line, as far as the files are concerned: U+2028 and U+0085 end no line there.
ODD = "Ein Stra\u00dfenh\u00e4ndler \u2028 wartet \u0085."


def lines(stem, language, number=""):
    return [f"{language}{number}: {name}" for name in PICTURES[stem]]


def write(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(f"{row}\n" for row in rows).encode()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


def tree(root, later=("test_2017-flickr-images", "train2014", "val2014")):
    """Both tasks of the repository, and pictures of the splits but for test_2018."""
    for stem, pictures in PICTURES.items():
        write(root / "data/task1/image_splits" / f"{stem}.txt", pictures)
        for language in LANGUAGES.get(stem, ["en", "de", "fr", "cs"]):
            rows = lines(stem, language)
            rows[-1] = ODD if (stem, language) == ("train", "de") else rows[-1]
            write(root / "data/task1/raw" / f"{stem}.{language}.gz", rows)
    for stem in ("train", "val", "test_2016_flickr"):
        name = stem.removesuffix("_flickr")
        write(root / "data/task2/image_splits" / f"{name}_images.txt", PICTURES[stem])
        for number in range(1, 6):
            for language in ("en", "de"):
                file = root / "data/task2/raw" / f"{name}.{number}.{language}.gz"
                write(file, lines(stem, language, number))
        for name in PICTURES[stem]:
            save(root / "flickr30k-images" / name, 50, 40, int(name[:-4]) % 97)
    for folder in later:
        stem = "test_2017_mscoco" if "2014" in folder else "test_2017_flickr"
        for name in PICTURES[stem]:
            if "2014" not in folder or f"_{folder}_" in name:
                save(root / folder / name.partition("#")[0], 40, 30)
    return root


def task1(*args, **kw):
    return build(Jaxt2iMulti30k, *args, config="task1", **kw)


def said(row):
    c = row["captions"]
    return list(zip(c["language"], c["id"], c["text"], strict=True))


def test_translations_are_stored_with_their_languages(tmp_path):
    skips = {}
    made = task1(tree(tmp_path / "in"), tmp_path / "out", skips)
    assert {split: len(rows) for split, rows in made.items()} == {
        "train": 3,
        "val": 1,
        "test": 2,
        "test_2017": 1,
        "test_mscoco": 2,
    }
    assert skips == {"split whose pictures are not there": 1}
    rows = {row["id"]: row for split in made.values() for row in split}
    row = rows["jaxt2i_multi30k/train/10002456"]
    assert row["image/filename"] == "10002456.jpg"
    assert said(row) == [(la, -1, f"{la}: 10002456.jpg") for la in ("en", "de", "fr", "cs")]
    assert said(rows["jaxt2i_multi30k/train/1000268201"])[1][2] == (
        "Ein Stra\u00dfenh\u00e4ndler wartet ."
    )
    assert [la for la, _, _ in said(made["test_2017"][0])] == ["en", "de", "fr"]
    assert (row["label"], row["has_bbox"]) == (-1, False)


def test_pictures_of_coco_come_from_its_two_folders(tmp_path):
    root = tree(tmp_path / "in")
    rows = {row["id"]: row for row in task1(root, tmp_path / "out")["test_mscoco"]}
    row = rows["jaxt2i_multi30k/test_mscoco/COCO_val2014_000000398076#657409"]
    assert row["image/filename"] == "COCO_val2014_000000398076.jpg"
    assert said(row)[0][:2] == ("en", 657409)
    assert row["image"] == (root / "val2014" / row["image/filename"]).read_bytes()
    assert len(rows) == 2


def test_five_captions_a_language_are_stored(tmp_path):
    made = build(Jaxt2iMulti30k, tree(tmp_path / "in"), tmp_path / "out", config="task2")
    assert {split: len(rows) for split, rows in made.items()} == {"train": 3, "val": 1, "test": 2}
    rows = {row["image/filename"]: row for row in made["test"]}
    assert said(rows["1009434119.jpg"]) == [
        (language, number, f"{language}{number}: 1009434119.jpg")
        for language in ("en", "de")
        for number in range(1, 6)
    ]


def test_task1_is_what_is_built_when_no_task_is_named(tmp_path):
    assert Jaxt2iMulti30k(data_dir=tmp_path).builder_config.name == "task1"


def test_pictures_are_kept_byte_for_byte_and_two_builds_agree(tmp_path):
    root = tree(tmp_path / "in", later=())
    first, again = (task1(root, tmp_path / name) for name in "ab")
    assert [r["id"] for r in first["train"]] == [r["id"] for r in again["train"]]
    for row in first["train"]:
        assert row["image"] == (root / "flickr30k-images" / row["image/filename"]).read_bytes()


def test_languages_and_splits_that_are_absent_are_not_stored(tmp_path):
    root = tree(tmp_path / "in", later=())
    for file in (root / "data/task1/raw").iterdir():
        if not file.name.startswith("train") or file.name.endswith(("fr.gz", "cs.gz")):
            file.unlink()
    made = task1(root, tmp_path / "out")
    assert list(made) == ["train"]
    assert {tuple(row["captions"]["language"]) for row in made["train"]} == {("en", "de")}


def test_unpacked_text_is_read_in_both_spellings(tmp_path):
    root = tree(tmp_path / "in", later=())
    raw = root / "data/task1/raw"
    for language, name in {"en": "train.en.txt", "de": "train.de"}.items():
        (raw / f"train.{language}.gz").unlink()
        write(raw / name, [f"plain {language}"] * 3)
    row = task1(root, tmp_path / "out")["train"][0]
    assert [text for _, _, text in said(row)][:2] == ["plain en", "plain de"]


def test_archives_and_a_clone_are_found(tmp_path):
    root = tree(tmp_path / "in", later=())
    packed = tmp_path / "packed"
    shutil.copytree(root / "data", packed / "multi30k-dataset" / "data")
    with tarfile.open(packed / "flickr30k-images.tar.gz", "w:gz") as archive:
        archive.add(root / "flickr30k-images", "flickr30k-images")
    save(tmp_path / "task1" / PICTURES["test_2017_flickr"][0], 40, 30)
    with tarfile.open(packed / "test_2017-flickr-images.gz", "w:gz") as archive:
        archive.add(tmp_path / "task1", "task1")
    made = task1(packed, tmp_path / "out")
    assert {split: len(rows) for split, rows in made.items()} == {
        "train": 3,
        "val": 1,
        "test": 2,
        "test_2017": 1,
    }


def test_a_broken_picture_is_counted(tmp_path):
    root = tree(tmp_path / "in", later=())
    cut(root / "flickr30k-images" / "10002456.jpg")
    skips = {}
    assert len(task1(root, tmp_path / "out", skips)["train"]) == 2
    assert skips["truncated or corrupt"] == 1


def test_a_line_count_that_differs_names_both_files(tmp_path):
    root = tree(tmp_path / "in")
    write(root / "data/task1/raw/train.fr.gz", ["une", "deux"])
    with pytest.raises(DataError, match=r"raw/train\.fr\.gz has 2 lines and .*splits/train\.txt 3"):
        task1(root, tmp_path / "out")
    write(root / "data/task2/raw/val.4.de.gz", ["eins", "zwei"])
    with pytest.raises(DataError, match=r"val\.4\.de\.gz has 2 lines and .*val_images\.txt 1"):
        build(Jaxt2iMulti30k, root, tmp_path / "out", config="task2")


def test_missing_folders_are_named_at_once(tmp_path):
    root = tree(tmp_path / "in")
    (root / "data").rename(root / "text")
    (root / "stuff").mkdir()
    (root / "flickr30k-images").rename(root / "stuff" / "flickr30k-images")
    with pytest.raises(DataError, match=r"data/task1.*is missing.*text/task1 looks like it") as e:
        task1(root, tmp_path / "out")
    assert "stuff/flickr30k-images looks like it" in str(e.value)


def test_a_missing_picture_is_named(tmp_path):
    root = tree(tmp_path / "in")
    (root / "flickr30k-images" / "1018148011.jpg").unlink()
    (root / "val2014" / "COCO_val2014_000000398076.jpg").unlink()
    with pytest.raises(DataError, match=r"2 pictures .*1018148011\.jpg.*val2014/COCO_val2014"):
        task1(root, tmp_path / "out")


def spoil(root, case):
    raw, lists = root / "data/task1/raw", root / "data/task1/image_splits"
    if case == "no english":
        (raw / "val.en.gz").unlink()
    elif case == "no list":
        (lists / "val.txt").unlink()
    elif case == "cut":
        cut(raw / "val.de.gz")
    elif case == "not packed":
        (raw / "val.de.gz").write_text("Ein Mann.\n")
    elif case == "other encoding":
        (raw / "val.de.gz").unlink()
        (raw / "val.de.txt").write_bytes("Stra\u00dfe\n".encode("latin-1"))
    elif case == "other list":
        write(lists / "test_2017_mscoco.txt", ["COCO_val2014_000000398076.jpg"] * 2)
    elif case == "outside":
        write(lists / "val.txt", ["../../secret.jpg"])
    elif case == "nothing":
        shutil.rmtree(raw)


@pytest.mark.parametrize(
    ("case", "match"),
    [
        ("no english", r"raw/val\.en\.gz is missing: there is de, fr, cs without English"),
        ("no list", r"image_splits/val\.txt is missing"),
        ("cut", r"val\.de\.gz cannot be read"),
        ("not packed", r"val\.de\.gz cannot be read .*gzip"),
        ("other encoding", r"val\.de\.txt cannot be read .*utf-8"),
        ("other list", r"mscoco\.txt: expected lines such as COCO_train2014.*#367178, found"),
        ("outside", r"val\.txt: expected lines such as 1000092795\.jpg, found '\.\./"),
        ("nothing", r"has captions of no split: .*train\.en\.gz"),
    ],
)
def test_malformed_files_are_named(tmp_path, case, match):
    root = tree(tmp_path / "in")
    spoil(root, case)
    with pytest.raises(DataError, match=match):
        task1(root, tmp_path / "out")


def test_one_missing_file_of_five_is_named(tmp_path):
    root = tree(tmp_path / "in")
    (root / "data/task2/raw/train.3.de.gz").unlink()
    with pytest.raises(DataError, match=r"train\.3\.de\.gz is missing, one of 5 files"):
        build(Jaxt2iMulti30k, root, tmp_path / "out", config="task2")
