"""A folder of drawn pictures: written as they come, continued where it was left, drawn again.

`metadata.jsonl` has a line for each, a row of conditions in words: `sample --conditions` draws it
again, `evaluate --images` reads it, and a later model takes its layouts from it. `drawn.json` says
what all have in common, `timing.json` how long the last drawing took.
"""

import collections
import contextlib
import hashlib
import io
import itertools
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxt2i import places
from jaxt2i.config import ConfigError
from jaxt2i.data import show
from jaxt2i.data.conditions import Row
from jaxt2i.data.rows import FILES
from jaxt2i.data.schema import FIELDS
from jaxt2i.engine.draw import PICTURES
from jaxt2i.engine.method import Tree
from jaxt2i.run import attention, edits, log
from jaxt2i.run.files import Lines, text_lines, write_lines

METADATA, ABOUT, TIMING = "metadata.jsonl", "drawn.json", "timing.json"
GRID_FILE, LAYOUTS, EDITS = "grid.png", "layouts.png", "edits.png"
# What of an output says which objects are where.
OBJECTS = {"boxes", "box_label", "box_mask"}
# Pictures that the grid shows, and pictures that may wait to be written.
GRID, WAITING = 100, 64


def digest(lines: Iterable[str]) -> str:
    """A fingerprint of what is asked for."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def own(path: epath.Path) -> epath.Path:
    """The folder itself; of one of several processes, a part of it that is its own."""
    if jax.process_count() == 1:
        return path
    return path / f"process_{jax.process_index()}_of_{jax.process_count()}"


def about_of(path: epath.Path) -> epath.Path | None:
    """The file that says how a folder's pictures were drawn, by one process or by several."""
    parts = sorted(path.glob(f"process_*_of_*/{ABOUT}")) if path.is_dir() else []
    return next((file for file in (path / ABOUT, *parts) if file.is_file()), None)


