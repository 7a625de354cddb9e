"""Pictures and captions in the forms that people have: archives, tables, marked languages."""

import io
import json
import tarfile
import zipfile

import pyarrow
import pyarrow.parquet
import pytest
from jaxt2i.configs.common import base
from PIL import Image

from jaxt2i.data import images
from jaxt2i.data.pictures import Framing
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources import make_source, web
from jaxt2i.data.sources.base import NO_CAPTION, NO_IMAGE, OUTSIDE
from jaxt2i.data.sources.captions import NO_LANGUAGE
from jaxt2i.data.sources.folders import Folder
from jaxt2i.data.sources.stored import ENCRYPTED
from jaxt2i.evaluation import sets
from tests.data import shards


def picture(shade, form="PNG"):
    out = io.BytesIO()
    images.formats()
    Image.new("RGB", (24, 20), (shade, 90, 200 - shade)).save(out, form)
    return out.getvalue()


def said(source):
    """{name: (captions, red of the middle)}."""
    return {
        source.name(i): (source.captions(i), int(source.example(i)["image"][8, 8, 0]))
        for i in range(source.size)
    }


def opened(root, **kw):
    return Folder(root, Framing(16), **kw)


# --- Archives ----------------------------------------------------------------------------------


def pack(file, **members):
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_pictures_lie_in_an_archive_beside_their_metadata(tmp_path):
    data = tmp_path / "data"
    extra = {"img/é.png": picture(20), "../b.png": b"x", "__MACOSX/._a.png": b"x", "c.png": b"cut"}
    pack(data / "images.zip", **{"a.png": picture(10)}, **extra)
    names = ["a.png", "img\\é.png", "c.png", "gone.png"]
    rows = [json.dumps({"file_name": name, "text": f"of {name}"}) for name in names]
    (data / "metadata.jsonl").write_text("\n".join(rows))
    source = opened(data)
    assert said(source) == {"a.png": (["of a.png"], 10), "img/é.png": (["of img\\é.png"], 20)}
    assert source.report["skipped"] == {OUTSIDE: 1, images.NOT_IMAGE: 1, NO_IMAGE: 1}
    assert source.report["archives"] == ["images.zip"]
    found = sets.of_folder(data)
    assert (found.count, found.captions[1:]) == (3, ("of c.png", "of img\\é.png"))
    assert found.names == ("a.png", "c.png", "img/é.png")


def test_an_archive_may_hold_everything(tmp_path):
    rows = json.dumps({"file_name": "b.png", "text": "in a line"})
    texts = {"a.txt": "beside it", "metadata.jsonl": rows}
    pack(tmp_path / "all.zip", **{"a.png": picture(30), "b.png": picture(40)}, **texts)
    assert said(opened(tmp_path)) == {"a.png": (["beside it"], 30), "b.png": (["in a line"], 40)}


def test_what_was_unpacked_is_not_read_twice(tmp_path):
    pack(
        tmp_path / "download.zip", **{"a.png": picture(30), "a.txt": "packed", "z.png": picture(9)}
    )
    (tmp_path / "a.png").write_bytes(picture(50))
    (tmp_path / "a.txt").write_text("unpacked")
    assert said(opened(tmp_path)) == {"a.png": (["unpacked"], 50)}


def test_an_encrypted_archive_is_named(tmp_path):
    pack(tmp_path / "all.zip", **{"a.png": picture(30), "a.txt": "x"})
    content = bytearray((tmp_path / "all.zip").read_bytes())
    for start, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = -1
        while (at := content.find(start, at + 1)) >= 0:
            content[at + flags] |= 1
    (tmp_path / "all.zip").write_bytes(content)
    with pytest.raises(DataError, match=f"1 {ENCRYPTED}"):
        opened(tmp_path)


# --- Tables ------------------------------------------------------------------------------------

