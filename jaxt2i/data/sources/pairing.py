"""Pictures below a folder and their captions, brought together by name without opening either."""

import collections
import dataclasses
import itertools
import posixpath
from collections.abc import Iterable

from jaxt2i.data.images import SUFFIXES, UNREAD
from jaxt2i.data.sources.base import (
    NO_CAPTION,
    NO_IMAGE,
    NO_TEXT,
    OUTSIDE,
    Skips,
    clean_captions,
    shortened,
)
from jaxt2i.data.sources.captions import METADATA, read_metadata
from jaxt2i.data.sources.meeting import ARCHIVES, Names, places
from jaxt2i.data.sources.stored import ZIP, Store
from jaxt2i.data.sources.tables import is_table

# Names that found no partner and are told, of each kind.
TOLD = 5
# Endings of files that may hold captions in a form of their own.
MAYBE = (".csv", ".tsv", ".json", ".jsonl", ".xlsx")


@dataclasses.dataclass
class Pairs:
    """Images and where their captions are: a text file's name, or the captions themselves.

    Attributes:
      images: those with a caption.
      texts: of each.
      mute: those without.
      count: all images, those among them that are not read here.
      unused: images without a pair, by reason.
      unmet: sentences on the first names that found no partner.
    """

    images: list[str] = dataclasses.field(default_factory=list)
    texts: list[str | list[str]] = dataclasses.field(default_factory=list)
    mute: list[str] = dataclasses.field(default_factory=list)
    count: int = 0
    unused: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    unmet: list[str] = dataclasses.field(default_factory=list)


def metadata_captions(
    store: Store, names: Iterable[str], skips: Skips, astray: dict[str, str]
) -> dict[str, list[str]]:
    """The captions of every metadata file of a store.

    Names in it count from its folder or from root, and may be spelled as Windows or macOS do.

    Args:
      store: what there is.
      names: of it, sorted.
      skips: takes the lines that cannot be used.
      astray: takes {place where an image should be and is not: "FILE:LINE"}.

    Returns:
      {image's name: captions}.
    """
    names = list(names)
    known, captions = Names(n for n in names if ends_in(n, (*SUFFIXES, *UNREAD))), {}
    for name in names:
        if posixpath.basename(name) not in METADATA:
            continue
        for line, reason, file_name, texts in read_metadata(
            store.read(name), str(store.root / name)
        ):
            where = f"{name}:{line}"
            if reason:
                skips.add(where, reason)
                continue
            candidates = places(file_name, posixpath.dirname(name))
            found = next(filter(None, map(known.find, candidates)), None)
            if not candidates:
                skips.add(f"{where}: {file_name}", OUTSIDE)
            elif not (clean := clean_captions(texts)):
                skips.add(f"{where}: {file_name}", NO_TEXT)
            elif found is not None:
                captions.setdefault(found, []).extend(clean)
            else:
                astray.setdefault(candidates[0], where)
    return captions


def ends_in(name: str, suffixes: Iterable[str]) -> bool:
    """Whether a name has one of these endings, in capitals or not."""
    return name.lower().endswith(tuple(suffixes))


def is_inside(name: str, part: str) -> bool:
    """Whether a name belongs to a part of a folder: lies below it, or is a table called after it.

    Args:
      name: relative to the folder.
      part: as "train", see `part_of`; "": everything does.
    """
    if not part or name.startswith(f"{part}/"):
        return True
    return is_table(name) and table_part(name) == part


def table_part(name: str) -> str:
    """What a table is called besides its number: "train" of "data/train-00000-of-00002.parquet"."""
    return posixpath.splitext(posixpath.basename(name))[0].split("-")[0]


