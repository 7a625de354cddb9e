"""A condition row in a person's words, and as the arrays of the schema: one translation, both ways.

    {"prompt": "a cat on a mat", "negative": "blurred", "label": "rose", "seed": 3,
     "objects": [{"label": "cat", "box": [0.2, 0.3, 0.4, 0.4], "mask": "cat.png"}],
     "image": "photo.png", "edit_region": "region.png", "controls": {"guidance": 5.0}}

One line of such JSON is what a person writes, what a layout model gives, an example of a split, and
a line of the metadata.jsonl beside drawn pictures; so models chain, and drawn pictures can be drawn
again.

Boxes are [x, y, width, height], top-left first, in fractions of the picture: of "size" where the
row says one, else of the row's image, else of what is drawn. "units": "pixels" counts its pixels
instead. A picture of another shape than what is drawn is cropped as held-out pictures are, and its
boxes and masks with it. Masks are grey, 255 inside; transparent parts of files count as white.
"""

import collections
import dataclasses
import functools
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxt2i import places
from jaxt2i.config import ConfigError
from jaxt2i.data import images, rows
from jaxt2i.data.pictures import BACKGROUND, Framing, View
from jaxt2i.data.rows import Row, fault, laid_over, misfit, nearest, read_file
from jaxt2i.data.schema import FIELDS, Sizes

__all__ = ("OPTIONAL", "READ", "Conditions", "Row", "laid_over", "read_file")

NAMED = tuple(key for key, field in FIELDS.items() if field.first_class is not None)
LAYOUT = ("boxes", "box_label", "box_mask")
OBJECT_WORDS = ("label", "box", "mask", "note")
# How far a box may reach out of the picture, or how small it may be, as a share of the picture:
# what float32 makes of a box that touches the border.
ROUNDING = 1e-6
# The region of an edit that may act everywhere.
EVERYWHERE = ((0, 0, 1, 1),)


