"""Sets of pictures: read in any order and size, captions chosen by rule, drawn by place alone."""

import jax
import numpy as np
import pytest
from PIL import Image

from jaxt2i import api
from jaxt2i.data import images
from jaxt2i.data.schema import DataError
from jaxt2i.evaluation import sets, subjects
from jaxt2i.run import folder
from tests.data.builders.pictures import cut
from tests.evaluation.small import pictures, untrained


def together(found, batch=5, rows=None):
    rows = range(found.count) if rows is None else rows
    return {
        int(row): pixels
        for numbers, batch_pixels in found.batches(batch, rows)
        for row, pixels in zip(numbers, batch_pixels, strict=True)
    }


# --- Folders -----------------------------------------------------------------------------------


def test_a_folder_is_read_whole_with_its_captions(tmp_path):
    folder = pictures(tmp_path / "a", 7)
    found = sets.of_folder(folder)
    assert found.count == 7
    read = together(found)
    assert list(read) == list(range(7))
    for row, pixels in read.items():
        with Image.open(folder / f"{row:03d}.png") as image:
            np.testing.assert_array_equal(pixels, np.asarray(image))
        assert found.captions[row] == (folder / f"{row:03d}.txt").read_text().strip()
    assert list(found.pictures([4, 1])) == [4, 1]


def test_pictures_of_several_sizes_come_apart_or_are_made_alike(tmp_path):
    folder = pictures(tmp_path / "a", 4, captions=False)
    pictures(folder / "b", 3, size=24, captions=False)
    Image.new("RGB", (30, 20), "red").save(folder / "wide.png")
    read = together(sets.of_folder(folder))
    assert len(read) == 8
    assert {x.shape for x in read.values()} == {(16, 16, 3), (24, 24, 3), (20, 30, 3)}
    alike = together(sets.of_folder(folder, 16))
    assert {x.shape for x in alike.values()} == {(16, 16, 3)}
    assert sets.of_folder(folder).captions is None


def test_too_many_sizes_are_refused(tmp_path):
    for n in range(40):
        Image.new("RGB", (20 + n, 20)).save(tmp_path / f"{n}.png")
    with pytest.raises(DataError, match=r"more than 32 sizes.*--resolution 256"):
        together(sets.of_folder(tmp_path))


def test_broken_pictures_are_counted(tmp_path):
    folder = pictures(tmp_path / "a", 6)
    cut(folder / "002.png")
    (folder / "004.png").write_bytes(b"")
    found = sets.of_folder(folder)
    assert list(together(found)) == [0, 1, 3, 5]
    assert found.skipped.counts == {images.CORRUPT: 1, images.EMPTY: 1}


def test_captions_for_some_alone_are_refused(tmp_path):
    folder = pictures(tmp_path / "a", 3)
    (folder / "001.txt").unlink()
    with pytest.raises(DataError, match=r"1 of 3 images have no caption, such as 001\.png"):
        sets.of_folder(folder)


@pytest.mark.parametrize(("make", "match"), [("", "no folder"), ("empty", "0 files and no image")])
def test_nothing_to_judge_is_named(tmp_path, make, match):
    if make:
        (tmp_path / "x").mkdir()
    with pytest.raises(DataError, match=match):
        sets.of_folder(tmp_path / "x")


# --- Captions ----------------------------------------------------------------------------------

COUNTS = [5, 5, 6, 5, 7, 5, 5, 5]


def test_every_rule_chooses_as_it_says():
    def chosen(kind, count, seed=0):
        return sets.choose_captions(COUNTS, kind, count, seed)

    assert chosen("first", 99) == [(i, 0) for i in range(8)]
    assert len(chosen("all", 99)) == sum(COUNTS)
    assert [i for i, _ in chosen("one_pass", 99)] == list(range(8))
    passes = chosen("passes", 20)
    assert [i for i, _ in passes] == [p % 8 for p in range(20)]
    assert len({j for i, j in passes if i == 0}) > 1, "another pass takes another caption"
    distinct = chosen("distinct", 6)
    assert len({i for i, _ in distinct}) == 6
    stored = chosen("stored", 400)
    assert all(len({j for i, j in stored if i == k}) == 1 for k in range(8))
    assert all(j < COUNTS[i] for i, j in passes + distinct + stored)
    assert chosen("distinct", 6) == distinct
    assert chosen("distinct", 6, seed=1) != distinct


# --- Runs --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = untrained(tmp_path_factory.mktemp("run") / "df_gan", steps=(1,))
    system = api.load(folder)

    def make(seed=0, samples=1, rule="stylegan"):
        said = ["a red rose", "a blue owl", "a yellow daisy"]
        return sets.of_system(system, said, name="x", seed=seed, rule=rule, samples=samples)

    return make


def test_a_drawn_picture_depends_on_its_place_alone(drawn):
    whole = together(drawn(samples=3), batch=8)
    assert list(whole) == list(range(9))
    again = together(drawn(samples=3), batch=8, rows=[7, 2])
    for row in (2, 7):
        np.testing.assert_array_equal(again[row], whole[row])
    assert drawn(samples=3).captions[3:6] == ("a blue owl",) * 3
    other = together(drawn(seed=1), batch=8)
    assert np.any(other[0] != whole[0])
    told = drawn(samples=3).rows([4])[0]
    assert (told["prompt"], told["number"]) == ("a blue owl", 4)


def test_nothing_is_rounded_where_the_protocol_says_so(drawn):
    pixels = next(drawn(rule="none").batches(4, [0, 1]))[1]
    assert pixels.dtype == np.float32
    assert 0 <= pixels.min() <= pixels.max() <= 255
    assert np.any(pixels != np.round(pixels))


def test_what_several_processes_drew_is_one_folder(monkeypatch, tmp_path):
    rows = [{"prompt": f"picture {i}", "seed": i} for i in range(5)]
    about = {"controls": {"psi": 0.7}, "weights": "averaged"}
    for index in range(2):
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        place = folder.Folder(folder.own(tmp_path / "out"), about)
        place.open()
        picture = {"image": np.full((8, 8, 3), 40 * index, np.uint8)}
        assert place.write((row, picture) for row in place.missing(rows)) == 3 - index
        assert place.path.name == f"process_{index}_of_2"
    monkeypatch.undo()
    assert folder.own(tmp_path / "out") == tmp_path / "out"
    # Sheets beside them are no pictures of their own.
    found = sets.of_folder(tmp_path / "out")
    assert sorted(found.captions) == [row["prompt"] for row in rows]
    said = subjects.drawn_by(tmp_path / "out")
    assert said == {"weights": "averaged", "controls": "psi=0.7"}
