"""Two endless corpora drawn on the fly: `scenes` (like COCO) and `blooms` (like CUB, Oxford-102).

Every example is a function of (seed, split, index): nothing is downloaded, stored or remembered,
and the same index at another resolution is the same picture. Colouring is exact in whole numbers;
between kinds of processors a pixel may still differ by a step or two, as numpy's sines do.
"""

import functools
from collections.abc import Sequence

import numpy as np
from PIL import Image

from jaxt2i.data import order, rare
from jaxt2i.data.drawn import blooms, blooms_art, meaning, scenes, scenes_art
from jaxt2i.data.drawn.drawing import FINEST, MARGIN, SLOT, Canvas, Chance, draw, shrink, split
from jaxt2i.data.schema import DataError, square

CORPORA = ("scenes", "blooms")
SPLITS = ("train", "val", "test", "judge")
# Drawings are kept at these sizes and reduced to the size at which they are seen.
LEVELS = (32, 64, 128, 256, 512)
# About this many bytes of drawings are kept per level; all of a corpus fits up to 128 pixels.
CACHE_BYTES = 2**28
# First words of the addresses of chance: what a stream is for.
_PICTURE, _WORDS, _SHAPE, _PATTERN, _GROUND, _STAYS = range(6)
_ADDRESSES = 8
# Where the pictures that stand in for others begin: after all that are asked for.
_ELSEWHERE = 2**40
# Seed of the drawings themselves, which all seeds share.
_ART_SEED = 2025
_ART = {"scenes": scenes_art, "blooms": blooms_art}


