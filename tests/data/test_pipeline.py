"""Batches by position: pure, shared among processes, the same however they are read."""

import collections
import dataclasses
import itertools
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from jaxt2i.data import images, schema
from jaxt2i.data.drawn.synthetic import Synthetic
from jaxt2i.data.images import Unreadable
from jaxt2i.data.order import mix, permuted
from jaxt2i.data.pictures import Framing
from jaxt2i.data.pipeline import Pipeline, prefetch_to_device, prompts_batch
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources import folders as sources
from jaxt2i.data.sources.folders import Folder
from tests.data.photos import make_folder

SIZES = schema.Sizes(batch=4, height=16, width=16, tokens=6)
NEEDS = ("image", "tokens", "token_mask", "id")
NAMES = ("cat", "coffee", "coins", "flower", "horse", "rocket", "moon")


class Letters:
    """A tokenizer: one id a letter."""

    length, vocab_size, eot = 6, 128, 127

    def __call__(self, captions):
        tokens = np.zeros((len(captions), self.length), np.int32)
        for row, text in zip(tokens, captions, strict=True):
            row[: len(text) + 2] = [1, *map(ord, text), self.eot]
        return tokens, tokens > 0


class Lengths(Letters):
    """A tokenizer for captions of any length: their length, and a hash of them."""

    def __call__(self, captions):
        rows = [[1, 2 + len(c) % 90, 2 + sum(map(ord, c)) % 120, 127, 0, 0] for c in captions]
        return np.array(rows, np.int32), np.array(rows) > 0


class Fake:
    """A source whose pictures are their own number; `bad` ones cannot be read."""

    gives = ("image", "id")
    class_names = ()

    def __init__(self, size=None, bad=()):
        self.size, self.bad = size, bad

    def captions(self, index):
        return [f"{index % 100}{c}" for c in "abcde"]

    def example(self, index, keys):
        assert self.size is None or 0 <= index < self.size
        if index in self.bad:
            raise Unreadable(f"{index}.png", images.CORRUPT)
        out = {"image": np.full((16, 16, 3), index % 256, np.uint8), "id": np.int64(index)}
        return {key: out[key] for key in keys}


def pipeline(source, sizes=SIZES, needs=NEEDS, seed=0, **kw):
    return Pipeline(source, Letters(), sizes, needs, seed=seed, **kw)


def ids(pipe, steps):
    return np.concatenate([pipe.batch_at(step)["id"] for step in range(steps)]).tolist()


def texts(batch):
    return ["".join(map(chr, row[row > 1][:-1])) for row in batch["tokens"]]


def equal(a, b):
    assert list(a) == list(b)
    for key in a:
        assert a[key].dtype == b[key].dtype, key
        np.testing.assert_array_equal(a[key], b[key], key)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos")
    make_folder(path, "text", NAMES)
    return path


# --- Order -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 65, 1000])
def test_permutations_are_permutations(size):
    for key in (0, 1, mix(5)):
        assert sorted(permuted(i, size, key) for i in range(size)) == list(range(size))


def test_permutations_are_uniform():
    size, draws = 5, 4000
    counts = np.zeros((size, size))
    orders = collections.Counter()
    for key in range(draws):
        order = tuple(permuted(i, size, mix(key)) for i in range(size))
        counts[range(size), order] += 1
        orders[order] += 1
    expected = draws / size
    assert ((counts - expected) ** 2 / expected).sum() < 45  # chi-square, 16 degrees: p = 1e-4
    assert len(orders) == 120, "every order of five occurs"


def test_neighbours_part():
    order = np.array([permuted(i, 4096, mix(3)) for i in range(4096)])
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.06
    assert abs(np.corrcoef(order, np.arange(4096))[0, 1]) < 0.06