def digest_of(file: epath.Path) -> str:
    """A fingerprint of a file's content."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else ""


def caption_of(row: Row) -> str:
    """What to write below a picture: its caption, its seed, and where between two it stands."""
    said, seed, to = row.get("prompt", ""), f"{row.get('seed', 0)}", row.get("towards")
    if to:
        mix, other = to["mix"], to.get("prompt", said)
        if other != said and 0 < mix < 1:
            said = f"{1 - mix:.2f} {said} + {mix:.2f} {other}"
        elif mix:
            said = other
        if to.get("seed", row["seed"]) != row["seed"]:
            seed = f"{seed} to {to['seed']} at {to['mix_z']:.2f}"
    return f"{said} (z {seed})".strip()


def placed(name: Any) -> Any:
    """The name of a local file with its folder; anything else as it is."""
    local = isinstance(name, str) and "://" not in name
    return os.path.abspath(name) if local else name


class Stopwatch:
    """When pictures come: those of the first chunk waited for the compiler, the others did not.

    Args:
      at_once: pictures of a chunk, on all devices.
    """

    def __init__(self, at_once: int):
        self.at_once, self.count = at_once, 0
        self.start = self.first = self.last = time.monotonic()

    def watched(self, drawn: Iterable) -> Iterator:
        """The same, its comings noted."""
        for one in drawn:
            self.count, self.last = self.count + 1, time.monotonic()
            if self.count <= self.at_once:
                self.first = self.last
            yield one

    def told(self) -> dict[str, Any]:
        """The times as JSON data; seconds_a_picture is None where there was one chunk alone."""
        later = self.count - self.at_once
        return {
            "pictures": max(later, 0),
            "seconds_a_picture": (self.last - self.first) / later if later > 0 else None,
            "seconds_until_the_first": self.first - self.start,
            "at_once": self.at_once,
            "device": jax.devices()[0].device_kind,
        }


class Folder:
    """A folder to draw into.

    Args:
      path: where.
      about: what all pictures have in common: a folder whose `drawn.json` says the same is
        continued.
    """

    def __init__(self, path: epath.PathLike, about: dict[str, Any]):
        # As it will be read again.
        self.path = places.of(path, "--out")
        self.about = json.loads(json.dumps(about, default=str))
        self.done: frozenset[int] = frozenset()

    def open(self, *, overwrite: bool = False) -> None:
        """Makes the folder, or finds what it has already.

        Args:
          overwrite: pictures of something else are removed; else they are an error.

        Raises:
          ConfigError: where the folder holds something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"--out {self.path}: a file of that name is there; give a folder")
        places.make_folder(self.path)
        places.check_writable(self.path, "--out")
        lines = list(self._lines())
        if lines and self._before() != self.about:
            if not overwrite:
                raise ConfigError(
                    f"{self.path} holds {len(lines)} pictures that were drawn otherwise "
                    f"({ABOUT} says how); give another folder, or --overwrite (in Python "
                    "overwrite=True) to replace them"
                )
            self._remove(lines)
            log.say(f"{self.path}: {len(lines)} pictures that were drawn otherwise were removed")
            lines = []
        if lines:  # without a last line that was cut short
            whole = [json.dumps(line, ensure_ascii=False) for line in lines]
            write_lines(self.path / METADATA, whole)
        self.done = frozenset(line["number"] for line in lines)
        if self.done:
            log.say(f"{self.path} has {len(self.done)} of these pictures already")
        (self.path / ABOUT).write_text(json.dumps(self.about, indent=1) + "\n")

    def missing(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Rows with their numbers, without those that are there already.

        Of several processes each has its share: those whose number leaves its own as remainder.
        """
        count, index = jax.process_count(), jax.process_index()
        mine = ((i, row) for i, row in enumerate(rows) if i % count == index)
        return (row | {"number": i} for i, row in mine if i not in self.done)

    def write(
        self,
        drawn: Iterable[tuple[Row, dict[str, Tree]]],
        *,
        columns: int = 0,
        single: bool = True,
        names: Sequence[str] = (),
        sweep: str = "",
        at_once: int = 0,
    ) -> int:
        """Writes pictures as PNG, a line of metadata each once its files are there, and the grid.

        Constant memory, whatever is drawn.

        Args:
          drawn: (row with its number, outputs).
          columns: of the grid; 0 chooses.
          single: each picture as a file of its own; else the grid alone.
          names: of the classes of boxes.
          sweep: of edits, the control whose values are the columns.
          at_once: pictures that are drawn together while this writes, for `TIMING`; 0: they were
            drawn before, and nothing is timed.

        Returns:
          How many were written.
        """
        try:
            watch = Stopwatch(at_once)
            count = self._write(watch.watched(drawn), columns, single, names, sweep)
            if count and at_once:
                content = json.dumps(watch.told(), indent=1) + "\n"
                places.write_whole(self.path / TIMING, content.encode())
            return count
        except BaseException:
            if not self.done and not any(self._lines()):
                self._remove([])  # nothing was drawn, so nothing is left behind
                if not places.scheme_of(self.path) and not any(self.path.iterdir()):
                    self.path.rmdir()
            raise

    def _write(
        self, drawn: Iterable, columns: int, single: bool, names: Sequence[str], sweep: str
    ) -> int:
        first: dict[int, tuple[Row, dict]] = {}
        waiting: collections.deque = collections.deque()
        count = 0
        lines = Lines(self.path / METADATA)
        with contextlib.closing(lines), ThreadPoolExecutor(2) as pool:

            def finish():
                jobs, line = waiting.popleft()
                for job in jobs:
                    job.result()
                lines.add(json.dumps(line, ensure_ascii=False))

            try:
                for row, out in drawn:
                    count += 1
                    if row["number"] < GRID:
                        first[row["number"]] = row, out
                    jobs, line = self._jobs(row, out, single)
                    waiting.append(([pool.submit(*job) for job in jobs], line))
                    # Where the files are there, so is the line: a program that is killed has kept
                    # what it drew.
                    while waiting and (len(waiting) > WAITING or _done(waiting[0][0])):
                        finish()
            finally:
                while waiting:
                    finish()
        self._sheets(first, columns, names, sweep)
        return count

    def attention(self, tokenizer: Any) -> None:
        """A sheet for each picture of where its words are looked for."""
        from PIL import Image

        for line in self._lines():
            name = f"{line['number']:06d}"
            maps, picture = self.path / f"{name}_attention.npz", self.path / f"{name}.png"
            if maps.is_file() and picture.is_file():
                with np.load(io.BytesIO(maps.read_bytes())) as arrays:
                    stages = [arrays[key] for key in arrays.files]
                image = np.asarray(Image.open(io.BytesIO(picture.read_bytes())))
                sheet = self.path / f"{name}_attention.png"
                attention.sheet(sheet, tokenizer, line.get("prompt", ""), image, stages)

    @property
    def count(self) -> str:
        """How many pictures, or other things, it holds, in words."""
        lines = list(self._lines())
        pictures = any((self.path / name).is_file() for name in (GRID_FILE, EDITS))
        kind = "pictures" if pictures else "rows"
        return f"{len(lines)} {kind}"

    @property
    def contents(self) -> str:
        """What lies in it beside single pictures."""
        names = (GRID_FILE, EDITS, LAYOUTS, METADATA, ABOUT)
        return ", ".join(name for name in names if (self.path / name).is_file())

    def _jobs(self, row: Row, out: dict[str, Tree], single: bool) -> tuple[list, dict]:
        """(what is to be written, the line about it)."""
        name, jobs, line = f"{row['number']:06d}", [], {}

        def keep(file: str, pixels: np.ndarray) -> str:
            jobs.append((_save_png, self.path / file, pixels))
            return file

        if "image" in out and single:
            line["file_name"] = keep(f"{name}.png", out["image"])
        line |= {"text": row["prompt"]} if "prompt" in row else {}
        # The line is read from here: files that it names lie where they lay.
        line |= {k: placed(v) if k in FILES else v for k, v in row.items()}
        for key, value in line.items():
            if isinstance(value, np.ndarray):
                if value.dtype == np.uint8:
                    line[key] = keep(f"{name}_given_{key}.png", value)
                else:
                    jobs.append((_save_npy, self.path / f"{name}_{key}.npy", value))
                    line[key] = f"{name}_{key}.npy"
        objects = []
        for i, thing in enumerate(line.get("objects", ())):
            mask = thing.get("mask")
            given = isinstance(mask, np.ndarray)
            objects.append(thing | ({"mask": keep(f"{name}_object{i}.png", mask)} if given else {}))
        line |= {"objects": objects} if objects else {}
        for stage in out.get("stages", ()) if single else ():
            keep(f"{name}_stage{len(stage)}.png", stage)
        for view in [v for v in edits.VIEWS if v in out and single]:
            keep(f"{name}_{view}.png", out[view])
        if single and "source" in out and "edit_region" in out:
            keep(f"{name}_region.png", out["edit_region"])
        for key in [k for k in out if k not in PICTURES and k not in FIELDS]:
            leaves = {str(i): x for i, x in enumerate(jax.tree.leaves(out[key]))}
            jobs.append((_save_npz, self.path / f"{name}_{key}.npz", leaves))
        return jobs, line

    def _pixels(self, line: Row) -> dict[str, np.ndarray]:
        """The picture of a line, and its views of an edit, read from their files."""
        from PIL import Image

        names = {"image": line["file_name"]}
        names |= {view: f"{line['number']:06d}_{view}.png" for view in edits.VIEWS}
        files = {k: self.path / name for k, name in names.items() if (self.path / name).is_file()}
        return {k: np.asarray(Image.open(io.BytesIO(f.read_bytes()))) for k, f in files.items()}

    def _sheets(self, first: dict, columns: int, names: Sequence, sweep: str) -> None:
        """The grid of the first pictures, of every stage, edits, and the layouts over them."""
        shown: dict[int, tuple[Row, dict]] = {}
        for line in itertools.islice(self._lines(), 10 * GRID):
            if line["number"] in first:
                shown[line["number"]] = first[line["number"]]
            elif line["number"] < GRID and (self.path / line.get("file_name", "-")).is_file():
                shown[line["number"]] = line, self._pixels(line)
        pairs = [shown[number] for number in sorted(shown)]
        pictures = [(row, out["image"]) for row, out in pairs if "image" in out]
        # Pictures of several sizes make no grid.
        if pictures and len({x.shape for _, x in pictures}) == 1:
            captions = [caption_of(row) for row, _ in pictures]
            images = np.stack([x for _, x in pictures])
            log.save_grid(self.path / GRID_FILE, images, captions, columns)
        edited = [(row, out) for row, out in pairs if {"source", "seen"} <= set(out)]
        whole = len(edited) - len(edited) % columns if sweep else len(edited)
        if whole:
            content = io.BytesIO()
            edits.sheet(edited[:whole], sweep, columns).save(content, "PNG")
            places.write_whole(self.path / EDITS, content.getvalue())
        stages = [(row, out["stages"]) for row, out in pairs if "stages" in out]
        for stage in zip(*(s for _, s in stages), strict=True):
            captions = [caption_of(row) for row, _ in stages]
            file = self.path / f"stage{len(stage[0])}.png"
            log.save_grid(file, np.stack(stage), captions, columns)
        tiles = [layout_tile(row, out, names) for row, out in pairs if row.get("objects")]
        if tiles:
            show.draw(tiles, self.path / LAYOUTS, beside=bool(pictures))

    def _lines(self) -> Iterator[Row]:
        """What metadata.jsonl says of pictures that are whole; a last line cut short is not."""
        for text in text_lines(self.path / METADATA):
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and "number" in line:
                yield line

    def _before(self) -> Any:
        try:
            return json.loads((self.path / ABOUT).read_text())
        except (OSError, ValueError):
            return None

    def _remove(self, lines: Sequence[Row]) -> None:
        """Removes what an earlier drawing wrote, and nothing else."""
        numbers = {f"{line['number']:06d}" for line in lines}
        for file in places.matching(self.path, "*[._]*"):
            if re.split(r"[._]", file.name, maxsplit=1)[0] in numbers:
                file.unlink()
        if places.scheme_of(self.path):
            write_lines(self.path / METADATA, ())  # its parts, too
        for name in (METADATA, ABOUT, TIMING, GRID_FILE, EDITS, LAYOUTS):
            (self.path / name).unlink(missing_ok=True)
        for file in places.matching(self.path, "stage*.png"):
            file.unlink()


def layout_tile(row: Row, out: dict[str, Tree], names: Sequence[str]) -> show.Tile:
    """The objects of a row over its picture, or on a blank canvas.

    Boxes are those that the system was told of, where they are at hand: a row may count in pixels
    of a picture of another shape.
    """
    picture = {"image": out["image"]} if "image" in out else {}
    layout = {k: out[k] for k in (*OBJECTS, "shape_masks") if k in out}
    if layout.keys() >= OBJECTS:
        example = {**picture, **layout}
        if "masks" in out:
            # Each in its own range: a faint one shows its shape, too.
            top = out["masks"].max((1, 2), keepdims=True)
            example["shape_masks"] = 255 * out["masks"] / np.maximum(top, 1e-6)
        return show.Tile(example, row.get("prompt", ""), names=tuple(names))
    objects = row["objects"]
    labels = [thing["label"] for thing in objects]
    known = list(dict.fromkeys([*names, *(x for x in labels if isinstance(x, str))]))
    example = {
        **picture,
        "boxes": np.array([thing["box"] for thing in objects], np.float32) / _frame(row),
        "box_label": np.array([known.index(x) if isinstance(x, str) else x for x in labels]),
        "box_mask": np.ones(len(objects), bool),
    }
    return show.Tile(example, row.get("prompt", ""), names=tuple(known))


def _frame(row: Row) -> np.ndarray:
    """What the boxes of a row are to be divided by to be fractions."""
    size = row["size"] if row.get("units") == "pixels" and "size" in row else (1, 1)
    return np.array([*size, *size], np.float32)


def _done(jobs: Sequence[Future]) -> bool:
    return all(job.done() for job in jobs)


def _save_png(path: epath.Path, pixels: np.ndarray) -> None:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "png")
    path.write_bytes(out.getvalue())


def _save_npy(path: epath.Path, array: np.ndarray) -> None:
    out = io.BytesIO()
    np.save(out, array)
    path.write_bytes(out.getvalue())


def _save_npz(path: epath.Path, arrays: dict[str, np.ndarray]) -> None:
    out = io.BytesIO()
    np.savez(out, **arrays)
    path.write_bytes(out.getvalue())
