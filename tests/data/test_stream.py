"""Training's stream: whatever makes the batches, they are those of `Pipeline.batch_at`."""

import contextlib
import importlib.util
import itertools
import random
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from jaxt2i.configs.common import base
from PIL import Image

from jaxt2i.data import images, native, schema, serve, stream, tf
from jaxt2i.data.drawn.synthetic import Synthetic
from jaxt2i.data.pictures import Framing
from jaxt2i.data.pipeline import Pipeline, aligned
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources import make_source
from jaxt2i.data.sources.folders import Folder
from jaxt2i.data.stream import EARLY, Stream
from jaxt2i.data.tf import tensorflow
from tests.data import shards
from tests.data.photos import make_folder, photo
from tests.data.test_pipeline import NEEDS, SIZES, Fake, Lengths, equal, pipeline

pytestmark = pytest.mark.xdist_group("stream")

DATA = base().data


@pytest.fixture(autouse=True, scope="module")
def _loaded():
    """TensorFlow is there, so that it makes every batch where a test says nothing else."""
    tensorflow()


def taken(pipe, start, count, data=DATA, **kw):
    with contextlib.closing(Stream(pipe, data, **kw).iterate(start)) as batches:
        return list(itertools.islice(batches, count))


def folder_config(path, **kw):
    data = base().data
    data.update(source="folder", path=str(path), cache_mb=0.0, **kw)
    return data


# --- The law -----------------------------------------------------------------------------------


def test_any_position_any_number_of_processes_any_batch_size():
    """Seeds, places to resume, batch sizes and processes by chance; the definition decides."""
    chance = random.Random(7)
    for _ in range(6):
        count = chance.choice([1, 2, 4])
        sizes = schema.Sizes(batch=count * chance.randint(1, 3), height=16, width=16, tokens=6)
        seed, start = chance.randrange(2**31), chance.randrange(10**6)
        size = chance.choice([None, chance.randint(1, 50)])
        kw = {"sizes": sizes, "seed": seed}
        whole = pipeline(Fake(size), **kw)
        shares = [
            taken(pipeline(Fake(size), process_index=i, process_count=count, **kw), start, 3)
            for i in range(count)
        ]
        for step, parts in enumerate(zip(*shares, strict=True), start):
            joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
            equal(joined, whole.batch_at(step))
            first = step * sizes.batch
            ids = [int(whole.example_at(first + row)["id"]) for row in range(sizes.batch)]
            assert joined["id"].tolist() == ids


@pytest.mark.parametrize("workers", [1, 5])
@pytest.mark.parametrize("decode", ["exact", "draft", "native"])
def test_folders(tmp_path, workers, decode):
    make_folder(tmp_path, "text", ("cat", "flower", "pagoda", "rocket", "moon"))
    source = make_source(folder_config(tmp_path, decode=decode, crop="random"), 16, "train")
    pipe = Pipeline(source, Lengths(), SIZES, (*NEEDS, "mask"), seed=3, workers=workers)
    for start in (0, 4):  # four steps are more than an epoch
        for step, batch in enumerate(taken(pipe, start, 5), start):
            equal(batch, pipe.batch_at(step))


def test_collections(tmp_path):
    shards.collection(tmp_path, 4)
    data = base().data
    data.update(source="webdataset", path=str(tmp_path))
    pipe = Pipeline(make_source(data, 16, "train"), Lengths(), SIZES, NEEDS, seed=5)
    for step, batch in enumerate(taken(pipe, 3, 6, data), 3):
        equal(batch, pipe.batch_at(step))


def test_embedded_data_with_every_kind_of_array():
    source = Synthetic("mixed", 16, objects=3)
    sizes = schema.Sizes(batch=2, height=16, width=16, tokens=6, objects=3)
    pipe = Pipeline(source, Lengths(), sizes, (*source.gives, "tokens", "mask"), seed=0)
    for step, batch in enumerate(taken(pipe, 1, 2), 1):
        equal(batch, pipe.batch_at(step))


def test_batches_are_not_copied_on_their_way():
    array = aligned((3, 5), np.int32)
    assert array.ctypes.data % 64 == 0
    assert array.flags.c_contiguous
    pipe, made = pipeline(Fake()), []
    plain = pipe.written_batch_at
    pipe.written_batch_at = lambda *at: made.append(plain(*at)) or made[-1]
    first = taken(pipe, 0, 1)[0]
    assert any(np.shares_memory(first["image"], batch["image"]) for batch in made)