def test_each_epoch_sees_everything_once_in_a_new_order():
    pipe = pipeline(Fake(size=10))
    seen = ids(pipe, 10)
    epochs = [seen[k : k + 10] for k in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 4
    assert ids(pipeline(Fake(size=10), seed=1), 10) != seen
    assert ids(pipeline(Fake(size=10), shuffle=False), 5) == [*range(10), *range(10)]
    assert pipe.order.size == 10


def test_unlimited_sources_are_read_in_order():
    pipe = pipeline(Fake())
    assert ids(pipe, 3) == list(range(12))
    assert pipe.order.size is None


def test_the_stream_is_pinned():
    """A resumed run relies on these numbers: they may not change with a version."""
    assert mix(0) == 16294208416658607535  # SplitMix64's first output for seed 0
    assert [permuted(i, 10, 1) for i in range(10)] == [8, 5, 7, 1, 3, 2, 6, 4, 0, 9]
    assert ids(pipeline(Fake(size=1000), seed=7), 1) == [471, 524, 404, 629]


def test_captions_are_drawn_evenly_and_by_position():
    pipe = pipeline(Fake(size=3))
    chosen = [texts(pipe.batch_at(step)) for step in range(250)]
    counts = collections.Counter(text[-1] for batch in chosen for text in batch)
    assert set(counts) == set("abcde")
    assert min(counts.values()) > 150
    assert chosen[17] == texts(pipeline(Fake(size=3)).batch_at(17))
    assert chosen != [texts(pipeline(Fake(size=3), seed=1).batch_at(s)) for s in range(250)]
    first = pipeline(Fake(size=3), caption="first")
    assert all(t[-1] == "a" for s in range(9) for t in texts(first.batch_at(s)))
    for text, number in zip(texts(pipe.batch_at(5)), pipe.batch_at(5)["id"], strict=True):
        assert text[:-1] == str(number), "a caption belongs to its picture"


# --- Processes, resuming, readers --------------------------------------------------------------


@pytest.mark.parametrize("size", [None, 10])
@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_global_batch(size, count):
    whole = pipeline(Fake(size))
    parts = [pipeline(Fake(size), process_index=i, process_count=count) for i in range(count)]
    for step in range(4):
        shares = [part.batch_at(step) for part in parts]
        joined = {key: np.concatenate([share[key] for share in shares]) for key in shares[0]}
        equal(whole.batch_at(step), joined)


@pytest.mark.parametrize("size", [None, 10])
@pytest.mark.parametrize("workers", [1, 3])
def test_iterating_is_batch_at(size, workers):
    pipe = pipeline(Fake(size), workers=workers)
    for start in (0, 5):
        stream = pipe.iterate(start)
        for step, batch in enumerate(itertools.islice(stream, 6), start):
            equal(batch, pipe.batch_at(step))
        stream.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("data")]


@pytest.mark.parametrize("share", [(0, 1), (1, 2)])
def test_folders_iterate_without_tensorflow(folder, share):
    index, count = share
    pipe = Pipeline(
        Folder(folder, Framing(16)),
        Lengths(),
        SIZES,
        (*NEEDS, "mask"),
        seed=3,
        process_index=index,
        process_count=count,
    )
    for start in (0, 3):  # three steps are more than an epoch
        stream = pipe.iterate(start)
        for step, batch in enumerate(itertools.islice(stream, 3), start):
            equal(batch, pipe.batch_at(step))
        stream.close()


def test_threads_end_with_what_is_in_work_when_it_is_enough():
    pipe = pipeline(Fake(size=6, bad=(1,)), shuffle=False)
    batches = list(pipe.iterate(5, lambda: True))
    assert len(batches) == pipe.workers + 1
    for step, batch in enumerate(batches, 5):
        equal(batch, pipe.batch_at(step))
    read_once = pipeline(Fake(size=6, bad=(1,)), shuffle=False)
    for step in range(5, 5 + len(batches)):
        read_once.batch_at(step)
    assert pipe.skipped.total() == 2 * read_once.skipped.total() > 0  # here and in the comparison


def test_no_source_needs_tensorflow():
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from tests.data.test_pipeline import Fake, pipeline\n"
        "next(pipeline(Fake()).iterate())\n"
        "print({'tensorflow', 'flax'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


# --- What goes wrong ---------------------------------------------------------------------------


def test_unreadable_examples_are_replaced_counted_and_told_once(capfd):
    pipe = pipeline(Fake(size=6, bad=(1, 2, 5)), shuffle=False)
    assert ids(pipe, 3) == [0, 3, 3, 3, 4, 0, 0, 3, 3, 3, 4, 0]
    assert texts(pipe.batch_at(0))[1][0] == "3", "the caption comes with the picture"
    assert pipe.skipped[images.CORRUPT] > 6
    lines = capfd.readouterr().err.splitlines()
    assert sorted(line.split(";")[0] for line in lines) == [
        f"data: {i}.png: truncated or corrupt" for i in (1, 2, 5)
    ]


