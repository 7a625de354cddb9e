"""Sets of pictures to be judged: of a folder, of a data source, or drawn by a run."""

import collections
import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxt2i import places
from jaxt2i.data import images
from jaxt2i.data.conditions import Row
from jaxt2i.data.order import mix, permuted
from jaxt2i.data.pictures import Framing
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources.base import NO_CAPTION, Skips
from jaxt2i.data.sources.captions import sidecar
from jaxt2i.data.sources.pairing import Pairs, pair
from jaxt2i.data.sources.stored import Store
from jaxt2i.metrics.statistics import fingerprint
from jaxt2i.run.folder import about_of

# (rows of the set, their pictures [n, H, W, 3]: uint8, or float32 0..255 where nothing is rounded).
Batch = tuple[np.ndarray, np.ndarray]
# Every size of picture is a program of its own.
MOST_SIZES = 32
# Pictures that are decoded before they are asked for.
AHEAD = 128


@dataclasses.dataclass(frozen=True)
class Set:
    """Pictures in batches.

    Attributes:
      name: for reports.
      count: rows; a row whose picture cannot be read is never given.
      batches: (at most so many pictures at once, which rows) -> batches, each of one size.
      captions: of every row; None where there are none.
      labels: class of every row; a row's own number where there are none.
      class_names: names of the classes.
      digest: of what the pictures are made of, for caches.
      skipped: (name, reason) counts and lists of what could not be read; filled while reading.
      names: of the files, below their folder; none where there are no files.
      row: number -> what is in the picture, or was asked for, in words; None where only captions
        are known.
      lacking: why there are no captions, in words, where some rows have one.
      made: how the pictures were made, for the record: fields of `protocols.Samples`, or of
        `protocols.Reference`, filled by what made them.
    """

    name: str
    count: int
    batches: Callable[[int, Sequence[int]], Iterator[Batch]]
    captions: tuple[str, ...] | None = None
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    digest: str = ""
    skipped: Skips = dataclasses.field(default_factory=Skips)
    names: tuple[str, ...] = ()
    row: Callable[[int], Row] | None = None
    lacking: str = ""
    made: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def rows(self, numbers: Sequence[int]) -> list[Row]:
        """What is in these pictures, or was asked for, in words."""
        if self.row is not None:
            return [self.row(int(n)) for n in numbers]
        said = self.captions
        return [{"number": int(n)} | ({"prompt": said[n]} if said else {}) for n in numbers]

    def pictures(self, rows: Sequence[int]) -> dict[int, np.ndarray]:
        """{row: uint8 [H, W, 3]} of the rows that can be read, in their order."""
        found = {}
        for numbers, pixels in self.batches(min(len(rows), 32), rows):
            rounded = np.asarray(np.clip(np.round(pixels), 0, 255), np.uint8)
            found |= dict(zip(numbers.tolist(), rounded, strict=True))
        return {row: found[row] for row in rows if row in found}


def by_size(pictures: Iterator[tuple[int, np.ndarray]], batch: int) -> Iterator[Batch]:
    """Batches of equal size from pictures of any.

    Raises:
      DataError: where there are too many sizes.
    """
    waiting: dict[tuple, list] = collections.defaultdict(list)
    for row, picture in pictures:
        group = waiting[picture.shape]
        group.append((row, picture))
        if len(waiting) > MOST_SIZES:
            raise DataError(
                f"the pictures have more than {MOST_SIZES} sizes, such as "
                f"{', '.join(f'{w} x {h}' for h, w, _ in list(waiting)[:3])}, and each would be a "
                "program of its own: give --resolution 256 to cut and resize them alike"
            )
        if len(group) == batch:
            yield _stack(group)
            group.clear()
    for group in waiting.values():
        if group:
            yield _stack(group)


def _stack(group: list) -> Batch:
    rows, pictures = zip(*group, strict=True)
    return np.array(rows), np.stack(pictures)


