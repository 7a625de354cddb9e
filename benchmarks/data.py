"""Pictures a second that the input pipeline makes, beside PyTorch's: python benchmarks/data.py.

JPEGs of 256 px from tar files, TFRecord files and a folder to batches of 64 at 64 and 256 px, with
two calls at a time here and two DataLoader processes there (torch and webdataset from PyPI; without
them only ours is measured). Both decode, cut the centre square and resize it with Lanczos' filter.
Windows alternate; lines hold medians. "exact" lines decode every pixel, as the others' do.
`--step` measures what input costs a training step instead; `--readers` the ways to drive the
reading: see benchmarks/readers.py.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import readers
from jaxt2i.configs.common import base
from machine import report, show

from jaxt2i.data import schema
from jaxt2i.data.pipeline import Pipeline, prefetch_to_device
from jaxt2i.data.sources import make_source
from jaxt2i.data.stream import Stream
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.run import open as runs
from jaxt2i.run import settings

BATCH, WORKERS = 64, 2
# Batches that may be waiting when a window begins.
WAITING = 12


def photos(count: int, size: tuple[int, int] = (256, 256)) -> Iterator[tuple[str, bytes]]:
    """(key, JPEG of that width and height) of parts of scikit-image's photographs."""
    import skimage.data
    from PIL import Image

    chance = np.random.RandomState(0)
    whole = [f() for f in (skimage.data.astronaut, skimage.data.coffee, skimage.data.chelsea)]
    for i in range(count):
        photo = whole[i % len(whole)]
        side = chance.randint(180, min(photo.shape[:2]) + 1)
        top, left = (chance.randint(0, n - side + 1) for n in photo.shape[:2])
        part = Image.fromarray(photo[top : top + side, left : left + side])
        out = io.BytesIO()
        part.resize(size, Image.Resampling.LANCZOS).save(out, "JPEG", quality=95)
        yield f"{i // 500:05d}{i % 500:04d}", out.getvalue()