def test_files_lost_after_the_scan(tmp_path, capfd):
    make_folder(tmp_path, "text", NAMES[:4])
    pipe = Pipeline(Folder(tmp_path, Framing(16)), Lengths(), SIZES, NEEDS, seed=0)
    (tmp_path / "coins.png").write_bytes(b"")
    (tmp_path / "cat.txt").unlink()
    stream = pipe.iterate()
    batch = next(stream)
    stream.close()
    equal(batch, pipe.batch_at(0))
    assert set(batch["id"]) == {1, 3}
    assert set(pipe.skipped) == {images.EMPTY, images.SYSTEM}
    for file in tmp_path.glob("*.*"):
        file.unlink()
    for read in (lambda: pipe.batch_at(0), lambda: next(pipe.iterate())):
        with pytest.raises(DataError, match=r"4 examples in a row.*config\.data\.path"):
            read()
    assert "cat.txt" in capfd.readouterr().err


def test_a_shown_caption_is_that_of_the_picture_that_took_the_place(capfd):
    pipe = pipeline(Fake(size=8, bad=(2, 3)), shuffle=False, caption="first")
    example, text = pipe.shown_at(2)
    assert (example["id"], text) == (4, "4a")
    assert "2.png" in capfd.readouterr().err


def test_a_lost_disk_is_an_error():
    pipe = pipeline(Fake(size=5000, bad=range(1, 5000)), shuffle=False)
    with pytest.raises(DataError, match="100 examples in a row"):
        pipe.batch_at(1)
    with pytest.raises(DataError, match="100 examples in a row"):
        list(pipe.iterate(1))


def test_misfits_are_named_at_once():
    with pytest.raises(DataError, match=r"config\.batch_size to a multiple of 3"):
        pipeline(Fake(), process_count=3)
    with pytest.raises(DataError, match=r"config\.data\.workers"):
        pipeline(Fake(), workers=0)
    with pytest.raises(DataError, match="gives no 'boxes'"):
        pipeline(Fake(), needs=(*NEEDS, "boxes"))
    with pytest.raises(DataError, match=r"config\.data\.resolution"):
        pipeline(Fake(), sizes=schema.Sizes(batch=4, height=32, width=32, tokens=6))
    with pytest.raises(DataError, match=r"config\.data\.tokens"):
        pipeline(Fake(), sizes=schema.Sizes(batch=4, height=16, width=16, tokens=7))
    with pytest.raises(ValueError, match="'random', 'first'"):
        pipeline(Fake(), caption="last")


def test_everything_a_synthetic_source_gives_fits_the_schema():
    source = Synthetic("mixed", 16, split="train", seed=0, objects=3, mask_resolution=16)
    sizes = schema.Sizes(batch=2, height=16, width=16, tokens=6, objects=3)
    needs = (*source.gives, "tokens", "token_mask", "mask")
    pipe = Pipeline(source, Lengths(), sizes, needs, seed=0)
    stream = pipe.iterate(1)
    batch = next(stream)
    stream.close()
    schema.validate(batch, sizes, needs)
    assert batch["id"].tolist() == [2, 3]


def test_images_alone_need_no_tokenizer():
    pipe = Pipeline(Fake(), None, SIZES, ("image", "mask"), seed=0)
    batch = pipe.batch_at(1)
    assert list(batch) == ["image", "mask"]
    assert batch["mask"].all()


def test_prompts_batch():
    batch = prompts_batch(Letters(), ["a", "bc"])
    assert texts(batch) == ["a", "bc"]
    assert batch["token_mask"].sum(1).tolist() == [3, 4]


# --- Onto the device ---------------------------------------------------------------------------


def prefetching():
    return [t for t in threading.enumerate() if t.name == "prefetch"]


def test_prefetch_keeps_order_and_ends():
    assert list(prefetch_to_device(iter(range(20)), lambda x: x * x)) == [x * x for x in range(20)]
    assert not prefetching()


def test_prefetch_reads_ahead_by_depth_only():
    made = []
    stream = prefetch_to_device(itertools.count(), made.append, depth=2)
    next(stream)
    time.sleep(0.3)
    assert 3 <= len(made) <= 4  # one given, two waiting, one in hand
    stream.close()
    assert not prefetching()