def _draw_object(corpus: str, name: str, variant: int, pattern: str, size: int) -> np.ndarray:
    """Weights uint8 [size, size, K] of one variant of a thing; size is one of LEVELS."""
    which = (scenes if corpus == "scenes" else blooms).CLASSES.index(name)
    art, stream = _ART[corpus], _SHAPE + _ADDRESSES * CORPORA.index(corpus)
    if pattern != "plain":
        weights = _drawings(size)[0](corpus, name, variant, "plain", size)
        chance = Chance(_ART_SEED, stream + _PATTERN - _SHAPE, which, variant)
        return split(weights, art.pattern(pattern, Canvas(size), chance))
    if size < FINEST:
        weights = _drawings(FINEST)[0](corpus, name, variant, "plain", FINEST)
        return shrink(weights, FINEST // size)

    def paint(canvas: Canvas) -> None:
        chance = Chance(_ART_SEED, stream, which, variant)
        if corpus == "scenes":
            scenes_art.THINGS[name](canvas, chance)
        else:
            blooms_art.paint_object(canvas, name, blooms.has_leaves(name, variant), chance)

    return draw(paint, size)


def _draw_ground(corpus: str, name: str, variant: int, size: int) -> np.ndarray:
    """Weights uint8 [size, size, K] of one variant of a background."""
    stream = _GROUND + _ADDRESSES * CORPORA.index(corpus)

    def paint(canvas: Canvas) -> None:
        if corpus == "scenes":
            chance = Chance(_ART_SEED, stream, tuple(scenes_art.GROUNDS).index(name), variant)
            scenes_art.paint_background(canvas, name, scenes.level(variant), chance)
        else:
            blooms_art.paint_background(canvas, Chance(_ART_SEED, stream, 0, variant))

    return draw(paint, size, span=1.0)


@functools.cache
def _drawings(size: int):
    """(_draw_object, _draw_ground) at one size, each keeping what it drew."""
    room = max(CACHE_BYTES // (size * size * len(SLOT)), 8)
    return functools.lru_cache(room)(_draw_object), functools.lru_cache(room // 2)(_draw_ground)


@functools.cache
def _extents(corpus: str, name: str, variant: int) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 of a drawing in its own units, its shadow left out."""
    opacity = _opacity(_drawings(FINEST)[0](corpus, name, variant, "plain", FINEST))
    rows, columns = (np.flatnonzero((opacity > 127).any(axis)) for axis in (1, 0))
    edges = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return tuple((edges * (2 * MARGIN / FINEST) - MARGIN).tolist())


def _opacity(weights: np.ndarray) -> np.ndarray:
    """Opacity uint8 [S, S] of a thing without its shadow."""
    return weights.sum(-1, dtype=np.uint8) - weights[..., SLOT["shadow"]]


def _colour(weights: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """uint8 [H, W, K] weights and float32 [K, C] colours to uint8 [H, W, C], premultiplied."""
    out = weights.reshape(-1, weights.shape[-1]).astype(np.float32) @ palette
    out += 127.0
    out *= 1 / 255
    return out.astype(np.uint8).reshape(*weights.shape[:2], -1)


def _placed(thing: dict, extents: tuple, size: int) -> tuple:
    """Where a drawing lands on an image: its window and the part of the drawing seen there.

    Returns:
      (level of the drawing, (left, top, right, bottom) in whole pixels, box in the drawing).
    """
    x, y, w, h = thing["box"]
    ux, uy = thing["unit"]
    left, right = (-extents[2], -extents[0]) if thing["flip"] else (extents[0], extents[2])
    # Where the drawing's own square begins, and how wide it is, in pixels.
    begin = (x + w / 2 - ((left + right) / 2 + MARGIN) * ux) * size
    top = (y + h / 2 - ((extents[1] + extents[3]) / 2 + MARGIN) * uy) * size
    wide, high = 2 * MARGIN * ux * size, 2 * MARGIN * uy * size
    # Enlarging by a tenth cannot be seen, and spares the largest things the next level.
    level = next((n for n in LEVELS if n >= 0.9 * max(wide, high)), LEVELS[-1])
    # Whole pixels inside the square; the margin is empty there.
    x0, x1 = max(int(np.ceil(begin)), 0), min(int(begin + wide), size)
    y0, y1 = max(int(np.ceil(top)), 0), min(int(top + high), size)
    source = ((x0 - begin) / wide, (y0 - top) / high, (x1 - begin) / wide, (y1 - top) / high)
    return level, (x0, y0, x1, y1), tuple(min(max(s, 0.0), 1.0) * level for s in source)


def _resized(mode: str, pixels: np.ndarray, window: tuple, source: tuple) -> Image.Image:
    """The `source` box of an image, brought to the size of `window` by area filtering."""
    size = (pixels.shape[1], pixels.shape[0])
    image = Image.frombytes(mode, size, pixels.tobytes())
    return image.resize(
        (window[2] - window[0], window[3] - window[1]), Image.Resampling.HAMMING, box=source
    )


class Synthetic:
    """A random-access source of one corpus.

    `boxes` are those of whole things, also where another thing hides a part. `shape_masks` and
    `segmentation` show what is seen: a pixel belongs to the nearest thing that covers at least
    half of it. Segmentation is the class + 1, as 0 is the background. Objects are ordered from
    the largest box to the smallest; `label` is the class of the first.

    Attributes:
      gives: the batch keys that `example` can make.
      size: None, as there is no end.
      class_names: names of the classes that `label` and `box_label` count.
    """

    gives = (
        "image",
        "label",
        "boxes",
        "box_label",
        "box_mask",
        "box_attributes",
        "setting",
        "shape_masks",
        "segmentation",
        "id",
    )
    size = None

    def __init__(
        self,
        corpus: str,
        resolution: int | Sequence[int],
        split: str = "train",
        seed: int = 0,
        objects: int = 8,
        mask_resolution: int = 16,
        rare: str = "",
        rare_threshold: float = 0.001,
        scarce: float = 1.0,
    ):
        """Chooses a corpus; draws nothing yet.

        Args:
          corpus: "scenes", "blooms", or "mixed": scenes at even indices, blooms at odd ones, whose
            classes count on from those of the scenes.
          resolution: height and width of the image, 16..512 pixels; squares only.
          split: "train", "val" (other pictures), "test" (blooms: other classes), or "judge": again
            other pictures, of all classes, to train what judges the other splits.
          seed: another seed is another corpus of the same kind.
          objects: padded number of objects; the smallest are dropped where there are more.
          mask_resolution: height and width of a shape mask, pixels.
          rare: "repeat" or "balanced" sampling by class, see `jaxt2i.data.rare`; "": none.
          rare_threshold: for "repeat".
          scarce: share of the training pictures with a class of `scenes.SCARCE` that stay; another
            picture is drawn in the place of those that do not.

        Raises:
          DataError: for an unknown corpus or split, a resolution out of range, or `scarce` of
            another corpus than "scenes".
        """
        if corpus not in (*CORPORA, "mixed"):
            raise DataError(
                f"config.data.corpus is {corpus!r}; known: {', '.join((*CORPORA, 'mixed'))}"
            )
        if split not in SPLITS:
            raise DataError(f"config.data.split is {split!r}; known: {', '.join(SPLITS)}")
        resolution = square(resolution, "the synthetic corpora")
        if not 16 <= resolution <= 512:
            raise DataError(
                f"config.data.resolution is {resolution}; the synthetic corpora are drawn at "
                "16 to 512 pixels"
            )
        if not 0 <= scarce <= 1 or (scarce < 1 and corpus != "scenes"):
            raise DataError(
                f"config.data.scarce is {scarce} with config.data.corpus={corpus!r}; expected "
                '0..1, and 1 unless the corpus is "scenes"'
            )
        self._scarce = scarce if split == "train" else 1.0
        self.corpus, self.resolution, self.split, self.seed = corpus, resolution, split, seed
        self.objects, self.mask_resolution = objects, mask_resolution
        self._rare = rare, rare_threshold
        self.class_names = {
            "scenes": scenes.CLASSES,
            "blooms": blooms.CLASSES,
            "mixed": scenes.CLASSES + blooms.CLASSES,
        }[corpus]
        # Captions and picture of one example are asked for together: its layout is drawn once.
        self._last = (-1, {})

    def _chance(self, index: int, purpose: int) -> Chance:
        corpus = CORPORA.index(self._corpus(index))
        return Chance(self.seed, purpose + _ADDRESSES * corpus, SPLITS.index(self.split), index)

    def _corpus(self, index: int) -> str:
        return CORPORA[index % 2] if self.corpus == "mixed" else self.corpus

    def _layout(self, index: int) -> dict:
        last, out = self._last
        if last == index:
            return out
        corpus, chance = self._corpus(index), self._chance(index, _PICTURE)
        extents = functools.partial(_extents, corpus)
        if corpus == "scenes":
            out, place = scenes.layout(chance, extents), index
            while not self._stays(out, place):
                place += _ELSEWHERE
                out = scenes.layout(self._chance(place, _PICTURE), extents)
        else:
            known = len(blooms.CLASSES) - len(blooms.TEST_CLASSES)
            part = {"test": slice(known, None), "judge": slice(None)}.get(self.split, slice(known))
            out = blooms.layout(chance, extents, blooms.CLASSES[part])
            if self.corpus == "mixed":
                out["objects"][0]["label"] += len(scenes.CLASSES)
        self._last = (index, out)
        return out

    def _stays(self, facts: dict, place: int) -> bool:
        """Whether a picture is one that training is to see."""
        if self._scarce == 1 or not any(x["class"] in scenes.SCARCE for x in facts["objects"]):
            return True
        return self._chance(place, _STAYS).unit() < self._scarce

    def facts(self, index: int) -> dict:
        """The truth about a picture.

        Args:
          index: number of the example, >= 0.

        Returns:
          As documented by `scenes.layout` and `blooms.layout`; not to be changed.
        """
        return self._layout(index)

    def object_count(self, index: int) -> int:
        """How many objects an example shows."""
        return min(len(self._layout(index)["objects"]), self.objects)

    def _classes(self, index: int) -> np.ndarray:
        """Numbers of the classes that an example shows, each once."""
        return np.unique([thing["label"] for thing in self._things(self._layout(index))])

    @functools.cached_property
    def _counted(self) -> np.ndarray:
        """`rare.presence` of the first examples."""
        found = [self._classes(index) for index in range(rare.COUNTED)]
        record = np.repeat(np.arange(len(found)), [len(x) for x in found])
        return rare.presence(record, np.concatenate(found))

    @property
    def report(self) -> dict:
        """How often the first examples show each class, and how often as many of training do."""
        kind, threshold = self._rare
        if not kind:
            return {}
        seen = rare.weights(kind, self._counted, rare.COUNTED, threshold)
        seen *= rare.COUNTED / seen.sum()
        classes = rare.histogram(self._counted, seen, list(self.class_names))
        return {"examples": rare.COUNTED, "rare": kind, "classes": classes}

    def order(self, seed: int, batch: int):
        """The order in which training sees the examples; see `jaxt2i.data.order`."""
        kind, threshold = self._rare
        if not kind:
            return order.InOrder(None)
        share = np.bincount(self._counted[:, 1], minlength=len(self.class_names)) / rare.COUNTED
        counts = rare.factors(kind, share, rare.COUNTED, threshold)
        most = counts.max() if kind == "repeat" else np.sort(counts)[-self.objects :].sum()
        return order.WeightedEndless(
            lambda index: rare.weight(kind, counts, self._classes(index)), float(most), seed
        )

    def captions(self, index: int) -> list[str]:
        """All sentences of an example, five (scenes) or ten (blooms), without drawing it.

        Args:
          index: number of the example, >= 0.
        """
        module = scenes if self._corpus(index) == "scenes" else blooms
        return module.captions(self._chance(index, _WORDS), self._layout(index))

    def example(self, index: int, keys: tuple[str, ...] = ("image",)) -> dict[str, np.ndarray]:
        """One example, by the batch schema without its batch axis.

        Args:
          index: number of the example, >= 0.
          keys: some of `gives`; only these are made.

        Raises:
          ValueError: for a key that is not in `gives`.
        """
        if unknown := set(keys) - set(self.gives):
            raise ValueError(
                f"the synthetic source gives no {', '.join(sorted(unknown))}; it gives "
                f"{', '.join(self.gives)}. Choose another config.data.source."
            )
        layout = self._layout(index)
        return {key: getattr(self, f"_{key}")(index, layout) for key in keys}

    def _things(self, layout: dict) -> list[dict]:
        return layout["objects"][: self.objects]

    def _id(self, index: int, layout: dict) -> np.ndarray:
        return np.asarray(index, np.int64)

    def _label(self, index: int, layout: dict) -> np.ndarray:
        return np.asarray(layout["objects"][0]["label"], np.int32)

    def _boxes(self, index: int, layout: dict) -> np.ndarray:
        out = np.zeros((self.objects, 4), np.float32)
        for slot, thing in zip(out, self._things(layout), strict=False):
            slot[:] = thing["box"]
        return out

    def _box_label(self, index: int, layout: dict) -> np.ndarray:
        out = np.zeros(self.objects, np.int32)
        things = self._things(layout)
        out[: len(things)] = [thing["label"] for thing in things]
        return out

    def _box_mask(self, index: int, layout: dict) -> np.ndarray:
        return np.arange(self.objects) < len(layout["objects"])

    def _box_attributes(self, index: int, layout: dict) -> np.ndarray:
        return meaning.encode(layout, self.objects)[0]

    def _setting(self, index: int, layout: dict) -> np.ndarray:
        return meaning.encode(layout, self.objects)[1]

    def _image(self, index: int, layout: dict) -> np.ndarray:
        corpus, size = layout["corpus"], self.resolution
        art = _ART[corpus]
        ground = _drawings(size)[1](corpus, layout["background"], layout["ground"], size)
        colours = np.ascontiguousarray(art.background_palette(layout)[:, :3])
        pixels = _colour(ground, colours)
        if layout["flip"]:
            pixels = pixels[:, ::-1]
        image = Image.frombytes("RGB", (size, size), pixels.tobytes())
        for thing in sorted(layout["objects"], key=lambda o: o["order"]):
            level, window, source = self._place(corpus, thing, size)
            weights = _drawings(level)[0](
                corpus, thing["class"], thing["variant"], thing["texture"], level
            )
            pixels = _colour(weights, art.object_palette(thing))
            if thing["flip"]:
                pixels = pixels[:, ::-1]
            stamp = _resized("RGBa", pixels, window, source).convert("RGBA")
            image.paste(stamp, window[:2], stamp)
        return np.array(image)

    def _place(self, corpus: str, thing: dict, size: int) -> tuple:
        return _placed(thing, _extents(corpus, thing["class"], thing["variant"]), size)

    def _visible(self, layout: dict, size: int) -> np.ndarray:
        """Share of each pixel in which each thing is seen, uint8 [objects there, size, size]."""
        out = np.zeros((len(layout["objects"]), size, size), np.uint8)
        free = np.full((size, size), 255, np.uint16)
        order = sorted(range(len(out)), key=lambda i: -layout["objects"][i]["order"])
        for i in order:
            thing = layout["objects"][i]
            level, window, source = self._place(layout["corpus"], thing, size)
            weights = _drawings(level)[0](
                layout["corpus"], thing["class"], thing["variant"], "plain", level
            )
            alpha = _opacity(weights)
            if thing["flip"]:
                alpha = alpha[:, ::-1]
            x0, y0, x1, y1 = window
            seen = np.asarray(_resized("L", alpha, window, source), np.uint16)
            part = free[y0:y1, x0:x1]
            seen = (seen * part + 127) // 255
            out[i, y0:y1, x0:x1] = seen
            part -= seen
        return out

    def _shape_masks(self, index: int, layout: dict) -> np.ndarray:
        size = self.mask_resolution
        out = np.zeros((self.objects, size, size), np.uint8)
        seen = self._visible(layout, size)[: self.objects]
        out[: len(seen)] = seen
        return out

    def _segmentation(self, index: int, layout: dict) -> np.ndarray:
        out = np.zeros((self.resolution, self.resolution), np.int32)
        for thing, seen in zip(
            layout["objects"], self._visible(layout, self.resolution), strict=True
        ):
            out[seen > 127] = thing["label"] + 1
        return out