def write(root: Path, count: int, size: tuple[int, int] = (256, 256)) -> None:
    """The same pictures as tar files, TFRecord files and a folder."""
    import tensorflow as tf

    def bytes_of(value: bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    for name in ("tar", "tfrecord", "folder"):
        (root / name).mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        for i, (key, jpeg) in enumerate(photos(count, size)):
            if i % 500 == 0:
                archive = stack.enter_context(tarfile.open(root / "tar" / f"{key[:5]}.tar", "w"))
                path = str(root / "tfrecord" / f"{key[:5]}.tfrecord")
                records = stack.enter_context(tf.io.TFRecordWriter(path))
            text = f"photograph {key}".encode()
            meta = json.dumps({"key": key, "caption": text.decode()}).encode()
            for suffix, content in (("jpg", jpeg), ("txt", text), ("json", meta)):
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
                if suffix != "json":
                    (root / "folder" / f"{key}.{suffix}").write_bytes(content)
            values = {"key": bytes_of(key.encode()), "jpg": bytes_of(jpeg), "txt": bytes_of(text)}
            features = tf.train.Features(feature=values)
            records.write(tf.train.Example(features=features).SerializeToString())


def ours(root: Path, kind: str, size: int, draft: bool) -> Iterator:
    """Our batches."""
    data = base().data
    source = "folder" if kind == "folder" else "webdataset"
    data.update(
        source=source, path=str(root / kind), decode="draft" if draft else "exact", cache_mb=0.0
    )
    data.web.held_out = 0.0
    made = make_source(data, size, "train")
    sizes = schema.Sizes(batch=BATCH, height=size, width=size)
    pipeline = Pipeline(made, None, sizes, ("image",), seed=0, workers=WORKERS)
    return Stream(pipeline, data).iterate()


def theirs(root: Path, kind: str, size: int) -> Iterator:
    """PyTorch's batches, as its users write it."""
    import torch
    import webdataset
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    def square(image):
        image = image.convert("RGB")
        side = min(image.size)
        left, top = ((n - side) // 2 for n in image.size)
        image = image.crop((left, top, left + side, top + side))
        return torch.from_numpy(np.array(image.resize((size, size), Image.Resampling.LANCZOS)))

    class Files(Dataset):
        files = sorted((root / "folder").glob("*.jpg"))

        def __len__(self):
            return len(self.files)

        def __getitem__(self, i):
            return square(Image.open(self.files[i])), self.files[i].with_suffix(".txt").read_text()

    if kind == "folder":
        made = DataLoader(Files(), BATCH, shuffle=True, num_workers=WORKERS, drop_last=True)
        while True:
            yield from made
    tars = [str(file) for file in sorted((root / "tar").glob("*.tar"))]
    pairs = webdataset.WebDataset(tars, shardshuffle=len(tars)).shuffle(1000).decode("pil")
    pairs = pairs.to_tuple("jpg", "txt").map_tuple(square, str).repeat()
    yield from DataLoader(pairs, BATCH, num_workers=WORKERS, drop_last=True)


def window(batches: Iterator, seconds: float) -> float:
    """Pictures a second, once what was waiting has been taken."""
    for _ in range(WAITING):
        next(batches)
    count, begin = 0, time.perf_counter()
    while (spent := time.perf_counter() - begin) < seconds:
        next(batches)
        count += BATCH
    return count / spent


def libraries(root: Path, kind: str, size: int) -> dict[str, float]:
    """Milliseconds of processor time a picture in libraries, every pixel being decoded.

    Returns:
      exact_decode_ms, exact_resize_ms: ours, see `readers.parts`; the others' filter is the same.
      torch_decode_ms: the others', Pillow's.
    """
    from PIL import Image

    pipeline = readers.opened(readers.config(root, kind, "exact"), size)
    ours, times = readers.parts(pipeline), []
    for i in range(readers.PARTS):
        file = readers.content(pipeline.source, i)
        begin = time.process_time()
        Image.open(io.BytesIO(file)).convert("RGB")
        times.append(time.process_time() - begin)
    found = {f"exact_{name}": ours[name] for name in ("decode_ms", "resize_ms")}
    return found | {"torch_decode_ms": round(1e3 * statistics.median(times), 3)}


def compare(root: Path, args, torch: bool) -> Iterator[dict]:
    """Lines of all kinds and sizes."""
    for kind in ("tar", "tfrecord", "folder"):
        for size in (64, 256):
            arms = {"ours": ours(root, kind, size, True), "exact": ours(root, kind, size, False)}
            if torch and kind != "tfrecord":
                arms["torch"] = theirs(root, kind, size)
            rates: dict[str, list[float]] = {name: [] for name in arms}
            for _ in range(args.rounds):
                for name, batches in arms.items():
                    rates[name].append(window(batches, args.seconds))
            for batches in arms.values():
                batches.close()
            middle = {name: statistics.median(values) for name, values in rates.items()}
            line = {"benchmark": "data", "kind": kind, "resolution": size, "batch": BATCH}
            line |= {f"{name}_images_per_s": round(rate) for name, rate in middle.items()}
            if "torch" in middle:
                for name in ("ours", "exact"):
                    pairs = zip(rates[name], rates["torch"], strict=True)
                    ratio = statistics.median(a / b for a, b in pairs)
                    line[f"{name}_over_torch"] = round(ratio, 2)
                line |= libraries(root, kind, size)
            yield show(line)


def step_cost(root: Path, args) -> dict:
    """A training step with its input, and with one batch that lies on the device already."""
    config = settings.preset(args.config, args.preset)
    config.data.update(source="webdataset", path=str(root / "tar"), cache_mb=0.0)
    run = runs.open_run(config)
    layout, spec = run.layout(), run.batch_spec()
    placed = tuple(map(layout.shardings, states.shapes(run.method, spec)))
    state, frozen = states.create(run.method, spec, 0, placed)
    pipeline = run.pipeline(run.source("train"), config.batch_size, run.method.needs)

    def put(rows):
        return layout.put_batch(rows)

    batch = put(pipeline.batch_at(0))
    step = jax.jit(steps.make(run.method, steps.Rules(0, config.batch_size, 1000))[1])

    def timed(take: Callable) -> float:
        begin = time.perf_counter()
        for _ in range(args.steps):
            jax.block_until_ready(step(state, frozen, take()))
        return (time.perf_counter() - begin) / args.steps

    fed = prefetch_to_device(Stream(pipeline, config.data).iterate(), put)
    timed(lambda: batch)
    pairs = [(timed(lambda: batch), timed(lambda: next(fed))) for _ in range(args.rounds)]
    fed.close()
    without, with_input = (statistics.median(times) for times in zip(*pairs, strict=True))
    return show(
        {
            "benchmark": "input share of a step",
            "config": args.config,
            "preset": args.preset,
            "batch": config.batch_size,
            "resolution": config.data.resolution,
            "step_ms": round(without * 1e3, 1),
            "with_input_ms": round(with_input * 1e3, 1),
            "share": round(statistics.median(1 - a / b for a, b in pairs), 3),
        }
    )


def main() -> None:
    """Measures what the command line asks for."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--images", type=int, default=4000)
    p.add_argument("--seconds", type=float, default=6.0, help="of a window")
    p.add_argument("--rounds", type=int, default=5, help="windows of each")
    p.add_argument("--readers", action="store_true", help="the ways to drive the reading")
    p.add_argument("--arms", nargs="*", choices=readers.ARMS, help="of --readers; default all")
    p.add_argument("--step", action="store_true", help="what input costs a step")
    p.add_argument("--config", default="configs/df_gan.py")
    p.add_argument("--preset", default="embedded")
    p.add_argument("--steps", type=int, default=20, help="of a window with --step")
    p.add_argument("--save", help="name of the file in benchmarks/results")
    args = p.parse_args()
    torch = all(importlib.util.find_spec(name) for name in ("torch", "webdataset"))
    if not torch:
        print("torch and webdataset are not both here: measuring ours alone", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        if args.readers:
            lines = list(readers.compare(Path(folder), write, args))
        else:
            write(Path(folder), args.images)
            if args.step:
                lines = [step_cost(Path(folder), args)]
            else:
                lines = list(compare(Path(folder), args, torch))
    report(lines, args.save)


if __name__ == "__main__":
    main()