@pytest.mark.parametrize("where", ["iterator", "put"])
def test_prefetch_raises_in_the_consumer(where):
    def batches():
        yield 1
        if where == "iterator":
            raise DataError("no more")
        yield 0

    stream = prefetch_to_device(batches(), lambda x: 1 // x)
    assert next(stream) == 1
    with pytest.raises(DataError if where == "iterator" else ZeroDivisionError):
        next(stream)
    assert not prefetching()


def test_closing_stops_the_whole_chain():
    stream = prefetch_to_device(pipeline(Fake()).iterate(), lambda batch: batch["id"].sum())
    assert next(stream) == 6
    stream.close()
    assert not prefetching()
    assert not [t for t in threading.enumerate() if t.name.startswith("data")]


def test_all_captions_of_a_picture_travel_together():
    sizes = schema.Sizes(batch=2, height=16, width=16, tokens=6, captions=7)
    needs = ("image", "all_tokens", "all_token_mask", "captions_mask")
    batch = pipeline(Fake(), sizes, needs).batch_at(1)
    assert batch["all_tokens"].shape == batch["all_token_mask"].shape == (2, 7, 6)
    np.testing.assert_array_equal(batch["captions_mask"], [[True] * 5 + [False] * 2] * 2)
    rows = batch["all_tokens"][1]
    assert ["".join(map(chr, r[r > 1][:-1])) for r in rows] == [
        "3a",
        "3b",
        "3c",
        "3d",
        "3e",
        "",
        "",
    ]
    few = dataclasses.replace(sizes, captions=2)
    assert pipeline(Fake(), few, needs).batch_at(0)["captions_mask"].all()


def test_training_sees_another_part_of_a_picture_every_time(tmp_path):
    """Crops and mirror images follow from the position; held-out pictures show their centre."""
    x = np.arange(64, dtype=np.uint8)
    pixels = np.stack([np.tile(2 * x, (48, 1)), np.tile(4 * x[:48, None], (1, 64))], -1)
    pixels = np.concatenate([pixels, np.zeros((48, 64, 1), np.uint8)], -1)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a ramp\n")
    source = sources.Folder(tmp_path, Framing(16, "random", "bilinear"))
    sizes = schema.Sizes(batch=8, height=16, width=16, tokens=6)
    pipe = Pipeline(source, Lengths(), sizes, ("image",), seed=3)
    first, again, later = pipe.batch_at(0), pipe.batch_at(0), pipe.batch_at(1)
    equal(first, again)
    assert len({x.tobytes() for x in (*first["image"], *later["image"])}) > 8
    rising = np.array([x[8, -1, 0] > x[8, 0, 0] for x in first["image"]])
    assert 0 < rising.sum() < 8
    held = Pipeline(source, Lengths(), sizes, ("image",), seed=3, caption="first").batch_at(0)
    assert len({x.tobytes() for x in held["image"]}) == 1
    np.testing.assert_array_equal(held["image"][0], source.example(0)["image"])


@pytest.mark.parametrize("decode", ["exact", "draft"])
@pytest.mark.parametrize("cache_mb", [0, 1])
def test_pictures_that_are_decoded_into_their_batch_are_the_same(
    tmp_path, monkeypatch, decode, cache_mb
):
    """JPEGs of just the size, among others, some mirrored, one damaged, in memory used again."""
    chance, decoded = np.random.default_rng(0), []
    for i, (name, size) in enumerate([("a.jpg", 16)] * 5 + [("b.png", 16), ("c.jpg", 40)]):
        pixels = chance.integers(0, 256, (size, size, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}{name}", quality=95)
        (tmp_path / f"{i}{name}").with_suffix(".txt").write_text("noise\n")
    plain = images.simplejpeg.decode_jpeg

    def seen(*args, **how):
        decoded.append("buffer" in how)
        return plain(*args, **how)

    monkeypatch.setattr(images.simplejpeg, "decode_jpeg", seen)
    source = Folder(tmp_path, Framing(16, decode=decode, cache_mb=cache_mb))
    pipe = Pipeline(source, Lengths(), SIZES, NEEDS, seed=1, mirror="unless_sided")
    (tmp_path / "1a.jpg").write_bytes(images.JPEG + b"nothing else")
    memory = np.empty(4 * 16 * 16 * 3, np.uint8)

    def room(shape, dtype):
        return memory.reshape(shape) if dtype == np.uint8 else np.empty(shape, dtype)

    for step in range(6):
        written = pipe.written_batch_at(step, pipe.note, room)
        equal({key: written[key] for key in NEEDS}, pipe.batch_at(step))
    assert any(decoded) != bool(cache_mb)
    assert not all(decoded)