FEATURES = {"picture": {"_type": "Image"}, "said": {"dtype": "string", "_type": "Value"}}
KIND = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def table(shades, column="picture", text="said", captions=None):
    """As `datasets` makes it."""
    cells = [{"bytes": picture(shade), "path": None} for shade in shades]
    texts = [f"shade {shade}" for shade in shades] if captions is None else captions
    columns = {column: pyarrow.array(cells, KIND), text: pyarrow.array(texts)}
    about = {b"huggingface": json.dumps({"info": {"features": FEATURES}}).encode()}
    return pyarrow.table(columns).replace_schema_metadata(about)


def save_to_disk(folder, *tables):
    folder.mkdir(parents=True)
    for i, part in enumerate(tables):
        with (
            pyarrow.OSFile(str(folder / f"data-{i:05d}-of-{len(tables):05d}.arrow"), "wb") as file,
            pyarrow.ipc.new_stream(file, part.schema) as writer,
        ):
            writer.write_table(part, max_chunksize=2)
    (folder / "dataset_info.json").write_text("{}")
    (folder / "cache-1234.arrow").write_bytes(b"not a table of ours")


@pytest.mark.parametrize("form", ["save_to_disk", "parquet"])
def test_datasets_of_hugging_face_are_read(tmp_path, form, capfd):
    train, held_out = [1, 2, 3, 4, 5], [7]
    if form == "save_to_disk":
        (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
        save_to_disk(tmp_path / "train", table(train[:3]), table(train[3:]))
        save_to_disk(tmp_path / "validation", table(held_out))
    else:
        (tmp_path / "data").mkdir()
        for name, shades in {
            "train-00000-of-00001": train,
            "test-00000-of-00001": held_out,
        }.items():
            file = tmp_path / "data" / f"{name}.parquet"
            pyarrow.parquet.write_table(table(shades), file, row_group_size=2)
    data = base().data
    data.update(source="folder", path=str(tmp_path))
    seen = said(make_source(data, 16, "train"))
    assert list(seen.values()) == [([f"shade {n}"], n) for n in train]
    assert list(said(make_source(data, 16, "val")).values()) == [(["shade 7"], 7)]


def test_a_folder_of_datasets_is_no_prepared_data_set(tmp_path):
    save_to_disk(tmp_path / "hf", table([1]))
    data = base().data
    data.update(source="records", path=str(tmp_path))
    with pytest.raises(DataError, match=r"no name and splits.*set --config\.data\.source=folder"):
        make_source(data, 16, "train")
    for content, said in {"{": "not readable as JSON", "[]": "holds no object"}.items():
        (tmp_path / "hf" / "dataset_info.json").write_text(content)
        with pytest.raises(DataError, match=said):
            make_source(data, 16, "train")


def test_rows_that_cannot_be_used_are_counted(tmp_path):
    captions = [["one", "two"], None, [" "], ["good", None], ["cut"], ["gone"]]
    cells = [{"bytes": picture(n), "path": None} for n in range(4)]
    cells += [{"bytes": picture(4)[:60], "path": "x.png"}, {"bytes": None, "path": "gone.png"}]
    cells.append({"bytes": None, "path": "there.png"})
    (tmp_path / "there.png").write_bytes(picture(66))
    captions.append(["there"])
    made = pyarrow.table({"image": pyarrow.array(cells, KIND), "caption": pyarrow.array(captions)})
    pyarrow.parquet.write_table(made, tmp_path / "some.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"caption": ["x"]}), tmp_path / "other.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "some.parquet").read_bytes()[:-9])
    source = opened(tmp_path)
    assert said(source) == {
        "some.parquet:0": (["one", "two"], 0),
        "some.parquet:3": (["good"], 3),
        "some.parquet:6": (["there"], 66),
    }
    names = {entry["file"]: entry["reason"] for entry in source.report["skipped_files"]}
    assert names == {
        "cut.parquet": images.CORRUPT,
        "other.parquet": "table without a column of pictures",
        "some.parquet:1": NO_CAPTION,
        "some.parquet:2": NO_CAPTION,
        "some.parquet:4": images.CORRUPT,
        "some.parquet:5": NO_IMAGE,
        "there.png": NO_CAPTION,
    }


def test_a_table_whose_captions_are_not_known_is_refused(tmp_path):
    made = table([1]).append_column("other", pyarrow.array(["x"]))
    pyarrow.parquet.write_table(made, tmp_path / "a.parquet")
    with pytest.raises(
        DataError, match=r"a\.parquet: which of its columns .* picture, said, other"
    ):
        opened(tmp_path)