def of_folder(
    path: str | Path,
    resolution: int = 0,
    resize: str = "lanczos",
    strict: bool = True,
    crop: str = "centre",
) -> Set:
    """All images below a folder, sorted by name, with their captions where there are any.

    Captions without an image are told, by name; so are images without a caption, where others have
    one.

    Args:
      path: searched recursively; in any of the layouts that `config.data.source=folder` reads.
      resolution: cut the centre square and resize it, pixels; 0 leaves pictures as they are.
      resize: how.
      strict: captions for some pictures alone are an error; else the set has none, and says why.
      crop: another part of the picture, see `jaxt2i.data.pictures.CROPS`.

    Raises:
      DataError: when there is no image.
    """
    root = places.here(path)
    if not root.is_dir():
        raise DataError(f"{path} is no folder of images")
    skipped, met = Skips(), Skips()
    store = Store(root, skipped)
    pairs, lacking = _paired(store, met, strict)
    # Beside what `sample` drew lie its own sheets of many pictures.
    sheets = pairs.mute if pairs.images and about_of(root) else ()
    names = sorted(pairs.images if sheets else [*pairs.images, *pairs.mute])
    if not names:
        raise DataError(f"{path} holds {len(store.files)} files and no image")
    framing = Framing(resolution, crop, resize) if resolution else None

    read = functools.partial(_picture, store, framing=framing, resize=resize)

    def batches(batch: int, rows: Sequence[int]) -> Iterator[Batch]:
        return by_size(_read_ahead([(r, names[r]) for r in rows], read, skipped), batch)

    captions = _captions(store, pairs, met)
    texts, some = _texts(root, names, captions)
    lacking = lacking or some
    _tell(root, met, pairs, captions)
    if lacking and strict:
        raise DataError(lacking)
    digest = fingerprint(f"{name} {about}" for name, about in store.files.items())
    return Set(
        str(path),
        len(names),
        batches,
        texts,
        digest=fingerprint([digest, f"{resolution} {resize} {crop}"]),
        skipped=skipped,
        names=tuple(names),
        lacking=lacking,
        made={"crop": crop, "resize": resize, "resolution": resolution} if resolution else {},
    )


def _picture(
    store: Store, name: str, *, framing: Framing | None, resize: str
) -> np.ndarray | images.Unreadable:
    """A picture of a folder, framed; or why it cannot be read."""
    try:
        picture = images.read_rgb(store.read(name), name=str(store.root / name))
    except images.Unreadable as error:
        return error
    return framing.view(picture.size).show(picture, resize) if framing else np.asarray(picture)


def _paired(store: Store, skips: Skips, strict: bool) -> tuple[Pairs, str]:
    """(images and where their captions are, why there are none).

    Raises:
      DataError: for a table of captions that cannot be read, where `strict`; else the pictures are
        there without captions.
    """
    try:
        return pair(store, "", skips), ""
    except DataError as error:
        if strict:
            raise
        names = [name for name in store.files if name.lower().endswith(images.SUFFIXES)]
        return Pairs(mute=names), str(error)


def _tell(root: Path, met: Skips, pairs: Pairs, captions: Mapping[str, str]) -> None:
    """Says what found no partner."""
    if not captions:  # nobody meant to give any
        met.counts.pop(NO_CAPTION, None)
    if met.counts:
        said = "; ".join([f"data: {root}: left out: {met}", *pairs.unmet[:1]])
        print(said, file=sys.stderr, flush=True)


def _texts(
    root: Path, names: Sequence[str], captions: Mapping[str, str]
) -> tuple[tuple[str, ...] | None, str]:
    """(a caption of every image, or None; why there is none for some)."""
    if len(captions) == len(names):
        return tuple(captions[name] for name in names), ""
    if not captions:
        return None, ""
    without = next(name for name in names if name not in captions)
    return None, (
        f"{root}: {len(names) - len(captions)} of {len(names)} images have no caption, such as "
        f"{without}; give all of them one, or none"
    )


def _captions(store: Store, pairs: Pairs, skips: Skips) -> dict[str, str]:
    """The first caption of every image that has one that can be read."""
    found = {}
    for image, text in zip(pairs.images, pairs.texts, strict=True):
        if isinstance(text, list):
            found[image] = text[0]
            continue
        try:
            found[image] = sidecar(store.read(text), str(store.root / text)).texts[0]
        except images.Unreadable as error:
            skips.add(os.path.relpath(error.name, store.root), error.reason)
    return found


def _read_ahead(wanted: Sequence, read: Callable, skipped: Skips) -> Iterator:
    """(row, picture) of what can be read, decoded by threads a little ahead."""

    def taken(row: int, future: Future) -> Iterator:
        picture = future.result()
        if isinstance(picture, images.Unreadable):
            skipped.add(picture.name, picture.reason)
        else:
            yield row, picture

    with ThreadPoolExecutor((os.cpu_count() or 1) + 1, "decode") as pool:
        pending: collections.deque = collections.deque()
        for row, name in wanted:
            pending.append((row, pool.submit(read, name)))
            if len(pending) > AHEAD:
                yield from taken(*pending.popleft())
        while pending:
            yield from taken(*pending.popleft())


def of_source(
    source: Any,
    name: str,
    numbers: Sequence[int],
    captions: Sequence[str] | None = None,
    row: Callable[[int], Row] | None = None,
    content: Iterable[str] = (),
) -> Set:
    """Real pictures of a data source, as it shows held-out ones.

    Args:
      source: of `jaxt2i.data`.
      name: for reports and caches.
      numbers: the source's own of the pictures.
      captions: of each; None: none are needed.
      row: number of the set -> what is in the picture, in words.
      content: what the pictures are made of, for caches.
    """
    skipped = Skips()

    def read(index: int) -> np.ndarray | images.Unreadable:
        try:
            return source.example(int(index), ("image",))["image"]
        except images.Unreadable as error:
            return error

    def batches(batch: int, rows: Sequence[int]) -> Iterator[Batch]:
        return by_size(_read_ahead([(r, numbers[r]) for r in rows], read, skipped), batch)

    return Set(
        name,
        len(numbers),
        batches,
        None if captions is None else tuple(captions),
        digest=fingerprint([name, *map(str, numbers), *content]),
        skipped=skipped,
        row=row,
    )