def test_memory_comes_again_when_no_part_of_it_is_held():
    rooms = stream.Rooms()
    first = rooms((4, 5), np.int32)
    assert first.shape == (4, 5)
    assert first.ctypes.data % 64 == 0
    first[:] = 7
    part, place = first[1:, 2], first.ctypes.data
    del first
    second = rooms((4, 5), np.int32)
    second[:] = 0
    assert (part == 7).all()
    assert second.ctypes.data != place
    del part
    assert rooms((20,), np.float32).ctypes.data == place
    assert rooms((3,), np.int32).ctypes.data != place


@pytest.mark.parametrize(("side", "count"), [(64, 16), (512, 16), (1024, 5), (1400, 2), (2048, 1)])
def test_small_batches_share_a_call(monkeypatch, side, count):
    pipe = pipeline(Fake())
    pipe.sizes = schema.Sizes(batch=1, height=side, width=side)
    pipe.rows, pipe.needs = 1, ("image",)
    made, asked = Stream(pipe, DATA), {}
    monkeypatch.setattr(made, "_mapped", lambda *_, **kw: asked.update(kw) or (x for x in ()))
    list(made._by_batch(0))
    assert asked["together"] == count


@pytest.mark.parametrize("batch", [1, 2])
def test_what_is_not_resized_is_decoded_exactly(tmp_path, batch):
    """By itself, and in a batch with another that TensorFlow's ops decode."""
    with Image.open(photo("pagoda")) as image:
        for name, side in (("a", 48), ("b", 96)):
            image.crop((200, 100, 200 + side, 100 + side)).save(tmp_path / f"{name}.jpg")
            (tmp_path / f"{name}.txt").write_text("a pagoda")
    sizes = schema.Sizes(batch=batch, height=48, width=48)
    pipe = Pipeline(
        make_source(folder_config(tmp_path, decode="native"), 48, "train"),
        *(None, sizes, ("image", "id")),
        seed=0,
        shuffle=False,
    )
    left = [x for step in range(2 // batch) for x in pipe.encoded_batch_at(step, aligned)["image"]]
    assert [isinstance(x, native.Encoded) for x in left] == [False, True]
    batches = taken(pipe, 0, 3)
    for step, made in enumerate(batches):
        equal(made, pipe.batch_at(step))
    with Image.open(tmp_path / "a.jpg") as image:
        np.testing.assert_array_equal(batches[0]["image"][0], np.asarray(image))


# --- What goes wrong ---------------------------------------------------------------------------


def test_unreadable_examples_are_replaced_and_counted(capfd):
    pipe = pipeline(Fake(size=6, bad=(1, 2, 5)), shuffle=False, workers=1)
    seen = np.concatenate([batch["id"] for batch in taken(pipe, 0, 3)])
    assert seen.tolist() == [0, 3, 3, 3, 4, 0, 0, 3, 3, 3, 4, 0]
    assert pipe.skipped[images.CORRUPT] > 6
    assert capfd.readouterr().err.count("1.png: truncated or corrupt") == 1


def test_damaged_pictures_are_found_by_tensorflow_too(tmp_path, capfd):
    make_folder(tmp_path, "text", ("flower", "pagoda", "rocket", "galaxies"))
    source = make_source(folder_config(tmp_path, decode="native"), 16, "train")
    pipe = Pipeline(source, Lengths(), SIZES, NEEDS, seed=3)
    file = tmp_path / "rocket.jpg"
    file.write_bytes(file.read_bytes()[:9000])  # its header is whole
    for step, batch in enumerate(taken(pipe, 0, 5)):
        equal(batch, pipe.batch_at(step))
        assert source._images.index("rocket.jpg") not in batch["id"]
    assert pipe.skipped[images.CORRUPT] > 0
    assert "rocket.jpg: truncated or corrupt; the next" in capfd.readouterr().err


def test_an_error_of_the_graph_that_no_picture_explains_is_raised(tmp_path, monkeypatch):
    make_folder(tmp_path, "text", ("flower",))
    source = make_source(folder_config(tmp_path, decode="native"), 16, "train")
    pipe = Pipeline(source, None, SIZES, ("image",), seed=3)
    plan = stream.native.encoded

    def wrong(pictures):
        contents, plans = plan(pictures)
        plans[:, 3] = 10**6
        return contents, plans

    monkeypatch.setattr(stream.native, "encoded", wrong)
    with pytest.raises(Exception, match=r"InvalidArgument|[Cc]rop"):
        taken(pipe, 0, 1)


def test_a_lost_disk_is_the_error_that_it_was():
    pipe = pipeline(Fake(size=5000, bad=range(5, 5000)), shuffle=False)
    with contextlib.closing(Stream(pipe, DATA).iterate()) as batches:
        equal(next(batches), pipe.batch_at(0))
        with pytest.raises(DataError, match=r"100 examples in a row.*config\.data\.path"):
            next(batches)


def test_closing_waits_for_what_is_being_read_and_begins_nothing_more():
    class Slow(Fake):
        running = begun = 0

        def example(self, index, keys):
            self.begun += 1
            self.running += 1
            time.sleep(0.02)
            self.running -= 1
            return super().example(index, keys)

    source = Slow()
    batches = Stream(pipeline(source), DATA).iterate()
    next(batches)
    batches.close()
    begun = source.begun
    time.sleep(0.2)
    assert source.running == 0
    assert source.begun == begun
    assert not [t for t in threading.enumerate() if t.name.startswith(("data", "prefetch"))]


@pytest.mark.parametrize("there", [True, False])
def test_a_process_ends_at_once_while_batches_are_made(there):
    code = (
        "from jaxt2i.data.tf import loaded\n"
        "from tests.data.test_stream import *\n"
        "class Slow(Fake):\n"
        "    def example(self, *args):\n"
        "        time.sleep(0.02)\n"
        "        return super().example(*args)\n"
        "load()\n"
        "batches = Stream(pipeline(Slow()), DATA).iterate(); next(batches); print('done')"
    )
    code = code.replace("load()", "tensorflow()" if there else "assert not loaded()")
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert out.stdout.strip() == "done"


# --- Before TensorFlow is there ----------------------------------------------------------------


@pytest.mark.parametrize("late", [0, 1, 5])
def test_threads_make_the_first_batches_and_tensorflow_those_behind(monkeypatch, capfd, late):
    """No batch comes twice or is left out."""
    monkeypatch.setattr(stream, "loaded", lambda: False)
    pipe, asked = pipeline(Fake(size=40, bad=(3, 11)), shuffle=False), []

    def over(_):
        asked.append(len(taken))
        return len(asked) > late

    monkeypatch.setattr(stream.Loading, "over", over)
    made = Stream(pipe, DATA)
    by_tensorflow, making = [], made._by_batch
    monkeypatch.setattr(made, "_by_batch", lambda step: by_tensorflow.append(step) or making(step))
    taken = []
    with contextlib.closing(made.iterate(2)) as batches:
        for batch in itertools.islice(batches, 20):
            taken.append(batch)
    assert asked[0] == EARLY
    # Those that were in work when it was there are threads' too.
    assert by_tensorflow == [2 + EARLY + late + pipe.workers + 1]
    alone = pipeline(Fake(size=40, bad=(3, 11)), shuffle=False)
    for step, batch in enumerate(taken, 2):
        equal(batch, alone.batch_at(step))
    assert "3.png" in capfd.readouterr().err


def test_a_tensorflow_that_does_not_load_is_told_when_its_turn_comes(monkeypatch):
    monkeypatch.setattr(stream, "loaded", lambda: False)

    def broken():
        raise ImportError("libsomething.so: cannot open shared object file")

    monkeypatch.setattr(tf, "tensorflow", broken)
    monkeypatch.setattr(tf, "loaded", lambda: False)
    monkeypatch.setattr(stream, "tensorflow", broken)
    pipe = pipeline(Fake())
    with contextlib.closing(Stream(pipe, DATA).iterate()) as batches:
        for step in range(EARLY):
            equal(next(batches), pipe.batch_at(step))
        with pytest.raises(ImportError, match="libsomething"):
            list(batches)


def test_tensorflow_comes_without_keras_and_keras_with_its_first_use():
    code = (
        "import sys; from jaxt2i.data.tf import loaded, tensorflow\n"
        "assert not loaded(); tf = tensorflow(); assert loaded()\n"
        "print([name for name in ('keras', 'sklearn', 'matplotlib') if name in sys.modules])\n"
        "print(tf.keras.optimizers.Adam(0.5).learning_rate.numpy())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split("\n")[:2] == ["[]", "0.5"]


# --- Without TensorFlow ------------------------------------------------------------------------


def test_threads_serve_embedded_data_without_tensorflow(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    pipe = pipeline(Fake())
    with contextlib.closing(Stream(pipe, DATA).iterate(2)) as batches:
        equal(next(batches), pipe.batch_at(2))
    assert capsys.readouterr().err.count("TensorFlow is not installed") == 1
    served_elsewhere = base().data
    served_elsewhere.service = "localhost:1"
    for data in (folder_config("x"), served_elsewhere):
        with pytest.raises(DataError, match="pip install tensorflow-cpu"):
            Stream(pipe, data)


def test_a_native_pipeline_opens_without_tensorflow(tmp_path):
    """It is opened before anything is compiled, and TensorFlow is to come while that happens."""
    make_folder(tmp_path, "text", ("flower",))
    code = (
        "import sys\nfrom jaxt2i.configs.common import base\n"
        "from jaxt2i.data import schema, sources\n"
        "from jaxt2i.data.pipeline import Pipeline\ndata = base().data\n"
        f"data.update(source='folder', path={str(tmp_path)!r}, decode='native')\n"
        "source = sources.make_source(data, 16, 'train')\n"
        "Pipeline(source, None, schema.Sizes(batch=1, height=16, width=16), ('image',), seed=0)\n"
        "print('tensorflow' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_tensorflow_comes_with_the_stream_and_not_with_the_module():
    code = (
        "import sys, jaxt2i.data.stream, jaxt2i.data.sources, jaxt2i.run.open\n"
        "print('tensorflow' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


# --- The service -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service():
    """The address of a dispatcher with two workers, processes of their own."""
    command = [sys.executable, "-m", "jaxt2i.data.serve"]
    with contextlib.ExitStack() as stack:

        def start(*args):
            process = subprocess.Popen(
                [*command, *args], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process.stdout.readline().split()[-1]

        address = start("dispatcher")
        for _ in range(2):
            start("worker", "--dispatcher", address)
        yield address


def served(path, address, decode="draft", **kw):
    """A pipeline and its config.data; without tokens, whose files workers would need."""
    data = folder_config(path, service=address, decode=decode)
    source = make_source(data, 16, "train")
    return Pipeline(source, None, SIZES, ("image", "id"), seed=3, **kw), data


@pytest.mark.parametrize(
    ("share", "decode"), [((0, 1), "draft"), ((0, 2), "draft"), ((1, 2), "native")]
)
def test_a_service_gives_the_same_examples_in_the_same_order(service, tmp_path, share, decode):
    make_folder(tmp_path, "text", ("cat", "flower", "pagoda", "rocket", "moon"))
    pipe, data = served(tmp_path, service, decode, process_index=share[0], process_count=share[1])
    for start in (0, 7):
        for step, batch in enumerate(taken(pipe, start, 12, data), start):
            equal(batch, pipe.batch_at(step))


def test_a_service_reports_what_it_replaced(service, tmp_path, capfd):
    make_folder(tmp_path, "text", ("cat", "flower", "pagoda", "moon"))
    pipe, data = served(tmp_path, service)
    batches = Stream(pipe, data).iterate()
    next(batches)
    (tmp_path / "moon.png").write_bytes(b"")
    seen = list(itertools.islice(batches, 30))
    batches.close()
    assert pipe.skipped[images.EMPTY] > 0
    assert "moon.png: empty file" in capfd.readouterr().err
    equal(seen[-1], pipe.batch_at(30))


def test_other_data_at_a_worker_is_an_error(service, tmp_path):
    make_folder(tmp_path, "text", ("cat", "moon"))
    pipe, data = served(tmp_path, service)
    pipe.source.size += 1
    with pytest.raises(DataError, match=r"sees 2 examples in .* the trainer 3"):
        taken(pipe, 0, 1, data)


def test_batches_that_a_service_leaves_out_are_made_here(monkeypatch, capsys):
    pipe = pipeline(Fake())
    made = Stream(pipe, DATA)
    made._service = "somewhere:1"
    order = [1, 2, 0, *range(4, 60)]  # 3 never comes
    monkeypatch.setattr(made, "_arriving", lambda start: ((s, pipe.batch_at(s)) for s in order))
    with contextlib.closing(made.iterate()) as batches:
        for step, batch in enumerate(itertools.islice(batches, 20)):
            equal(batch, pipe.batch_at(step))
    assert made.made_here == 1
    assert "that of step 3, which is made here" in capsys.readouterr().err


def test_a_recipe_is_all_that_a_worker_needs(tmp_path):
    make_folder(tmp_path, "text", ("cat", "moon"))
    pipe, data = served(tmp_path, "somewhere:1", caption="first")
    opened = serve.opened(stream.recipe(pipe, data, ""))
    equal(opened.batch_at(5), pipe.batch_at(5))
    assert opened.caption == "first"


# --- Pixels ------------------------------------------------------------------------------------


def test_exact_pictures_are_pillows(tmp_path):
    make_folder(tmp_path, "text", ("pagoda",))
    sizes = schema.Sizes(batch=1, height=64, width=64)
    pipe = Pipeline(Folder(tmp_path, Framing(64)), None, sizes, ("image",), seed=0)
    with Image.open(next(tmp_path.glob("*.jpg"))) as image:
        side = min(image.size)
        left, top = ((n - side) // 2 for n in image.size)
        cut = image.crop((left, top, left + side, top + side))
        wanted = np.asarray(cut.resize((64, 64), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(taken(pipe, 0, 1)[0]["image"][0], wanted)
