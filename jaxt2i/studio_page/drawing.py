"""Draws for the page: picture after picture, each a file, for several people at a time.

Everybody's rows take turns at the devices, picture by picture; what is drawn for one is given to
that one alone.
"""

import collections
import dataclasses
import json
import secrets
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxt2i import api
from jaxt2i.config import ConfigError
from jaxt2i.data import show
from jaxt2i.data.rows import FILES, Row
from jaxt2i.data.schema import VIEWS, DataError
from jaxt2i.run import attention, folder
from jaxt2i.run.open import LAYOUT
from jaxt2i.studio_page import reading

# What systems are called that stand side by side.
LETTERS = "ab"
# A walk that moves: milliseconds of a frame, pixels of its side at least about so many.
FRAME, SHOWN = 200, 256


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """One that was drawn.

    Attributes:
      side: number of the system that drew it.
      file: the PNG, which carries its row; of a system that draws layouts alone, its layout.
      row: what draws it again.
      told: the layout that the system was given, arrays of the schema.
      stages: files of the earlier stages' pictures.
      attention: file with the attention of each stage; None: not asked for.
    """

    side: int
    file: Path
    row: Row
    told: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    stages: tuple[Path, ...] = ()
    attention: Path | None = None

    @property
    def caption(self) -> str:
        """What stands below it, in few letters: its caption and seed, or its place in a walk."""
        if to := self.row.get("towards"):
            return f"{max(to['mix'], to['mix_z']):.0%}"
        return folder.caption_of(self.row)


