"""Pictures to the wanted size, and their boxes and masks with them.

What happens to a picture is one `View`: cut out a part, scale it, take a crop of that, perhaps
mirror it. A view is made from sizes and numbers alone, so whatever belongs to a picture can follow
it: boxes, masks of objects, classes of pixels.
"""

import dataclasses
import math
import threading
from collections.abc import Callable, Hashable, Mapping

import numpy as np

from jaxt2i.data import native
from jaxt2i.data.schema import DataError, height_and_width

# Ways to resize, all with antialiasing, by Pillow's names; and which part of a picture is shown.
RESIZE = {
    "lanczos": "LANCZOS",
    "area": "BOX",
    "bilinear": "BILINEAR",
    "bicubic": "BICUBIC",
}
# The zoomed ones are the middle of the random ones.
CROPS = (
    *("centre", "none", "random", "random_stretched", "zoomed", "zoomed_stretched", "pad"),
    "random_op_gan",
)
# How JPEGs of the training split are decoded: every pixel; no larger than twice what they are
# resized to; or by `jaxt2i.data.native`, unless nothing is to be resized.
DECODE = ("exact", "draft", "native")
# Of a crop of "random_op_gan": how far its boxes may reach, and what then stays free.
REACH, FREE = 0.999, 0.001
# StackGAN's margin around a random crop: the shorter side is 76 where the crop is 64.
MARGIN = 76 / 64
# What lies behind transparent parts, and beside a picture that is padded.
BACKGROUND = "white"
# Share of a picture's longer side, percent, that the centre crop may cut away without a word.
LOSS_PERCENT = 25
# The chance that puts a crop into the middle and mirrors nothing.
MIDDLE = (0.5, 0.5, 1.0)