@dataclasses.dataclass(frozen=True)
class Conditions:
    """Translates rows for one run.

    Attributes:
      tokenizer: captions to token ids; None where none are read.
      sizes: what shapes are made of.
      class_names: what each key counts, {"label": (...), "box_label": (...)}, see
        `schema.names_of`; a sequence of names holds for all keys.
      root: where the files of a row lie that has not been read from a file.
      crop: config.data.crop: what is shown of a picture of another shape.
      resize: config.data.resize.
      background: config.data.background.
      object_order: config.data.object_order: "area" puts the largest first, as the sources do;
        "annotation" keeps the order of the row.
      noted: how often each kind of thing was done that the row did not ask for.
    """

    tokenizer: Callable | None
    sizes: Sizes
    class_names: Mapping[str, Sequence[str]] | Sequence[str] = ()
    root: Path = Path()
    crop: str = "centre"
    resize: str = "lanczos"
    background: str = BACKGROUND
    object_order: str = "area"
    noted: collections.Counter = dataclasses.field(
        default_factory=collections.Counter, compare=False
    )

    def __post_init__(self):
        names = self.class_names
        if not isinstance(names, Mapping):
            names = dict.fromkeys(NAMED, names)
        object.__setattr__(self, "class_names", {k: tuple(v) for k, v in names.items()})

    @functools.cached_property
    def framing(self) -> Framing:
        """How pictures come to the size of what is drawn: as held-out ones do."""
        size = self.sizes.height, self.sizes.width
        return Framing(size, self.crop, self.resize, background=self.background)

    def arrays(self, row: Mapping[str, Any], needs: Sequence[str]) -> dict[str, np.ndarray]:
        """The `needs` of a row, without a batch axis.

        Args:
          row: words, see the module.
          needs: keys of the schema.

        Raises:
          DataError: names the word that is missing, unknown or wrong, and where it was read.
        """
        rows.check(row)
        reading, out = _Reading(self, row, tuple(needs)), {}
        for key in needs:
            if key in out:
                continue
            if key not in READ:
                raise fault(row, "", f"no word of a row gives {key!r}; {nearest(key, list(READ))}")
            word, read = READ[key]
            if word not in row and key not in OPTIONAL:
                raise fault(
                    row,
                    "",
                    f"{word!r} is missing, from which this run draws ({FIELDS[key].meaning}); rows "
                    "that hold it come from --conditions, --from-split or --after (README, "
                    "Drawing)",
                )
            out |= read(reading, row.get(word, OPTIONAL.get(key)))
        return {key: out[key] for key in needs}

    def sized(self, height: int, width: int) -> "Conditions":
        """The same for pictures of another size."""
        sizes = dataclasses.replace(self.sizes, height=height, width=width)
        return dataclasses.replace(self, sizes=sizes)

    def picture_size(self, row: Mapping[str, Any]) -> tuple[int, int]:
        """Width and height of a row's image; raises as `arrays` does."""
        return _Reading(self, row, ()).picture[1]

    def row(self, arrays: Mapping[str, Any], prompt: str | None = None) -> Row:
        """The words of one example of a source, or of what a model drew.

        Pictures and masks stay arrays, for the caller to write. Boxes are fractions of what the
        arrays show, which "size" says. A model's box that is none is left out, and noted.

        Args:
          arrays: rows of the schema, without a batch axis; other keys are not looked at.
          prompt: its caption.
        """
        row = Row() if prompt is None else Row({"prompt": prompt})
        arrays = {key: np.asarray(arrays[key]) for key in _KNOWN if key in arrays}
        if "boxes" in arrays:
            row["objects"] = self._objects(arrays)
        if "label" in arrays:
            row["label"] = self._name("label", arrays["label"])
        if "text_vector" in arrays:
            row["text_vector"] = _shortest(arrays["text_vector"])
        row |= {key: arrays[key] for key in _PICTURES if key in arrays}
        if "objects" in row or "edit_region" in row:
            row |= {"units": "fractions", "size": [self.sizes.width, self.sizes.height]}
        return row

    def _objects(self, arrays: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
        out = []
        there = arrays.get("box_mask", np.ones(len(arrays["boxes"]), bool))
        for i in np.flatnonzero(there):
            box = arrays["boxes"][i]
            if not np.isfinite(box).all() or _clipped(np.asarray(box, np.float64)) is None:
                self.note(
                    "boxes that are none",
                    f"the box {box.tolist()} has no area in the picture: the object is left out",
                )
                continue
            thing: dict[str, Any] = {"box": _shortest(box)}
            if "box_label" in arrays:
                thing = {"label": self._name("box_label", arrays["box_label"][i]), **thing}
            if "shape_masks" in arrays:
                thing["mask"] = arrays["shape_masks"][i]
            out.append(thing)
        return out

    def _name(self, key: str, number: Any) -> str | int:
        """The name behind a number, or the number where no name says the same."""
        number, names = int(number), self.class_names.get(key, ())
        place = number - FIELDS[key].first_class
        if 0 <= place < len(names) and names.count(names[place]) == 1:
            return names[place]
        return number

    def with_own_masks(self, drawn: np.ndarray, row: Mapping[str, Any]) -> np.ndarray:
        """Masks that were drawn for a row's objects, those that the row itself has in their place.

        Args:
          drawn: [N, m, m], as `arrays` orders objects.
          row: of which they were drawn.

        Raises:
          DataError: for a mask that cannot be read.
        """
        things = row.get("objects", ())
        if not any("mask" in thing for thing in things):
            return drawn
        reading, out = _Reading(self, row, LAYOUT), np.array(drawn)
        for slot, (i, _) in enumerate(reading.shown(things)):
            if "mask" in things[i]:
                out[slot] = reading.mask(things[i], f"objects[{i}]", out.shape[-1])
        return out

    def understood(self, row: Row, by: str) -> Row:
        """A row that a model drew, without objects of classes that there are not here.

        Args:
          row: the row.
          by: who drew it, for the note.
        """
        names, things = self.class_names.get("box_label", ()), row.get("objects", ())
        if not names:
            return row
        if numbers := [t for t in things if "label" in t and not isinstance(t["label"], str)]:
            self.note(
                "classes without names",
                f"{by} drew an object of class {numbers[0]['label']}, a number without a name: it "
                f"is taken for {names[numbers[0]['label'] % len(names)]!r}, this model's own",
            )
        known = [t for t in things if not isinstance(t.get("label"), str) or t["label"] in names]
        for thing in things:
            if isinstance(label := thing.get("label"), str) and label not in names:
                self.note(
                    "objects of unknown classes",
                    f"{by} drew {label!r}, which is no class of the model behind it "
                    f"({nearest(label, names)}): the object is left out",
                )
        return row if len(known) == len(things) else row | {"objects": known}

    def note(self, kind: str, sentence: str) -> None:
        """Counts what was done that a row did not ask for; says the first of its kind."""
        self.noted[kind] += 1
        if self.noted[kind] == 1:
            said = f"conditions: {sentence}; further ones are counted, not said"
            print(said, file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True)
class _Reading:
    """One row while it is read."""

    by: Conditions
    row: Mapping[str, Any]
    needs: tuple[str, ...]

    # --- texts and numbers ----------------------------------------------------------------------

    def text(self, text: str, prefix: str = "") -> dict[str, np.ndarray]:
        tokens, mask = self.by.tokenizer([text])
        return {f"{prefix}tokens": tokens[0], f"{prefix}token_mask": mask[0]}

    def number(self, key: str, word: str, given: Any) -> int:
        """The number of a class that is named or numbered."""
        names, first = self.by.class_names.get(key, ()), FIELDS[key].first_class
        if isinstance(given, str):
            if not names:
                raise misfit(
                    self.row, word, given, "the number of a class: this run has no names of them"
                )
            if given not in names:
                raise fault(
                    self.row, word, f"{word!r}: no class {given!r}; {nearest(given, names, 3)}"
                )
            return names.index(given) + first
        last = first + len(names) - 1 if names else math.inf
        if not rows.whole(given) or not first <= given <= min(last, 2**31 - 1):
            upto = f"from {first} to {last}" if names else f"from {first} on"
            raise misfit(self.row, word, given, f"the name or the number of a class, {upto}")
        return int(given)

    def vector(self, given: Any) -> dict[str, np.ndarray]:
        width = self.by.sizes.text_width
        expected = f"{width} numbers, or a .npy file of them (config.data.text_width)"
        if isinstance(given, str | Path):
            try:
                found = np.load(self.file(given, "text_vector"), allow_pickle=False)
            except Exception:  # bytes that are no array raise nearly anything
                raise misfit(self.row, "text_vector", str(given), expected) from None
        else:
            found = given
        try:
            found = np.asarray(found, np.float32)
        except (TypeError, ValueError):
            raise misfit(self.row, "text_vector", given, expected) from None
        if found.shape != (width,) or not np.isfinite(found).all():
            seen = f"an array {list(found.shape)}" if found.shape != (width,) else "not all finite"
            raise fault(self.row, "text_vector", f"'text_vector' is {seen}; expected {expected}")
        return {"text_vector": found}

    # --- the frame ------------------------------------------------------------------------------

    @functools.cached_property
    def drawn(self) -> tuple[int, int]:
        """Width and height of what is drawn."""
        return self.by.sizes.width, self.by.sizes.height

    @functools.cached_property
    def picture(self) -> tuple[Any, tuple[int, int]]:
        """The row's image, and its width and height."""
        return self.rgb(self.row["image"], "image")

    @functools.cached_property
    def frame(self) -> tuple[int, int]:
        """Width and height of the picture that boxes and masks belong to."""
        if "size" in self.row:
            return tuple(self.row["size"])
        return self.picture[1] if "image" in self.row else self.drawn

    def view(self, size: tuple[int, int]) -> View:
        """What is shown of a picture of that size."""
        view = self.by.framing.view(size)
        left, top, right, bottom = view.cut
        if max(size[0] - (right - left), size[1] - (bottom - top)) > 1:
            width, height = self.drawn
            self.by.note(
                "cropped pictures",
                f"a picture of {size[0]} x {size[1]} pixels is cropped to the shape of what is "
                f"drawn, {width} x {height}",
            )
        return view

    # --- pictures -------------------------------------------------------------------------------

    def file(self, name: str | Path, word: str) -> Path:
        """Where a file of the row lies on this machine; a copy, if it comes from a store."""
        if places.scheme_of(name):
            try:
                return places.here(name)
            except (FileNotFoundError, ConfigError) as error:
                raise fault(self.row, word, f"{word!r} is {str(name)!r}: {error}") from None
        path = self.by.root / name
        if not str(name) or not os.path.exists(path):
            hint = rows.close_files(path) if str(name) else ""
            raise fault(self.row, word, f"{word!r} is {str(name)!r}: no such file{hint}")
        return path

    def rgb(self, given: Any, word: str) -> tuple[Any, tuple[int, int]]:
        """A picture in colour, and its width and height."""
        if isinstance(given, np.ndarray):
            if given.dtype != np.uint8 or given.ndim != 3 or given.shape[2] != 3 or not given.size:
                raise fault(
                    self.row,
                    word,
                    f"{word!r} is an array {given.dtype}{list(given.shape)}; expected "
                    "uint8[height, width, 3]",
                )
            return given, given.shape[1::-1]
        read = functools.partial(images.open_rgb, background=self.by.framing.background)
        return self.opened(given, word, read)

    def opened(self, given: Any, word: str, read: Callable) -> Any:
        """What a function of `images` makes of a file that the row names."""
        if not isinstance(given, str | Path):
            raise misfit(self.row, word, given, "the name of a picture file")
        path = self.file(given, word)
        try:
            return read(path)
        except images.Unreadable as error:
            known = ", ".join(images.FORMATS)
            raise fault(
                self.row, word, f"{word!r} is {path}: {error.reason}; expected a picture ({known})"
            ) from None

    def image(self, given: Any) -> dict[str, np.ndarray]:
        picture, size = self.picture
        view = self.view(size)
        return {"image": view.crop(view.scale(picture, self.by.resize))}

    def grey(self, given: Any, word: str) -> np.ndarray:
        """A mask of any size: uint8 [h, w]."""
        if not isinstance(given, np.ndarray):
            picture, _ = self.rgb(given, word)
            from PIL import Image

            picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
            return np.asarray(picture.convert("L"))
        given = given.astype(np.uint8) * 255 if given.dtype == bool else given
        if given.dtype != np.uint8 or given.ndim != 2 or not given.size:
            raise fault(
                self.row,
                word,
                f"{word!r} is an array {given.dtype}{list(given.shape)}; expected uint8 or "
                "bool[height, width]",
            )
        return given

    def placed(self, mask: np.ndarray, size: tuple[int, int], word: str) -> np.ndarray:
        """A mask as what is drawn shows it, at some width and height: the nearest pixels.

        It may have the frame's size or shape, or be what is wanted already, as the schema keeps it.
        """
        have, (width, height) = mask.shape[::-1], self.frame
        if have == size and have != self.frame:
            return mask
        if abs(have[0] * height - have[1] * width) > max(width, height):
            raise fault(
                self.row,
                word,
                f"{word!r} has {have[0]} x {have[1]} pixels; expected {width} x {height}, as the "
                f"picture that it belongs to, or that shape, or {size[0]} x {size[1]}",
            )
        return self.view(have).classes(mask, size)

    def region(self, given: Any) -> dict[str, np.ndarray]:
        if "edit_region" not in self.row:
            return {"edit_region": np.full(self.drawn[::-1], 255, np.uint8)}
        if not isinstance(given, list | tuple):
            mask = self.grey(given, "edit_region")
            return {"edit_region": self.placed(mask, self.drawn, "edit_region")}
        out = np.zeros(self.drawn[::-1], np.uint8)
        for i, box in enumerate(given):
            found = self.box(box, f"edit_region[{i}]")
            if found is not None:
                _paint(out, found)
        return {"edit_region": out}

    def segmentation(self, given: Any) -> dict[str, np.ndarray]:
        if isinstance(given, np.ndarray):
            right = given.ndim == 2 and given.dtype.kind in "iu" and given.size
            found = given if right else None
        else:
            found = self.opened(given, "segmentation", images.read_numbers)
        names = self.by.class_names.get("segmentation", ())
        last = len(names) if names else math.inf
        if found is None or found.min() < 0 or found.max() > last:
            seen = (
                f"{given.dtype}{list(given.shape)}" if found is None else f"{found.max()} at most"
            )
            raise fault(
                self.row,
                "segmentation",
                f"'segmentation' holds {seen}; expected whole numbers [height, width], 0 for no "
                f"class and 1 to {last if names else 'any number'} for classes",
            )
        return {"segmentation": self.placed(found.astype(np.int32), self.drawn, "segmentation")}

    # --- objects --------------------------------------------------------------------------------

    def objects(self, given: Any) -> dict[str, np.ndarray]:
        if not isinstance(given, list | tuple):
            raise misfit(self.row, "objects", given, "a list of objects")
        n, m = self.by.sizes.objects, self.by.sizes.mask_resolution
        found = self.shown(given)
        out = {
            "boxes": np.zeros((n, 4), np.float32),
            "box_label": np.zeros(n, np.int32),
            "box_mask": np.arange(n) < len(found),
            "shape_masks": np.zeros((n, m, m), np.uint8),
        }
        for slot, (i, box) in enumerate(found):
            thing, word = given[i], f"objects[{i}]"
            out["boxes"][slot] = box
            if "box_label" in self.needs:
                if "label" not in thing:
                    raise fault(self.row, word, f"{word!r} has no 'label', which this run needs")
                label = self.number("box_label", f"{word}.label", thing["label"])
                out["box_label"][slot] = label
            if "shape_masks" in self.needs and "mask" in thing:
                out["shape_masks"][slot] = self.mask(thing, word, m)
            elif "shape_masks" in self.needs:
                self.by.note("boxes filled", f"{word!r} has no 'mask': its shape is its whole box")
                _paint(out["shape_masks"][slot], box)
        return out

    def shown(self, given: Sequence) -> list[tuple[int, np.ndarray]]:
        """(number, box) of the objects that are drawn, in their order."""
        found = [
            (i, box) for i, thing in enumerate(given) if (box := self.thing(i, thing)) is not None
        ]
        return self.largest(found, self.by.sizes.objects)

    def mask(self, thing: Mapping, word: str, size: int) -> np.ndarray:
        """The mask of an object as what is drawn shows it, uint8 [size, size]."""
        return self.placed(self.grey(thing["mask"], f"{word}.mask"), (size, size), f"{word}.mask")

    def thing(self, i: int, thing: Any) -> np.ndarray | None:
        """The box of an object; None where what is drawn does not show it."""
        word = f"objects[{i}]"
        if not isinstance(thing, Mapping):
            raise misfit(
                self.row, word, thing, 'an object such as {"label": 3, "box": [0, 0, 1, 1]}'
            )
        for name in thing:
            if name not in OBJECT_WORDS:
                hint = nearest(name, OBJECT_WORDS)
                raise fault(self.row, word, f"{word!r}: an object has no word {name!r}; {hint}")
        if "box" not in thing:
            raise fault(self.row, word, f"{word!r} has no 'box'; expected [x, y, width, height]")
        return self.box(thing["box"], f"{word}.box")

    def largest(self, found: list, count: int) -> list:
        """At most so many objects, in the order of config.data.object_order."""
        by_area = sorted(found, key=lambda pair: -float(pair[1][2]) * float(pair[1][3]))
        if len(found) > count:
            self.by.note(
                "objects too many",
                f"a row has {len(found)} objects; the {count} largest are drawn "
                "(config.data.objects)",
            )
        kept = by_area[:count]
        return kept if self.by.object_order == "area" else sorted(kept, key=lambda pair: pair[0])

    def box(self, given: Any, word: str) -> np.ndarray | None:
        """x, y, w, h as fractions of what is drawn: float32 [4]; None where it is not shown."""
        expected = "[x, y, width, height], top-left first"
        given = given.tolist() if isinstance(given, np.ndarray) else given
        if (
            not isinstance(given, list | tuple)
            or len(given) != 4
            or not all(map(rows.number, given))
        ):
            raise misfit(self.row, word, given, f"{expected}, four finite numbers")
        if min(given[2:]) <= 0:
            raise misfit(self.row, word, given, f"{expected}, width and height above 0")
        box = np.array(given, np.float64)
        if self.row.get("units") == "pixels":
            if "size" not in self.row and "image" not in self.row:
                raise fault(
                    self.row,
                    "units",
                    "'units' is \"pixels\" and of which picture is not said; "
                    'expected "size": [width, height] or an "image" in the row',
                )
            box /= [*self.frame, *self.frame]
        elif box.min() > 1 or box.max() > 2:
            raise misfit(
                self.row,
                word,
                given,
                f"{expected}, fractions of the picture; these look like pixels: write "
                '"units": "pixels" and "size": [width, height] in the row',
            )
        inside = _clipped(box)
        if inside is None:
            raise misfit(self.row, word, given, f"{expected}, inside the picture")
        if (inside != box).any():
            self.by.note(
                "boxes cut at the border", f"the box {given} reaches out of the picture: it is cut"
            )
        size = self.frame
        shown = _clipped(self.view(size).boxes(inside[None] * [*size, *size])[0])
        if shown is None:
            self.by.note("boxes not shown", f"the box {given} is cropped away, as its picture is")
            return None
        return shown.astype(np.float32)


def _clipped(box: np.ndarray) -> np.ndarray | None:
    """The part of a box in the unit square; None where there is none.

    What sticks out by rounding alone is left, so that a box that was cut is not cut again.
    """
    first, last = np.maximum(box[:2], 0), np.minimum(box[:2] + box[2:], 1)
    if (last - first < ROUNDING).any():
        return None
    if (box[:2] >= 0).all() and (box[:2] + box[2:] <= 1 + ROUNDING).all():
        return box
    return np.concatenate([first, last - first])


def _paint(out: np.ndarray, box: np.ndarray) -> None:
    """Sets the pixels of a box, fractions of the array, to 255: at least one."""
    height, width = out.shape
    (x0, x1), (y0, y1) = (
        (round(float(box[i]) * n), round(float(box[i] + box[i + 2]) * n))
        for i, n in ((0, width), (1, height))
    )
    x0, y0 = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
    out[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = 255


def _shortest(values: np.ndarray) -> list[float]:
    """The shortest decimals that are these float32 numbers again."""
    return [float(str(v)) for v in np.asarray(values, np.float32).ravel()]


# Key of the schema -> (word of a row, how it is read). A new kind of condition is a line here.
READ: dict[str, tuple[str, Callable[[_Reading, Any], dict[str, np.ndarray]]]] = {
    **dict.fromkeys(("tokens", "token_mask"), ("prompt", _Reading.text)),
    **dict.fromkeys(
        ("negative_tokens", "negative_token_mask"),
        ("negative", lambda reading, given: reading.text(given, "negative_")),
    ),
    "text_vector": ("text_vector", _Reading.vector),
    "label": (
        "label",
        lambda reading, given: {"label": np.int32(reading.number("label", "label", given))},
    ),
    **dict.fromkeys(
        ("boxes", "box_label", "box_mask", "shape_masks"), ("objects", _Reading.objects)
    ),
    "image": ("image", _Reading.image),
    "edit_region": ("edit_region", _Reading.region),
    "segmentation": ("segmentation", _Reading.segmentation),
}
# Of each word: what stands behind it, and what it means, for a person.
MEANINGS: dict[str, tuple[str, str]] = {
    "prompt": ("text", "the caption"),
    "negative": ("text", "what is not wanted"),
    "label": ("name or number", "class of the picture"),
    "objects": (
        "list of {label, box, mask}",
        "what is where; a box is [x, y, width, height] in fractions, top-left first",
    ),
    "image": ("file or uint8 [H, W, 3]", "the picture that is read or changed"),
    "edit_region": ("file or boxes", "where a change may act"),
    "segmentation": ("file or int [H, W]", "class of each pixel"),
    "text_vector": ("file or floats", "the caption's embedding, computed elsewhere"),
}
# What a row means that does not say so: no negative prompt; an edit may act everywhere.
OPTIONAL = {"negative_tokens": "", "negative_token_mask": "", "edit_region": EVERYWHERE}
_PICTURES = ("image", "edit_region", "segmentation")
_KNOWN = tuple(READ)
