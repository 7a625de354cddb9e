"""Ways to drive the reading of training's pictures, for benchmarks/data.py --readers.

  threads        plain threads around `Pipeline.batch_at`
  tfdata         tf.data around it: what training uses
  service        the same by a tf.data service: a dispatcher and two workers, processes of their own
  native         tf.data with config.data.decode="native": TensorFlow's ops decode and average
  graph_lanczos  TensorFlow's ops decode as config.data.decode="draft" does, and resize by Lanczos'
                 filter, one picture at a time: what "draft" would cost in a graph

A service is for other machines' processors: on one machine its batches cross from process to
process on the same cores, which costs what service_cpu_ms has more than tfdata_cpu_ms.
graph_lanczos has other pixels, and loses where TensorFlow's filter takes longer than Pillow's
(tf_lanczos_ms, resize_ms); nothing trains by it.

Windows of one cell alternate in one run on one machine, each with readers opened anew, so that none
works on for another's time. A window lasts so many seconds of processor time, all its processes
together: the ratio of processor times holds on a machine that is shared, that of pictures a second
on a quiet one. Ratios are those of medians. Every line says how busy the machine was.
"""

import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
from jaxt2i.configs.common import base
from machine import show
from tqdm import tqdm

from jaxt2i.data import images, schema
from jaxt2i.data.builders.base import Builder, Item
from jaxt2i.data.builders.record import Caption, Record
from jaxt2i.data.pipeline import Pipeline
from jaxt2i.data.sources import make_source
from jaxt2i.data.sources.folders import Folder
from jaxt2i.data.sources.records import Records
from jaxt2i.data.stream import Stream
from jaxt2i.data.tf import tensorflow

BATCH, WORKERS = 32, 2
# Batches that are taken before a window begins.
SETTLE = 8
# Seconds from which on a batch was waited for.
WAIT = 2e-3
# Pictures of which the libraries' shares are measured.
PARTS = 64
# Pictures' width and height, and the side that they are read at.
CELLS = (((256, 256), 64), ((256, 256), 256), ((640, 480), 256))
ARMS = ("threads", "tfdata", "native", "graph_lanczos", "service")
KINDS = {"folder": "folder", "records": "records", "tar": "webdataset"}


class Jaxt2iPhotos(Builder):
    """A folder of pictures as records."""

    pkg_dir_path = Path(__file__).parent

    def needs(self):
        return ()

    def items(self, files):
        names = sorted(file.name for file in files.root.glob("*.jpg"))
        return {"train": [Item(name, name, name) for name in names]}

    def record(self, files, item):
        return Record(item.key, files / item.image, item.image, [Caption("a photograph")])


def prepare(root: Path) -> None:
    """The folder as ArrayRecord files."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(manual_dir=root / "folder", register_checksums=False)
    builder = Jaxt2iPhotos(data_dir=root / "records", file_format="array_record")
    with contextlib.redirect_stdout(sys.stderr):
        builder.download_and_prepare(download_config=config)


@contextlib.contextmanager
def service():
    """The address of a dispatcher with two workers, and the three processes."""
    command = [sys.executable, "-m", "jaxt2i.data.serve"]
    with contextlib.ExitStack() as stack:
        processes = []

        def start(*args: str) -> str:
            process = subprocess.Popen(
                [*command, *args], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
            processes.append(psutil.Process(process.pid))
            return process.stdout.readline().split()[-1]

        address = start("dispatcher")
        for _ in range(2):
            start("worker", "--dispatcher", address)
        yield address, processes


def config(root: Path, kind: str, decode: str = "draft", address: str = ""):
    """config.data of a kind; nothing is remembered."""
    data = base().data
    data.update(source=KINDS[kind], path=str(root / kind), decode=decode, cache_mb=0.0)
    data.service = address
    data.web.held_out = 0.0
    return data


def opened(data, size: int, workers: int = WORKERS) -> Pipeline:
    """The pictures of a configuration."""
    source = make_source(data, size, "train")
    sizes = schema.Sizes(batch=BATCH, height=size, width=size)
    return Pipeline(source, None, sizes, ("image",), seed=0, workers=workers)


def content(source, index: int) -> bytes:
    """A picture's file."""
    if isinstance(source, Folder):
        return (source.root / source.name(index)).read_bytes()
    if isinstance(source, Records):
        return source._row(index).byte_strings("image")[0]
    part, file, row = source._at(index)
    return part.picture(file, part.at(file, row)[1])