def choose_captions(
    counts: Sequence[int], kind: str, count: int, seed: int
) -> list[tuple[int, int]]:
    """Which captions pictures are drawn for, by a rule of `jaxt2i.metrics.protocols.CAPTIONS`.

    Args:
      counts: captions of every image.
      kind: the rule.
      count: pictures at most.
      seed: of the draws, the same in every run.

    Returns:
      [(image, number of its caption)].
    """
    total, key = len(counts), mix(seed, 21)

    def any_of(image: int, turn: int) -> int:
        return mix(key, image, turn) % counts[image]

    if kind == "first":
        pairs = ((i, 0) for i in range(total))
    elif kind == "all":
        pairs = ((i, j) for i in range(total) for j in range(counts[i]))
    elif kind == "one_pass":
        pairs = ((i, any_of(i, 0)) for i in range(total))
    elif kind == "passes":
        pairs = ((p % total, any_of(p % total, p // total)) for p in range(count))
    elif kind == "stored":
        drawn = (mix(key, 7, p) % total for p in range(count))
        pairs = ((i, any_of(i, 0)) for i in drawn)
    else:  # distinct
        pairs = ((permuted(p, total, key), 0) for p in range(min(count, total)))
        pairs = ((i, any_of(i, 0)) for i, _ in pairs)
    return [pair for _, pair in zip(range(count), pairs, strict=False)]


def on_local_devices() -> tuple[NamedSharding, NamedSharding]:
    """(rows split over the devices of this process, everything on each of them)."""
    mesh = Mesh(np.array(jax.local_devices()), ("data",))
    return NamedSharding(mesh, P("data")), NamedSharding(mesh, P())


def of_system(
    system: Any,
    captions: Sequence[str],
    *,
    name: str,
    seed: int,
    rule: str,
    conditions: Callable[[int], Row] = lambda number: {},
    samples: int = 1,
    labels: np.ndarray | None = None,
    controls: Mapping[str, Any] | None = None,
) -> Set:
    """Pictures that a system draws for captions, `samples` in a row for each.

    Each process draws with its own devices what it is asked for.

    Args:
      system: `api.System`: the run, or a chain of them.
      captions: what to draw.
      name: for reports.
      seed: of all seeds; a row that names none gets one of its own.
      rule: of `nn.pixels`, from floats to pixels; "": the method's own.
      conditions: number of a caption -> its other conditions, read when they are needed.
      samples: of each caption.
      labels: classes of the captions.
      controls: of the system.
    """
    said = [text for text in captions for _ in range(samples)]
    how = dict(controls or {})

    def row(number: int) -> Row:
        own = {"seed": mix(seed, 22, number) & 0xFFFFFFFF, **conditions(number // samples)}
        return own | {"prompt": said[number], "number": number} | ({"controls": how} if how else {})

    def batches(batch: int, numbers: Sequence[int]) -> Iterator[Batch]:
        drawn = system.stream((row(int(n)) for n in numbers), rule=rule)
        yield from by_size(((row["number"], out["image"]) for row, out in drawn), batch)

    return Set(
        name,
        len(said),
        batches,
        tuple(said),
        None if labels is None else np.repeat(labels, samples),
        tuple(system.run.facts.names.get("label", ())),
        fingerprint([name, str(seed), rule, str(how), str(system.chunk), *said]),
        row=row,
        made={
            "controls": system.changed(how),
            "quantise": rule or system.sampler.pixels,
            "weights": system.about["weights"],
        },
    )


def of_files(drawn: Set, root: Path, names: Mapping[int, str], **made: Any) -> Set:
    """A set whose pictures were written to a folder: read back, not drawn again.

    Args:
      drawn: the set.
      root: the folder.
      names: {row: name of its file}.
      made: what writing changed, for the record.
    """

    def read(name: str) -> np.ndarray | images.Unreadable:
        try:
            return np.asarray(images.read_rgb(root / name))
        except images.Unreadable as error:
            return error

    def batches(batch: int, rows: Sequence[int]) -> Iterator[Batch]:
        there = [(int(r), names[int(r)]) for r in rows if int(r) in names]
        return by_size(_read_ahead(there, read, drawn.skipped), batch)

    return dataclasses.replace(drawn, batches=batches, made={**drawn.made, **made})
