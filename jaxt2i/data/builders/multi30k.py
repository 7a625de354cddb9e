"""Multi30K (Elliott et al., 2016-2018): pictures described in four languages."""

import dataclasses
import gzip
import os
import re
import zlib
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from jaxt2i.data.builders.base import Builder, Files, Item, Need
from jaxt2i.data.builders.record import Caption, Record
from jaxt2i.data.schema import DataError

REPOSITORY = "https://github.com/multi30k/dataset"
CLONES = ("dataset-master", "dataset", "multi30k-dataset")
FLICKR = Need(
    "flickr30k-images",
    "https://shannon.cs.illinois.edu/DenotationGraph/ (on request)",
    instead=("flickr30k_images",),
    archives=("flickr30k-images.tar.gz", "flickr30k-images.tar"),
)
# Pictures of the later test sets; of these only COCO's are published elsewhere.
LATER = {
    f"test_{year}": Need(
        f"test_{year}-flickr-images",
        f"https://www.statmt.org/wmt{year - 2000}/multimodal-task.html",
        archives=(f"test_{year}-flickr-images.tar.gz", f"test_{year}-flickr-images.gz"),
        inside=f"test_{year}-flickr-images",
        optional=True,
    )
    for year in (2017, 2018)
}
COCO = tuple(
    Need(part, "https://cocodataset.org (2014)", optional=True) for part in ("train2014", "val2014")
)
# What a list of pictures holds, and an example.
FLICKRS = (r"[\w-]+\.jpg", "1000092795.jpg")
COCOS = (r"COCO_(train|val)2014_\d+\.jpg#\d+", "COCO_train2014_000000117071.jpg#367178")
NO_PICTURES = "split whose pictures are not there"


@dataclasses.dataclass(eq=False, kw_only=True)
class Task(tfds.core.BuilderConfig):
    """One of the two sets of captions.

    Attributes:
      stems: what the files of each split start with.
      languages: BCP-47 tags, by which files are called as well.
      count: how many captions in a language a picture has; each is in a file of its own.
      captions: what a file of captions is called, but for how it is packed.
      pictures: what a list of pictures is called.
    """

    stems: dict[str, str]
    languages: tuple[str, ...]
    count: int
    captions: str
    pictures: str

    def files(self, base: Path, stem: str, language: str) -> list[Path]:
        """The files of captions in a language, packed or not; where they are expected if not."""
        found = []
        for number in range(1, self.count + 1):
            name = self.captions.format(stem=stem, number=number, language=language)
            forms = [base / "raw" / (name + end) for end in (".gz", ".txt", "")]
            found.append(next((form for form in forms if form.is_file()), forms[0]))
        return found


TASKS = [
    Task(
        name="task1",
        description="One caption a picture, and translations of it.",
        stems={
            "train": "train",
            "val": "val",
            "test": "test_2016_flickr",
            "test_2017": "test_2017_flickr",
            "test_2018": "test_2018_flickr",
            "test_mscoco": "test_2017_mscoco",
        },
        languages=("en", "de", "fr", "cs"),
        count=1,
        captions="{stem}.{language}",
        pictures="{stem}.txt",
    ),
    Task(
        name="task2",
        description="Five captions a picture and language, none a translation of another.",
        stems={"train": "train", "val": "val", "test": "test_2016"},
        languages=("en", "de"),
        count=5,
        captions="{stem}.{number}.{language}",
        pictures="{stem}_images.txt",
    ),
]


class Jaxt2iMulti30k(Builder):
    """Flickr30k with captions in several languages.

    "task1" has one caption a picture in each of up to four languages, which are translations of
    the English one; an id is COCO's own of the English caption, where it has one. "task2" has five
    captions in English and five in German, which know nothing of one another; ids are 1 to 5.
    "test" is the test set of 2016. The later ones, each with its own pictures, are stored when both
    their captions and their pictures are there.
    """

    BUILDER_CONFIGS: ClassVar = TASKS
    TITLE = "Multi30K"
    TERMS = (
        "The pictures of Flickr30k are for non-commercial research and education only; the "
        "captions come without a licence."
    )
    EXPECTED: ClassVar = {
        "train": 29000,
        "val": 1014,
        "test": 1000,
        "test_2017": 1000,
        "test_2018": 1071,
        "test_mscoco": 461,
    }

    def needs(self) -> tuple[Need, ...]:
        later = (*LATER.values(), *COCO) if self.builder_config.name == "task1" else ()
        return self._captions, FLICKR, *later

    @property
    def _captions(self) -> Need:
        path = f"data/{self.builder_config.name}"
        clones = tuple(f"{clone}/{path}" for clone in CLONES)
        return Need(path, REPOSITORY, instead=clones, archives=("dataset-master.zip",))

    def items(self, files: Files) -> dict[str, list[Item]]:
        base, task = files.first(self._captions), self.builder_config
        splits = {}
        for split, stem in task.stems.items():
            texts = _texts(base, stem, task)
            if not texts:
                continue
            listed = base / "image_splits" / task.pictures.format(stem=stem)
            pictures = _pictures(listed)
            captions = _captions(texts, listed, len(pictures))
            folders = _folders(files, split, [picture.partition("#")[0] for picture in pictures])
            if folders:
                splits[split] = list(map(_item, pictures, folders, captions))
            else:
                self.skips.add(split, NO_PICTURES)
        if not splits:
            raise DataError(
                f"{base / 'raw'} has captions of no split: {task.files(base, 'train', 'en')[0]} "
                f"and the like are missing; from {REPOSITORY}"
            )
        return splits

    def record(self, files: Files, item: Item) -> Record:
        return Record(
            key=item.key,
            image=files / item.image,
            filename=Path(item.image).name,
            captions=[Caption(*caption) for caption in item.content],
        )