def test_metadata_may_be_parquet(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(picture(ord(name)))
    rows = {
        "file_name": ["a.png", "b.png", None, "c.png"],
        "text": [["x", "y"], ["z"], ["n"], None],
    }
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "metadata.parquet")
    source = opened(tmp_path)
    assert said(source) == {"a.png": (["x", "y"], 97), "b.png": (["z"], 98)}
    assert source.report["skipped"] == {"malformed metadata line": 2, NO_CAPTION: 1}
    pyarrow.parquet.write_table(pyarrow.table({"file": ["a"]}), tmp_path / "metadata.parquet")
    with pytest.raises(DataError, match=r"metadata\.parquet.*its columns are file"):
        opened(tmp_path)
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=rf"metadata\.parquet: {images.CORRUPT}"):
        opened(tmp_path)


# --- Tar files ---------------------------------------------------------------------------------


def test_tar_files_hold_every_kind_of_picture(tmp_path):
    forms = {
        "gif": "GIF",
        "bmp": "BMP",
        "tif": "TIFF",
        "avif": "AVIF",
        "heic": "HEIF",
        "jfif": "JPEG",
    }
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for i, (ending, form) in enumerate(forms.items()):
            shards.add(archive, f"{i}.{ending}", picture(100, form))
            shards.add(archive, f"{i}.txt", ending.encode())
        shards.add(archive, "6.input.jpg", picture(100, "JPEG"))
        shards.add(archive, "6.txt", b"field")
        for name in ("7.input.jpg", "7.output.jpg"):
            shards.add(archive, name, picture(100, "JPEG"))
        shards.add(archive, "7.txt", b"which")
    data = base().data
    data.update(source="webdataset", path=str(tmp_path))
    source = make_source(data, 16, "train")
    seen = said(source)
    assert [texts for texts, _ in seen.values()] == [[ending] for ending in (*forms, "field")]
    assert all(abs(red - 100) < 8 for _, red in seen.values())
    assert source.report["collections"][0]["skipped"] == {web.SEVERAL: 1}


# --- Languages in a file -----------------------------------------------------------------------

STAMP = """A sparrow.
de.utf8=Ein Spatz.
pt_BR.utf8=Um pardal.
fr.UTF-8 = Un moineau.
ko.utf8=
"""


@pytest.mark.parametrize(
    ("languages", "texts"),
    [
        ((), ["A sparrow.", "Ein Spatz.", "Um pardal.", "Un moineau."]),
        (("en",), ["A sparrow."]),
        (("de", "pt"), ["Ein Spatz.", "Um pardal."]),
        (("pt_br",), ["Um pardal."]),
    ],
)
def test_a_file_may_mark_the_languages_of_its_lines(tmp_path, languages, texts, capfd):
    (tmp_path / "a.png").write_bytes(picture(1))
    (tmp_path / "a.txt").write_text(STAMP)
    data = base().data
    data.update(source="folder", path=str(tmp_path), languages=languages)
    source = make_source(data, 16, "train")
    assert source.captions(0) == texts
    err = capfd.readouterr().err
    assert ("captions in 4 languages are used (1 en, 1 de" in err) == (not languages)
    assert source.report["languages"] == {"en": 1, "de": 1, "pt_BR": 1, "fr": 1}


def test_captions_in_other_languages_alone_are_counted(tmp_path, capfd):
    for name, text in {"a": STAMP, "b": "de.utf8=Ein Hund", "c": "unmarked"}.items():
        (tmp_path / f"{name}.png").write_bytes(picture(1))
        (tmp_path / f"{name}.txt").write_text(text)
    source = opened(tmp_path, languages=("fr",))
    assert {k: v for k, (v, _) in said(source).items()} == {
        "a.png": ["Un moineau."],
        "c.png": ["unmarked"],
    }
    assert source.report["unused_images"] == {NO_LANGUAGE: 1}
    assert "1 captions do not say their language and are used" in capfd.readouterr().err