def graph(pipeline: Pipeline, picture: tuple[int, int]) -> Iterator:
    """Batches by TensorFlow's own ops, with Lanczos' filter."""
    tf, size = tensorflow(), pipeline.sizes.resolution
    least = min(picture)
    ratio = max(n for n in (1, 2, 4, 8) if n == 1 or least >= 2 * n * size)
    side = least // ratio
    left, top = (n // ratio - side for n in picture)

    def read(position):
        order = pipeline.order
        rows = range(int(position), int(position) + BATCH)
        return np.array([content(pipeline.source, order(p)) for p in rows], object)

    def decode(file):
        if ratio == 1:
            window = [top // 2, left // 2, side, side]
            image = tf.io.decode_and_crop_jpeg(file, window, channels=3)
        else:
            image = tf.io.decode_jpeg(file, channels=3, ratio=ratio)
            image = image[top // 2 : top // 2 + side, left // 2 : left // 2 + side]
        if side == size:
            return tf.ensure_shape(image, [size, size, 3])
        image = tf.image.resize(image, [size, size], "lanczos3", antialias=True)
        return tf.saturate_cast(image + 0.5, tf.uint8)

    made = tf.data.Dataset.range(0, 2**62, BATCH).map(
        lambda position: tf.numpy_function(read, [position], tf.string),
        num_parallel_calls=1,
        deterministic=True,
    )
    made = made.unbatch().map(decode, num_parallel_calls=WORKERS, deterministic=True)
    yield from made.batch(BATCH, drop_remainder=True).prefetch(2).as_numpy_iterator()


def parts(pipeline: Pipeline) -> dict[str, float]:
    """Milliseconds of processor time a picture that libraries take, whoever drives the reading.

    Returns:
      decode_ms: libjpeg's, as config.data.decode has it.
      resize_ms: Pillow's filter, or that of config.data.resize.
      tf_lanczos_ms: TensorFlow's op in place of that; 0 where nothing is resized.
    """
    tf, framing = tensorflow(), pipeline.source.framing
    files = [content(pipeline.source, i) for i in range(PARTS)]

    def need(size):
        return framing.view(size).enough(size)

    def decode(file: bytes):
        return images.open_rgb(file, need if framing.decode == "draft" else None, name="it")

    def filtered(image: np.ndarray):
        shown = np.ascontiguousarray(image[:, (image.shape[1] - image.shape[0]) // 2 :])
        shown = tf.constant(shown[:, : len(shown)])
        return tf.image.resize(shown, framing.size[::-1], "lanczos3", antialias=True).numpy()

    def spent(work: Callable, items: list) -> float:
        times = []
        for item in [*items[:4], *items]:
            begin = time.process_time()
            work(item)
            times.append(time.process_time() - begin)
        return round(1e3 * statistics.median(times[4:]), 3)

    decoded = [decode(file) for file in files]
    resizes = framing.view(decoded[0][1]).resizes
    return {
        "decode_ms": spent(decode, files),
        "resize_ms": spent(
            lambda seen: framing.view(seen[1]).scale(seen[0], framing.resize, seen[1]), decoded
        ),
        "tf_lanczos_ms": spent(filtered, [image for image, _ in decoded]) if resizes else 0.0,
    }


def arms(root: Path, kind: str, picture: tuple[int, int], size: int, address: str) -> dict:
    """{arm: () -> batches}; the service comes last, if it has an address."""
    draft, native = config(root, kind), config(root, kind, "native")
    reader = opened(draft, size)
    out = {
        "threads": reader.iterate,
        "tfdata": Stream(reader, draft).iterate,
        "native": Stream(opened(native, size), native).iterate,
        "graph_lanczos": lambda: graph(reader, picture),
    }
    if address:
        served = config(root, kind, address=address)
        # Two workers, each with one call at a time.
        out["service"] = Stream(opened(served, size, 1), served).iterate
    return out


def waited(batches: Iterator) -> int:
    """Takes batches up to one that has to be waited for: how many.

    Windows begin and end there, as several may come at a time.
    """
    for count in itertools.count(1):
        begin = time.perf_counter()
        next(batches)
        if time.perf_counter() - begin > WAIT:
            return count


def window(open_batches: Callable, seconds: float, processes: list) -> tuple[float, float]:
    """(pictures a second, milliseconds of processor time a picture)."""

    def spent() -> float:
        return sum(sum(p.cpu_times()[:2]) for p in processes)

    with contextlib.closing(open_batches()) as batches:
        for _ in range(SETTLE):
            next(batches)
        waited(batches)
        count, begin, used = 0, time.perf_counter(), spent()
        while spent() - used < seconds:
            count += BATCH * waited(batches)
        took, used = time.perf_counter() - begin, spent() - used
    return count / took, 1e3 * used / count


def compare(root: Path, write: Callable, args) -> Iterator[dict]:
    """Lines of all kinds and sizes.

    Args:
      root: an empty folder.
      write: (folder, count, (width, height)) -> None, makes the pictures.
      args: images, rounds, seconds and arms.
    """
    for picture in dict.fromkeys(picture for picture, _ in CELLS):
        write(root / str(picture[0]), args.images, picture)
        prepare(root / str(picture[0]))
    wanted = {"threads", *(args.arms or ARMS)}  # which all others are held against
    served = service() if "service" in wanted else contextlib.nullcontext(("", []))
    with served as (address, others), tqdm(total=len(CELLS) * len(KINDS)) as bar:
        for picture, size in CELLS:
            for kind in KINDS:
                readers = arms(root / str(picture[0]), kind, picture, size, address)
                readers = {name: reader for name, reader in readers.items() if name in wanted}
                alone = parts(opened(config(root / str(picture[0]), kind), size))
                yield show(cell(kind, picture, size, readers, others, args) | alone)
                bar.update()


def cell(kind: str, picture, size: int, readers: dict, others: list, args) -> dict:
    """The line of a kind and a size."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
    for _ in range(args.rounds):
        for name, reader in readers.items():
            processes = [psutil.Process(), *(others if name == "service" else ())]
            seen[name].append(window(reader, args.seconds, processes))
        time.sleep(1)  # the workers end what they had begun
    line = {"benchmark": "readers", "kind": kind, "picture": list(picture), "resolution": size}
    line |= {"batch": BATCH, "load_1min": round(os.getloadavg()[0], 1)}
    middle = {}
    for name, windows in seen.items():
        rate, cost = middle[name] = tuple(map(statistics.median, zip(*windows, strict=True)))
        line |= {f"{name}_images_per_s": round(rate), f"{name}_cpu_ms": round(cost, 3)}
    for name in [name for name in seen if name != "threads"]:
        speed, cost = (a / b for a, b in zip(middle[name], middle["threads"], strict=True))
        pairs = sorted(a[1] / b[1] for a, b in zip(seen[name], seen["threads"], strict=True))
        line[f"{name}_speed_over_threads"] = round(speed, 2)
        line[f"{name}_cpu_over_threads"] = round(cost, 2)
        line[f"{name}_cpu_over_threads_range"] = [round(pairs[0], 2), round(pairs[-1], 2)]
    return line