def pair(store: Store, part: str, skips: Skips) -> Pairs:
    """Pairs images with captions by name, without opening either.

    Zip archives are looked into where a metadata file names images that are not there, or where
    there is no image at all.

    Args:
      store: what there is; its tables, and its archives where they serve, are opened.
      part: only what belongs to it, see `is_inside`; "" for everything.
      skips: takes what finds no partner.
    """
    inside = [name for name in store.names if is_inside(name, part)]
    store.open_tables(inside, skips)
    packed = [name for name in inside if ends_in(name, (ZIP,))]
    if packed:
        tried = Skips()
        first = _met(store, part, tried)
        lost = NO_IMAGE in tried.counts or not first.count
        if lost:
            store.open_archives(packed, skips)
    return _met(store, part, skips)


def _met(store: Store, part: str, skips: Skips) -> Pairs:
    names = store.names
    inside = [name for name in names if is_inside(name, part)]
    images = [name for name in inside if ends_in(name, SUFFIXES)]
    strange = [name for name in inside if ends_in(name, UNREAD)]
    sidecars = {_stem(name): name for name in inside if ends_in(name, (".txt",))}
    astray: dict[str, str] = {}
    captions = metadata_captions(store, names, skips, astray)
    if part:
        astray = {n: where for n, where in astray.items() if n.startswith(part + "/")}
    pairs, beside = Pairs(count=len(images) + len(strange)), Names(sidecars)
    for image in images:
        stem = beside.find(_stem(image))
        text = captions.get(image) or sidecars.get(stem)
        if text is None:
            pairs.mute.append(image)
            continue
        pairs.images.append(image)
        pairs.texts.append(text)
    _add_rows(store, pairs, skips)
    for image in strange:
        reason = UNREAD[posixpath.splitext(image)[1].lower()]
        skips.add(image, reason)
        pairs.unused[reason] += 1
    for image in pairs.mute:
        skips.add(image, NO_CAPTION)
        pairs.unused[NO_CAPTION] += 1
    stems = Names(map(_stem, images + strange))
    strays = [name for stem, name in sidecars.items() if stems.find(stem) is None]
    for name in strays + list(astray):
        skips.add(name, NO_IMAGE)
    if astray or strays or not pairs.count:
        closed = [n for n in inside if ends_in(n, ARCHIVES)]
        pairs.unmet += [f"{name} is not unpacked: unpack it here" for name in closed[:TOLD]]
    if not pairs.images and pairs.mute:
        pairs.unmet += _unread(inside, strays)
    pairs.unmet += _unmet(images + strange, pairs.mute, strays, astray, list(sidecars.values()))
    return pairs


def _add_rows(store: Store, pairs: Pairs, skips: Skips) -> None:
    """The rows of tables, whose pictures and captions stand side by side."""
    for name, table in store.tables.items():
        pairs.count += len(table.texts)
        for number, (texts, reason) in enumerate(table.texts):
            if reason:
                skips.add(f"{name}:{number}", reason)
                pairs.unused[reason] += 1
                continue
            pairs.images.append(f"{name}:{number}")
            pairs.texts.append(texts)


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]


def _unread(names: list[str], strays: list[str]) -> list[str]:
    """Sentences on files that may hold the captions in a form that is not read."""
    tables = [n for n in names if ends_in(n, MAYBE) and posixpath.basename(n) not in METADATA]
    # One text for many images.
    tables += strays if len(strays) == 1 else []
    return [
        f"{name} may hold the captions, and is not read: make it a metadata.csv whose first line "
        "is file_name,text"
        for name in tables[:TOLD]
    ]


def _unmet(images, mute, strays, astray, texts) -> list[str]:
    """Sentences on the first captions without an image and images without a caption."""
    known, beside = Names(images), Names(texts)
    lines = [
        f"{where} names an image {shortened(name)!r}, which is not there: {known.nearest(name)}"
        for name, where in itertools.islice(astray.items(), TOLD)
    ]
    lines += [
        f"{name} has no image of that name beside it: {known.nearest(name, False)}"
        for name in strays[:TOLD]
    ]
    if texts:
        lines += [
            f"{name} has no text file of that name: {beside.nearest(name, False)}"
            for name in mute[:TOLD]
        ]
    return lines