@dataclasses.dataclass(frozen=True)
class View:
    """The way from a picture to a crop of it.

    Attributes:
      cut: left, top, right, bottom of the part that is used, whole pixels of the picture.
      scaled: width and height that the part is resized to, pixels.
      left: left border of the crop in the resized part, pixels; negative where it lies outside,
        and the crop shows a background there.
      top: its upper border.
      size: its width and height, pixels.
      mirrored: whether left and right are exchanged at the end.
      background: red, green and blue, 0..255.
      op_gan: whether boxes follow by OP-GAN's own rule, see `objects`.
    """

    cut: tuple[int, int, int, int]
    scaled: tuple[int, int]
    left: int
    top: int
    size: tuple[int, int]
    mirrored: bool = False
    background: tuple[int, int, int] = (255, 255, 255)
    op_gan: bool = False

    def scale(self, image, resize: str, size: tuple[int, int] | None = None):
        """The part that is used, resized: what a cache may keep, as it knows no chance.

        Args:
          image: a PIL image, or uint8 [H, W, 3].
          resize: a key of `RESIZE`.
          size: width and height of the picture where `image` is a smaller copy of it.
        """
        from PIL import Image

        method = Image.Resampling[RESIZE[resize]]
        have = image.shape[1::-1] if isinstance(image, np.ndarray) else image.size
        if size is not None and size != have:
            across, down = map(reduction, have, size)
            left, top, right, bottom = self.cut
            box = left * across, top * down, right * across, bottom * down
            return _pillow(image).resize(self.scaled, method, box)
        if isinstance(image, np.ndarray):
            if self.resizes:
                return _part(image, self.cut).resize(self.scaled, method)
            left, top, right, bottom = self.cut
            return image[top:bottom, left:right]
        if self.cut != (0, 0, *have):
            image = image.crop(self.cut)
            have = image.size
        return image if have == self.scaled else image.resize(self.scaled, method)

    def enough(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height of a smaller copy from which the crop still comes out well.

        Twice as large as what it is resized to, which the antialiasing filters tell from the whole
        picture by about half a level of 255 (tests/data/test_images.py).
        """
        left, top, right, bottom = self.cut
        across, down = 2 * self.scaled[0] / (right - left), 2 * self.scaled[1] / (bottom - top)
        share = min(1.0, max(across, down))
        return math.ceil(size[0] * share), math.ceil(size[1] * share)

    def crop(self, scaled) -> np.ndarray:
        """The crop of a picture that `scale` returned: uint8 [height, width, ...]."""
        width, height = self.size
        top, left = max(self.top, 0), max(self.left, 0)
        rows = np.asarray(scaled)[top : self.top + height, left : self.left + width]
        if self.is_padded:
            inside, out = rows, np.empty((height, width, 3), np.uint8)
            left, top, right, bottom = self.place
            out[:] = self.background
            out[top:bottom, left:right] = inside
            rows = out
        return rows[:, ::-1] if self.mirrored else rows

    @property
    def resizes(self) -> bool:
        """Whether the part that is used is not shown pixel by pixel."""
        left, top, right, bottom = self.cut
        return self.scaled != (right - left, bottom - top)

    def is_all(self, size: tuple[int, int]) -> bool:
        """Whether the crop is a picture of that width and height, pixel by pixel."""
        return (
            self.scaled == self.size == size
            and self.cut == (0, 0, *size)
            and not (self.left or self.top or self.mirrored)
        )

    @property
    def place(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of what the crop has of the picture, pixels before a mirror."""
        at, ends = (self.left, self.top), zip(self.scaled, self.size, strict=True)
        right, bottom = (min(n - a, m) for a, (n, m) in zip(at, ends, strict=True))
        return max(-self.left, 0), max(-self.top, 0), right, bottom

    @property
    def is_padded(self) -> bool:
        """Whether some of the crop lies outside the picture."""
        return self.place != (0, 0, *self.size)

    def show(self, image, resize: str) -> np.ndarray:
        """The crop of a PIL image: uint8 [height, width, 3]."""
        return self.crop(self.scale(image, resize))

    def shown(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of what the crop shows, pixels of the picture.

        Of a padded one they lie outside the picture.
        """
        left, top, right, bottom = self.cut
        across, down = (right - left) / self.scaled[0], (bottom - top) / self.scaled[1]
        x, y = left + self.left * across, top + self.top * down
        return x, y, x + self.size[0] * across, y + self.size[1] * down

    def clipped(self, boxes: np.ndarray) -> np.ndarray:
        """The parts of boxes, as `boxes` gives them, that lie where the crop shows the picture."""
        left, top, right, bottom = np.array(self.place) / [*self.size, *self.size]
        if self.mirrored:
            left, right = 1 - right, 1 - left
        first = np.clip(boxes[:, :2], [left, top], [right, bottom])
        last = np.clip(boxes[:, :2] + boxes[:, 2:], [left, top], [right, bottom])
        return np.concatenate([first, last - first], 1)

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Where boxes lie in the crop, not cut at its border.

        Args:
          boxes: [n, 4], x, y, width, height in pixels of the picture.

        Returns:
          float64 [n, 4], x, y, width, height, fractions of the crop.
        """
        left, top, right, bottom = self.shown()
        size = np.array([right - left, bottom - top])
        at = (boxes[:, :2] - [left, top]) / size
        extent = boxes[:, 2:] / size
        if self.mirrored:
            at[:, 0] = 1 - at[:, 0] - extent[:, 0]
        return np.concatenate([at, extent], axis=1)

    def objects(self, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The boxes of objects as a network is told of them, and of which objects it is told.

        Boxes are cut at the border of the crop, and those below one pixel are left out. OP-GAN's
        code leaves out none: a box that the left or upper border cuts moves inside and keeps its
        size, and one that lies behind the right or lower border gets a negative size.

        Args:
          boxes: [n, 4], x, y, width, height in pixels of the picture.

        Returns:
          (float64 [n, 4], fractions of the crop; bool [n]).
        """
        if self.op_gan:
            return self._moved(boxes), np.ones(len(boxes), bool)
        shown = self.clipped(self.boxes(boxes))
        return shown, (shown[:, 2:] * self.size >= 1).all(1)

    def _moved(self, boxes: np.ndarray) -> np.ndarray:
        left, top, right, bottom = self.cut
        scale = np.array(self.scaled) / [right - left, bottom - top]
        at = (boxes[:, :2] - [left, top]) * scale - [self.left, self.top]
        at = np.maximum(at, 0) / self.size
        extent = np.minimum(boxes[:, 2:] * scale / self.size, 1)
        extent = np.where(at + extent > REACH, 1 - at - FREE, extent)
        if self.mirrored:
            at[:, 0] = 1 - at[:, 0] - extent[:, 0]
        return np.concatenate([at, extent], 1)

    def mask(self, mask: np.ndarray, side: int) -> np.ndarray:
        """A mask as the crop shows it, at another size: areas are averaged.

        Args:
          mask: bool or uint8 0/1 [H, W] of the picture.
          side: pixels.

        Returns:
          uint8 [side, side], 0..255.
        """
        from PIL import Image

        image = Image.fromarray(np.asarray(mask, np.uint8) * 255)
        return self._resampled(image, (side, side), Image.Resampling.BOX)

    def classes(
        self, classes: np.ndarray, size: tuple[int, int] | None = None, outside: int = 0
    ) -> np.ndarray:
        """Classes of pixels as the crop shows them: the nearest pixel's.

        Args:
          classes: uint8 or int32 [H, W] of the picture.
          size: width and height of the result; None: those of the crop.
          outside: the class of what lies outside the picture.

        Returns:
          [height, width], of the same type.
        """
        from PIL import Image

        image = Image.fromarray(classes)
        return self._resampled(image, size or self.size, Image.Resampling.NEAREST, outside)

    def _resampled(self, image, size: tuple[int, int], method, outside: int = 0) -> np.ndarray:
        from PIL import Image

        left, top, right, bottom = shown = self.shown()
        if self.is_padded:
            # In the picture's own pixels first, so that areas are averaged as everywhere.
            x, y = math.floor(left), math.floor(top)
            whole = Image.new(image.mode, (math.ceil(right) - x, math.ceil(bottom) - y), outside)
            whole.paste(image.crop(self.cut), (self.cut[0] - x, self.cut[1] - y))
            image, shown = whole, (left - x, top - y, right - x, bottom - y)
        out = np.asarray(image.resize(size, method, box=shown))
        return out[:, ::-1] if self.mirrored else out


def reduction(have: int, full: int) -> float:
    """How many times smaller a side of a JPEG was decoded: eighths, before it was rounded up.

    The rounded side tells a little more than there is: up to a pixel at the far border.
    """
    eighths = (k for k in range(1, 9) if -(-full * k // 8) == have)
    return next((k / 8 for k in eighths), have / full)


def _pillow(image):
    """A PIL image of either form of a picture."""
    from PIL import Image

    return Image.fromarray(image) if isinstance(image, np.ndarray) else image


def _part(image: np.ndarray, cut: tuple[int, int, int, int]):
    """PIL image of a part of uint8 [H, W, 3], taken where it lies: `fromarray` would copy twice."""
    from PIL import Image

    left, top, right, bottom = cut
    row = image.shape[1] * 3
    content = memoryview(np.ascontiguousarray(image).reshape(-1))[top * row + left * 3 :]
    return Image.frombuffer("RGB", (right - left, bottom - top), content, "raw", "RGB", row, 1)


def whole(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The cut that keeps all of a picture of that width and height."""
    return (0, 0, *size)


def around(size: tuple[int, int], box: tuple[float, float, float, float]):
    """The cut around an object: a square of 1.5 times its box's longer side, less what is outside.

    Args:
      size: width and height of the picture, pixels.
      box: x, y, width, height in pixels.

    Source: the preparation of CUB-200-2011 in StackGAN, which AttnGAN, DM-GAN and DF-GAN share.
    """
    x, y, w, h = (int(v) for v in box)
    reach = int(max(w, h) * 0.75)
    across, down = int((2 * x + w) / 2), int((2 * y + h) / 2)
    left, top = max(0, across - reach), max(0, down - reach)
    return left, top, min(size[0], across + reach), min(size[1], down + reach)


def centre(cut: tuple[int, int, int, int], size: tuple[int, int]) -> View:
    """The largest centred part of a cut that has the wanted shape.

    Offsets are rounded down, as in StyleGAN-T's preparation.
    """
    left, top, right, bottom = cut
    across, down, (width, height) = right - left, bottom - top, size
    if across * height > down * width:
        keep = max(down * width // height, 1), down
    else:
        keep = across, max(across * height // width, 1)
    left, top = left + (across - keep[0]) // 2, top + (down - keep[1]) // 2
    return View((left, top, left + keep[0], top + keep[1]), size, 0, 0, size)


def padded(
    cut: tuple[int, int, int, int],
    size: tuple[int, int],
    background: tuple[int, int, int] = (255, 255, 255),
) -> View:
    """All of a cut, as large as it fits, in the middle of a background; its aspect is kept."""
    across, down, (width, height) = cut[2] - cut[0], cut[3] - cut[1], size
    if across * height > down * width:
        scaled = width, max(round(down * width / across), 1)
    else:
        scaled = max(round(across * height / down), 1), height
    left, top = ((n - m) // 2 for n, m in zip(scaled, size, strict=True))
    return View(cut, scaled, left, top, size, background=background)


def stretched(cut: tuple[int, int, int, int], size: tuple[int, int]) -> View:
    """All of a cut; its aspect is not kept."""
    return View(cut, size, 0, 0, size)


def random(
    cut: tuple[int, int, int, int],
    size: tuple[int, int],
    chance: tuple[float, float, float],
    margin: float = MARGIN,
    crop: str = "random",
) -> View:
    """A little larger than wanted, a crop of that, perhaps mirrored.

    The side that is scarcer becomes `margin` times the wanted one, the other keeps the aspect.

    Args:
      cut: the part of the picture that is used.
      size: width and height of the crop, pixels.
      chance: numbers in [0, 1): where the crop lies across and down, and below 1/2 a mirror
        image.
      margin: 1 or more.
      crop: "random"; "random_stretched": both sides become `margin` times the wanted ones, as in
        Souza et al.; "random_op_gan": the same (margin 268 / 256), the last place of a crop is
        never taken, and boxes follow by `View.objects`' other rule.

    Source: the preparation of StackGAN, which AttnGAN, DF-GAN and GALIP share.
    """
    op_gan = crop == "random_op_gan"
    across, down = cut[2] - cut[0], cut[3] - cut[1]
    width, height = (int(n * margin) for n in size)
    # The longer side is rounded down, as torchvision does.
    if crop != "random":
        scaled = width, height
    elif across * height > down * width:
        scaled = across * height // down, height
    else:
        scaled = width, down * width // across
    room = 0 if op_gan else 1
    left, top = (int(u * (n - m + room)) for u, n, m in zip(chance, scaled, size, strict=False))
    return View(cut, scaled, left, top, size, chance[2] < 0.5, op_gan=op_gan)


def choose(
    crop: str,
    cut: tuple[int, int, int, int],
    size: tuple[int, int],
    chance: tuple[float, float, float] | None = None,
    margin: float = MARGIN,
    background: tuple[int, int, int] = (255, 255, 255),
) -> View:
    """The view that config.data.crop asks for; without `chance`, random crops are centred.

    Args:
      crop: one of `CROPS`.
      cut: the part of the picture that is used.
      size: width and height of the crop, pixels.
      chance: see `random`; None in evaluation.
      margin: see `random`.
      background: red, green and blue beside a padded picture, 0..255.
    """
    if crop == "pad":
        return padded(cut, size, background)
    if crop.startswith("zoomed"):
        return random(cut, size, MIDDLE, margin, crop.replace("zoomed", "random"))
    if crop.startswith("random") and chance is not None:
        return random(cut, size, chance, margin, crop)
    return centre(cut, size) if crop in ("centre", "random") else stretched(cut, size)


def colour(name: str) -> tuple[int, int, int]:
    """Red, green and blue, 0..255, of config.data.background.

    Raises:
      DataError: for a name that is no colour.
    """
    from PIL import ImageColor

    try:
        found = ImageColor.getrgb(name)
    except (ValueError, AttributeError):
        found = ()
    if len(found) != 3:
        raise DataError(
            f"config.data.background is {name!r}; expected a colour without transparency, by name "
            'or as "#rrggbb": "white", "black", "#808080"'
        )
    return found


def cut_away(aspects: Mapping[str, int], size: tuple[int, int]) -> str:
    """A sentence on the pictures of which the centre crop cuts much away; "" where there are none.

    Args:
      aspects: {width / height of pictures, as text: how many there are}.
      size: width and height of the crop.
    """
    shape = size[0] / size[1]
    shares = {ratio: min(float(ratio) / shape, shape / float(ratio)) for ratio in aspects}
    # Rounded aspects must not put a picture over the limit.
    lost = {r: 1 - share for r, share in shares.items() if 1 - share > LOSS_PERCENT / 100 + 0.005}
    count, total = sum(aspects[r] for r in lost), sum(aspects.values())
    if not count:
        return ""
    return (
        f"data: {count} of {total} pictures lose more than {LOSS_PERCENT} % of a side to the "
        f"centre crop, up to {max(lost.values()):.0%}; --config.data.crop=pad shows them whole, on "
        "--config.data.background"
    )


class Framing:
    """Pictures of a source to views of the configured kind, remembering small ones.

    A picture's view depends on chance only after it has been cut and resized, so that much is
    kept in memory, as long as there is room: from the second epoch on nothing is decoded.
    """

    def __init__(
        self,
        resolution: int | tuple[int, int],
        crop: str = "centre",
        resize: str = "lanczos",
        margin: float = MARGIN,
        cache_mb: float = 0,
        decode: str = "exact",
        background: str = BACKGROUND,
    ):
        """Checks the choices.

        Args:
          resolution: of what is shown, pixels: the side of squares, or (height, width).
          crop: one of `CROPS`.
          resize: a key of `RESIZE`.
          margin: see `random`.
          cache_mb: memory for resized pictures, MiB.
          decode: one of `DECODE`; "exact" alone gives Pillow's pixels.
          background: a colour by name or as "#rrggbb": behind transparent parts, and beside
            pictures that are padded.

        Raises:
          DataError: names the config line and what is known.
        """
        known_of = {"crop": (crop, CROPS), "resize": (resize, RESIZE), "decode": (decode, DECODE)}
        for field, (value, known) in known_of.items():
            if value not in known:
                raise DataError(f"config.data.{field} is {value!r}; known: {', '.join(known)}")
        if margin < 1:
            raise DataError(f"config.data.margin is {margin}; a crop needs 1 or more")
        height, width = height_and_width(resolution)
        if decode == "native" and height != width:
            raise DataError(
                f"config.data.decode='native' makes squares, and config.data.resolution is "
                f"{(height, width)}; set --config.data.decode=draft"
            )
        self.size = width, height
        self.crop, self.resize, self.margin = crop, resize, margin
        self.decode, self.background = decode, colour(background)
        self._room = cache_mb * 2**20
        self._kept: dict[Hashable, tuple[tuple[int, int], np.ndarray]] = {}
        self._lock = threading.Lock()
        self._target = threading.local()

    def aim(self, target: np.ndarray | None) -> None:
        """From now on this thread's pictures may be decoded to where they are wanted.

        What `show` returns then is the target itself, or as ever something to be copied there: only
        a JPEG that is shown pixel by pixel, and not remembered, is saved that copy.

        Args:
          target: uint8 [height, width, 3], in one piece; None: nowhere.
        """
        self._target.now = target

    @property
    def by_chance(self) -> bool:
        """Whether training sees another part of a picture every time."""
        return self.crop.startswith("random")

    def view(self, size, chance=None, box=None) -> View:
        """The view of a picture of that width and height; see `choose` and `around`."""
        cut = whole(size) if box is None else around(size, box)
        return choose(self.crop, cut, self.size, chance, self.margin, self.background)

    def show(self, key: Hashable, read: Callable, chance=None, box=None) -> tuple:
        """A picture's crop, and the view that it shows.

        Args:
          key: what the picture is remembered by.
          read: need -> (picture, size), as `images.open_rgb` does.
          chance: three numbers in [0, 1), see `random`; None shows the centre.
          box: x, y, width, height in pixels; the view is confined to its surroundings.

        Returns:
          (uint8 [height, width, 3], or `native.Encoded`, which stands for it; View).
        """
        if (kept := self._kept.get((key, chance is None))) is not None:
            view = self.view(kept[0], chance, box)
            return view.crop(kept[1]), view

        target = None if self._room > 0 else getattr(self._target, "now", None)
        seen: dict[tuple[int, int], View] = {}

        def need(size: tuple[int, int]) -> tuple[int, int] | np.ndarray | None:
            view = seen[size] = self.view(size, chance, box)
            if self.decode == "native" and view.resizes:
                return None  # TensorFlow's ops are the cheaper way there, and there alone
            if target is not None and view.is_all(size):
                return target
            return view.enough(size) if self.decode == "draft" else size

        image, size = read(need)
        view = seen.get(size) or self.view(size, chance, box)
        if image is target:
            return image, view
        if isinstance(image, bytes):
            return native.Encoded(image, view, size), view
        scaled = view.scale(image, self.resize, size)
        if self._room > 0:
            rows = np.asarray(scaled)
            with self._lock:
                self._room -= rows.nbytes
            self._kept[key, chance is None] = (size, rows)
            return view.crop(rows), view
        return view.crop(scaled), view