def _item(picture: str, folder: str, captions: list[tuple[str, int, str]]) -> Item:
    """The item of a listed picture: "name.jpg", or "name.jpg#id" with COCO's id of the caption."""
    name, _, number = picture.partition("#")
    if number:
        captions = [(text, int(number), language) for text, _, language in captions]
    return Item(picture.replace(".jpg", ""), f"{folder}/{name}", captions)


def _texts(base: Path, stem: str, task: Task) -> dict[str, list[Path]]:
    """The files of captions of a split by language; none where the split is not there."""
    found = {}
    for language in task.languages:
        files = task.files(base, stem, language)
        absent = [file for file in files if not file.is_file()]
        if absent and len(absent) < len(files):
            raise DataError(
                f"{absent[0]} is missing, one of {len(files)} files in this language; from "
                f"{REPOSITORY}"
            )
        if not absent:
            found[language] = files
    if found and "en" not in found:
        raise DataError(
            f"{task.files(base, stem, 'en')[0]} is missing: there is {', '.join(found)} without "
            f"English; from {REPOSITORY}"
        )
    return found


def _pictures(listed: Path) -> list[str]:
    """The pictures of a split, in the order of its captions."""
    if not listed.is_file():
        raise DataError(f"{listed} is missing: it says whose the captions are; from {REPOSITORY}")
    pictures = [line.strip() for line in _lines(listed)]
    form, example = COCOS if "mscoco" in listed.name else FLICKRS
    if bad := [picture for picture in pictures if not re.fullmatch(form, picture)]:
        raise DataError(f"{listed}: expected lines such as {example}, found {bad[0]!r}")
    return pictures


def _captions(texts: dict[str, list[Path]], listed: Path, count: int) -> list[list]:
    """[(text, id, language) of each caption] of each picture."""
    captions: list[list[tuple[str, int, str]]] = [[] for _ in range(count)]
    for language, files in texts.items():
        for number, file in enumerate(files, 1):
            lines = _lines(file)
            if len(lines) != count:
                raise DataError(
                    f"{file} has {len(lines)} lines and {listed} {count}: each line of one belongs "
                    f"to a line of the other; get both again from {REPOSITORY}"
                )
            for some, line in zip(captions, lines, strict=True):
                some.append((line, number if len(files) > 1 else -1, language))
    return captions


def _lines(file: Path) -> list[str]:
    """Lines of a text file, packed or not; other marks that Unicode calls line ends are text."""
    try:
        content = file.read_bytes()
        text = (gzip.decompress(content) if file.suffix == ".gz" else content).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read ({error}); get it again") from error
    return text.removesuffix("\n").split("\n")


def _folders(files: Files, split: str, names: list[str]) -> list[str]:
    """The folder of each picture, below --from; none where a later test set has no pictures."""
    if split == "test_mscoco":
        there = files.has(*(need.path for need in COCO))
        return [name.split("_")[1] for name in names] if there else []
    tops = [FLICKR.path, *FLICKR.instead]
    if split in LATER:
        tops.insert(0, LATER[split].path)
    best, most = "", 0
    # Archives differ in whether their pictures lie in a folder of their own.
    for top in (top for top in tops if files.has(top)):
        inner = sorted(entry.name for entry in os.scandir(files / top) if entry.is_dir())
        for place in (top, *(f"{top}/{name}" for name in inner)):
            count = len(set(names).intersection(os.listdir(files / place)))
            if count > most:
                best, most = place, count
    if not best and split not in LATER:
        best = FLICKR.path  # where the missing ones are expected
    return [best] * len(names) if best else []