class Systems:
    """The systems of a page, and the folder of its files.

    Args:
      systems: one, or several to stand side by side.
      folder: for everything that is written.
    """

    def __init__(self, systems: Sequence[api.System], folder: Path):
        self.systems, self.folder = tuple(systems), folder
        self.about = [system.describe() for system in systems]
        # Programs are compiled and walks remembered by one at a time.
        self._lock = threading.Lock()

    # --- what there is ----------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """What to call each system: its run and step."""
        found = []
        for about in self.about:
            step = "" if about["step"] is None else f", step {about['step']}"
            found.append(f"{Path(about['source']).name}{step}")
        if len(set(found)) < len(found):
            return [f"{LETTERS[i]}: {name}" for i, name in enumerate(found)]
        return found

    def controls(self) -> list[tuple[dict[str, Any], tuple[int, ...]]]:
        """(control as described, the systems that it belongs to): one that two systems share
        stands once.
        """
        out: list[tuple[dict[str, Any], tuple[int, ...]]] = []
        for side, about in enumerate(self.about):
            for control in about["controls"]:
                same = next((i for i, (known, _) in enumerate(out) if known == control), None)
                if same is None:
                    out.append((control, (side,)))
                else:
                    out[same] = control, (*out[same][1], side)
        return out

    @property
    def conditions(self) -> list[str]:
        """The words that any of the systems reads, or may be given in place of an earlier one."""
        named = [[*a["conditions"], *a["filled"]] for a in self.about]
        return list(dict.fromkeys(word for words in named for word in words))

    @property
    def classes(self) -> dict[str, list[str]]:
        """{key of the schema: names of classes}, of all systems."""
        keys = dict.fromkeys(key for about in self.about for key in about["classes"])
        return {
            key: list(dict.fromkeys(n for a in self.about for n in a["classes"].get(key, ())))
            for key in keys
        }

    @property
    def views(self) -> list[str]:
        """What can be shown beside pictures: "stages", "attention"."""
        return [name for name in VIEWS if any(name in about["gives"] for about in self.about)]

    def unread(self, rows: Sequence[Row]) -> list[str]:
        """Sentences on what of a person's rows is not read: the first of a kind of each system."""
        out = []
        for name, system in zip(self.names, self.systems, strict=True):
            found: dict[str, list[str]] = {}
            list(
                system.told(rows, lambda kind, said, to=found: to.setdefault(kind, []).append(said))
            )
            whose = f"{name}: " if len(self.systems) > 1 else ""
            for first, *others in found.values():
                out.append(f"{whose}{first}" + (f" ({len(others)} more)" if others else ""))
        return out

    # --- drawing ----------------------------------------------------------------------------------

    def place(self) -> Path:
        """A new folder, whose name nobody guesses."""
        path = self.folder / secrets.token_hex(16)
        path.mkdir(parents=True)
        return path

    def draw(
        self,
        rows: Sequence[Row],
        also: Sequence[str],
        controls: Sequence[Mapping[str, Any]],
        stop: threading.Event | None = None,
    ) -> Iterator["Progress"]:
        """All rows by every system, as far as they have come after each picture.

        Args:
          rows: with their seeds.
          also: `VIEWS` that are to be kept; a system that has none of them is not asked.
          controls: of each system.
          stop: ends it after the picture that is being drawn, once it is set.

        Raises:
          ConfigError, DataError: as `System.stream`.
        """
        place, noted = self.place(), collections.Counter()
        begun, total, done = time.monotonic(), len(rows) * len(self.systems), []
        for number, (system, chosen) in enumerate(zip(self.systems, controls, strict=True)):
            side = _Side(number, system, place / f"{number}")
            wanted = [name for name in also if name in system.gives]
            stream = system.stream(api.numbered(rows), also=wanted, **chosen)
            while not (stop and stop.is_set()) and (pair := self._next(number, stream, noted)):
                done.append(side.keep(*pair))
                yield Progress(tuple(done), total, time.monotonic() - begun)
            if not side.found:
                break
            several = len(self.systems) > 1
            inside = place / "pictures" / (f"run_{LETTERS[number]}" if several else "")
            system.drawn(side.found, controls=chosen).save(inside)
            _gather_files(inside)
        archive = Path(shutil.make_archive(str(place / "pictures"), "zip", place / "pictures"))
        shutil.rmtree(place / "pictures")
        done.sort(key=lambda picture: (picture.side, picture.row["number"]))
        yield Progress(tuple(done), total, time.monotonic() - begun, archive, dict(noted))

    def _next(self, number: int, stream: Iterator, noted: collections.Counter) -> Any:
        """The next of a stream; None at its end. What is noted on the way is counted."""
        known = self.systems[number].words.noted
        with self._lock:
            before = collections.Counter(known)
            try:
                return next(stream, None)
            except (ConfigError, DataError) as error:
                if len(self.systems) == 1:
                    raise
                raise type(error)(f"{self.names[number]}: {error}") from None
            finally:
                noted.update(known - before)

    def fill(self, row: Row, controls: Mapping[str, Any]) -> Row:
        """A row with what the first system's earlier ones draw for it."""
        with self._lock:
            return self.systems[0].fill([row], **controls)[0]

    def example(self, number: int) -> Row:
        """A held-out example of the first system's data."""
        run = self.systems[0].run
        with self._lock:
            return next(iter(api.from_split(run, f"val:{number}:{number + 1}")))

    # --- looking closer ---------------------------------------------------------------------------

    def closer(self, picture: Picture) -> list[tuple[np.ndarray | Path, str]]:
        """(picture, what it is) of stages, layout and attention of one that was drawn."""
        system, out = self.systems[picture.side], []
        out += [(file, f"stage {n}") for n, file in enumerate(picture.stages, 1)]
        if picture.row.get("objects") and "image" in system.gives:
            out.append((self._layout(picture), "its layout"))
        if picture.attention is not None:
            out += self._attention(picture)
        return out

    def _layout(self, picture: Picture) -> Path:
        file = picture.file.with_name(f"{picture.file.stem}_layout.png")
        if not file.exists():
            system = self.systems[picture.side]
            outputs = {"image": _pixels(picture.file), **picture.told}
            names = system.run.facts.names.get("box_label", ())
            show.draw([folder.layout_tile(picture.row, outputs, names)], file)
        return file

    def _attention(self, picture: Picture) -> Iterator[tuple[np.ndarray, str]]:
        system, image = self.systems[picture.side], _pixels(picture.file)
        words = attention.words_of(system.run.tokenizer, picture.row.get("prompt", ""))
        with np.load(picture.attention) as stages:
            for number, name in enumerate(stages.files, 1):
                maps = attention.highlights(image, stages[name][: len(words)])
                for word, seen in zip(words, maps, strict=True):
                    yield seen, f"{word} (stage {number})" if len(stages.files) > 1 else word


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a drawing has come.

    Attributes:
      pictures: so far.
      total: how many are asked for.
      seconds: since it began.
      archive: a zip of all of them with their settings, once they are there.
      noted: {what was done that no row asked for: how often}, once they are there.
    """

    pictures: tuple[Picture, ...]
    total: int
    seconds: float
    archive: Path | None = None
    noted: Mapping[str, int] = dataclasses.field(default_factory=dict)


class _Side:
    """What one system draws at one press."""

    def __init__(self, number: int, system: api.System, place: Path):
        self.number, self.system, self.place = number, system, place
        self.found: list[tuple[Row, dict]] = []
        place.mkdir()

    def keep(self, row: Row, out: dict[str, Any]) -> Picture:
        """Writes one, and remembers it."""
        self.found.append((row, out))
        name = self.place / f"{row['number']:06d}"
        told = {key: out[key] for key in LAYOUT if key in out}
        file = name.with_suffix(".png")
        if "image" in out:
            file.write_bytes(reading.png(out["image"], reading.plain(row)))
        elif row.get("objects"):
            names = self.system.run.facts.names.get("box_label", ())
            show.draw([folder.layout_tile(row, told, names)], file)
        else:
            raise ConfigError(
                f"{self.system.run.config.method} drew nothing that a page can show for "
                f"{row.get('prompt', 'this row')!r}; draw it with python -m jaxt2i.sample"
            )
        stages = []
        for number, pixels in enumerate(out.get("stages", ())):
            stages.append(self.place / f"{name.name}_stage{number}.png")
            stages[-1].write_bytes(reading.png(pixels))
        maps = None
        if "attention" in out:
            maps = self.place / f"{name.name}_attention.npz"
            np.savez(maps, *out["attention"])
        return Picture(self.number, file, row, told, tuple(stages), maps)


def _pixels(file: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


def _gather_files(place: Path) -> None:
    """Copies the files that rows name beside the pictures, so that the folder stands alone."""
    lines = []
    for text in (place / folder.METADATA).read_text().splitlines():
        line = json.loads(text)
        for word in FILES:
            if isinstance(name := line.get(word), str) and Path(name).is_file():
                line[word] = _beside(place, Path(name), f"given_{word}")
        for thing in line.get("objects", ()):
            if isinstance(name := thing.get("mask"), str) and Path(name).is_file():
                thing["mask"] = _beside(place, Path(name), "given")
        lines.append(json.dumps(line, ensure_ascii=False))
    (place / folder.METADATA).write_text("\n".join([*lines, ""]))


def _beside(place: Path, file: Path, name: str) -> str:
    if file.parent == place:
        return file.name
    copy = place / f"{name}_{file.name}"
    shutil.copyfile(file, copy)
    return copy.name


def animated(pictures: Sequence[Picture]) -> Path | None:
    """A walk as a picture that moves, there and back: a file; None for fewer than two."""
    from PIL import Image

    if len(pictures) < 2:
        return None
    frames = [Image.fromarray(_pixels(picture.file)) for picture in pictures]
    small = max(1, SHOWN // max(frames[0].size))
    frames = [x.resize([n * small for n in x.size], Image.Resampling.NEAREST) for x in frames]
    file = pictures[0].file.with_name("walk.png")
    there_and_back = [*frames, *frames[-2:0:-1]]
    there_and_back[0].save(
        file, "png", save_all=True, append_images=there_and_back[1:], duration=FRAME, loop=0
    )
    return file


def remove(dropped: Iterable[Picture], kept: Iterable[Picture]) -> None:
    """Removes the files of pictures that nobody can reach any more; a press's stay together."""
    places = [{picture.file.parents[1] for picture in some} for some in (dropped, kept)]
    for place in places[0] - places[1]:
        shutil.rmtree(place, ignore_errors=True)
