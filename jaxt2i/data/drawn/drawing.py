"""Pencils for the procedural corpora: a counter-based source of chance, and shaded implicit shapes.

A drawing is not pixels but *weights*: for every pixel, how much of each palette slot is seen
there. Weights are drawn once, antialiased, and coloured as often as wanted by one small matrix
product, which is what makes a thousand different pictures a second possible.
"""

from collections.abc import Callable, Sequence

import numpy as np

# A slot is a role; the palette says which colour plays it. "shadow" is dark and belongs to no
# object: it falls on whatever is behind, and masks leave it out.
SLOTS = (
    "main",
    "dark",
    "light",
    "second",
    "second_dark",
    "third",
    "third_dark",
    "ink",
    "paper",
    "accent",
    "shadow",
)
SLOT = {name: i for i, name in enumerate(SLOTS)}
# Objects live in [-1, 1]; the margin keeps soft edges and shadows inside the drawing.
MARGIN = 1.2
# Drawings are never made smaller than this, but reduced: thin parts then lose no weight.
FINEST = 128

COLOURS = {
    "red": (212, 54, 60),
    "orange": (242, 138, 44),
    "yellow": (250, 208, 66),
    "green": (78, 162, 82),
    "teal": (40, 160, 158),
    "blue": (58, 112, 206),
    "purple": (132, 80, 180),
    "pink": (244, 140, 176),
    "brown": (140, 92, 58),
    "black": (46, 46, 56),
    "gray": (142, 148, 158),
    "white": (246, 244, 238),
}


def smooth(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """Cubic step from 0 at `low` to 1 at `high`, flat at both ends."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


class Chance:
    """A stream of uniform numbers that depends on its address only.

    Counter-based (Philox), so that any example is drawn without drawing those before it, in any
    process and order.
    """

    BLOCK = 128

    def __init__(self, seed: int, *address: int):
        """Opens the stream at `address`: up to three whole numbers >= 0 beside the seed."""
        first, second, third = (*address, 0, 0, 0)[:3]
        bits = np.random.Philox(key=[seed & (2**64 - 1), first], counter=[0, 0, second, third])
        self._draw = np.random.Generator(bits).random
        self._next = iter(()).__next__

    def unit(self) -> float:
        """The next number in [0, 1)."""
        try:
            return self._next()
        except StopIteration:
            self._next = iter(self._draw(self.BLOCK).tolist()).__next__
            return self._next()

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.unit()

    def below(self, n: int) -> int:
        """A whole number in 0..n-1."""
        return int(self.unit() * n)

    def yes(self, probability: float = 0.5) -> bool:
        """True with this probability."""
        return self.unit() < probability

    def pick(self, choices: Sequence):
        """One of `choices`, all equally likely."""
        return choices[int(self.unit() * len(choices))]

    def order(self, choices: Sequence) -> list:
        """`choices` in random order."""
        return sorted(choices, key=lambda _: self.unit())


# --- Implicit shapes: negative inside, any scale. Arguments are arrays of coordinates, y down. ---


def circle(x, y, cx, cy, r):
    """A disc, as a distance."""
    return np.hypot(x - cx, y - cy) - r


def ellipse(x, y, cx, cy, a, b, angle=0.0):
    """An ellipse with half axes a, b, turned clockwise by `angle` radians."""
    c, s = np.cos(angle), np.sin(angle)
    u, v = (x - cx) * c + (y - cy) * s, (y - cy) * c - (x - cx) * s
    return (np.hypot(u / a, v / b) - 1) * min(a, b)


def box(x, y, cx, cy, a, b, r=0.0):
    """A box with half sides a, b and corners rounded by r."""
    u, v = np.abs(x - cx) - (a - r), np.abs(y - cy) - (b - r)
    return np.hypot(np.maximum(u, 0), np.maximum(v, 0)) + np.minimum(np.maximum(u, v), 0) - r


def stroke(x, y, points, r0, r1=None):
    """A line through `points` whose half width goes from r0 to r1, with round ends."""
    r1 = r0 if r1 is None else r1
    out, n = np.inf, len(points) - 1
    for i in range(n):
        (ax, ay), (bx, by) = points[i], points[i + 1]
        dx, dy = bx - ax, by - ay
        t = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0, 1)
        r = r0 + (r1 - r0) * (i + t) / n
        out = np.minimum(out, np.hypot(x - ax - t * dx, y - ay - t * dy) - r)
    return out


def polygon(x, y, points, r=0.0):
    """A polygon, convex or not, grown by r (which rounds its corners)."""
    points = np.asarray(points, np.float32)
    nearest, inside = np.float32(np.inf), np.bool_(False)
    for (ax, ay), (bx, by) in zip(points, np.roll(points, -1, 0), strict=True):
        dx, dy = bx - ax, by - ay
        t = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0, 1)
        nearest = np.minimum(nearest, np.hypot(x - ax - t * dx, y - ay - t * dy))
        crosses = (ay > y) != (by > y)
        if dy:
            inside = inside ^ (crosses & (x < ax + (y - ay) * dx / dy))
    return np.where(inside, -nearest, nearest) - r


def blend(a, b, k):
    """Union of two shapes with a fillet of size k."""
    h = np.clip(0.5 + 0.5 * (b - a) / k, 0, 1)
    return b + (a - b) * h - k * h * (1 - h)


def petal(u, v, length, width, belly=1.0, blunt=1.0, notch=0.0):
    """One petal along +u from the origin.

    Args:
      u: coordinate along the petal.
      v: coordinate across it.
      length: from root to tip.
      width: half width at the widest place.
      belly: above 1 moves the widest place towards the tip.
      blunt: below 1 rounds the ends, above 1 makes them pointed.
      notch: depth of a notch in the tip, as a fraction of the length.
    """
    if notch:
        length = length * (1 - notch * np.exp(-((v / (0.35 * width)) ** 2)))
    t = u / length
    inner = np.clip(t, 1e-4, 1 - 1e-4)
    edge = width * np.sin(np.pi * inner**belly) ** blunt
    return np.maximum(np.abs(v) - edge, np.maximum(-u, u - length))


def spline(points, steps=6):
    """A smooth curve through `points` (Catmull-Rom), as a list of points for `stroke`."""
    p = np.asarray([points[0], *points, points[-1]], np.float32)
    t = np.linspace(0, 1, steps, endpoint=False, dtype=np.float32)[:, None]
    out = []
    for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False):
        curve = 2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2
        out += (0.5 * (curve + (3 * b - a - 3 * c + d) * t**3)).tolist()
    return [*out, points[-1]]


class Canvas:
    """Weights of every palette slot over a square, painted back to front.

    Attributes:
      x: coordinates [1, S], -span..span from left to right.
      y: coordinates [S, 1], -span..span from top to bottom.
      weights: float32 [K, S, S], K = len(SLOTS).
    """

    def __init__(self, size: int, span: float = MARGIN):
        self.pixel = 2 * span / size
        axis = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(self.pixel) - span
        self.x, self.y = axis[None, :], axis[:, None]
        self.shape = (size, size)
        self.weights = np.zeros((len(SLOTS), size, size), np.float32)

    def lay(self, cover, shares: dict, part=(slice(None), slice(None))) -> None:
        """Covers what is there by `cover` (0..1), sharing it out over slots.

        Args:
          cover: share of each pixel that is covered, over `part`.
          shares: {slot: share of the cover}, which sum to 1.
          part: rows and columns that are touched; the rest stays as it is.
        """
        weights = self.weights[:, part[0], part[1]]
        weights *= 1 - cover
        for slot, share in shares.items():
            weights[SLOT[slot]] += cover * share

    def cover(self, f, soft: float = 0.0):
        """Antialiased coverage of an implicit shape, and the depth inside its edge in pixels.

        Args:
          f: implicit function, negative inside; it needs not be a distance.
          soft: blur of the edge, in canvas units.
        """
        f = np.broadcast_to(np.asarray(f, np.float32), self.shape)
        down, right = np.gradient(f)
        depth = -f / np.maximum(np.hypot(down, right), 1e-5)
        return np.clip(depth / (1 + soft / self.pixel) + 0.5, 0, 1), depth

    def paint(self, f, slot="main", shade=0.55, rim=0.4, light=0.5, opacity=1.0, soft=0.0):
        """Paints a shape with volume: lit from the upper left, darker at its rim.

        Args:
          f: implicit function, negative inside.
          slot: where the colour goes; "main" is also shaded towards "light".
          shade: strength of the shadow side, 0..1.
          rim: darkness of the edge, 0..1.
          light: strength of the lit side, 0..1.
          opacity: of the whole shape; a number or an array.
          soft: blur of the edge, in canvas units.
        """
        cover, depth = self.cover(f, soft)
        rows, columns = np.flatnonzero(cover.any(1)), np.flatnonzero(cover.any(0))
        if not rows.size:
            return
        part = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        cover, depth = cover[part], depth[part]
        # The light falls along the part's own box, so that every part has its own volume.
        v, u = (np.linspace(-1, 1, n, dtype=np.float32) for n in cover.shape)
        slope = 0.42 * u[None, :] + 0.62 * v[:, None]
        dark = shade * smooth(-0.25, 1.0, slope)
        dark = dark + rim * np.exp(np.maximum(depth, 0) * (-self.pixel / 0.045))
        dark = np.minimum(dark, 0.95)
        glow = light * smooth(0.1, 0.9, -slope) * (1 - dark)
        if slot == "main":
            shares = {"main": 1 - dark - glow, "dark": dark, "light": glow}
        elif slot in ("second", "third"):
            shares = {slot: 1 - dark, f"{slot}_dark": dark}
        elif slot == "paper":
            shares = {"paper": 1 - 0.4 * dark, "ink": 0.4 * dark}
        else:
            shares = {slot: 1.0}
        if np.ndim(opacity):
            opacity = np.broadcast_to(opacity, self.shape)[part]
        self.lay(cover * opacity, shares, part)

    def ring(self, cx, cy, n, length, width, *, turn=0.0, jitter=None, slot="main", **shape):
        """Paints n petals around a point, each shaded against its neighbour.

        Args:
          cx: centre, across.
          cy: centre, down.
          n: number of petals.
          length: of a petal.
          width: half width of a petal; wider than its sector, petals overlap.
          turn: angle of the first petal, radians.
          jitter: relative length of each petal [n], or None.
          slot: as in `paint`.
          **shape: belly, blunt, notch of `petal`, or twist: how far petals lean (radians).
        """
        twist = shape.pop("twist", 0.0)
        dx, dy = self.x - cx, self.y - cy
        r = np.hypot(dx, dy)
        sector = (np.arctan2(dy, dx) - turn - twist * r / length) * (n / (2 * np.pi))
        number = np.round(sector)
        side = 2 * (sector - number)
        angle = side * (np.pi / n)
        if jitter is not None:
            length = length * np.asarray(jitter, np.float32)[number.astype(int) % n]
        f = petal(r * np.cos(angle), r * np.sin(angle), length, width, **shape)
        cover, depth = self.cover(f)
        # One side lies under the next petal; roots are in shadow, tips catch light.
        dark = 0.75 * smooth(0.45, 1.0, side) + 0.25 * smooth(-0.6, -1.0, side)
        dark = dark + 0.5 * smooth(0.5, 0.0, r / length)
        dark = dark + 0.35 * np.exp(np.maximum(depth, 0) * (-self.pixel / 0.03))
        dark = np.minimum(dark, 0.9)
        glow = 0.6 * smooth(0.45, 0.95, r / length) * smooth(0.5, -0.4, side) * (1 - dark)
        if slot == "main":
            shares = {"main": 1 - dark - glow, "dark": dark, "light": glow}
        else:
            shares = {slot: 1 - dark, f"{slot}_dark": dark}
        self.lay(cover, shares)

    def shadow(self, cy=1.0, width=0.75, height=0.12):
        """A soft shadow on the ground. To be drawn first."""
        f = np.hypot(self.x / width, (self.y - cy) / height)
        self.lay(0.4 * smooth(1.0, 0.25, f), {"shadow": 1.0})


def whole(weights: np.ndarray) -> np.ndarray:
    """Weights in 255ths [..., K] to uint8, so that each pixel's sum is the rounded opacity.

    What rounding down leaves over goes to the largest weight: what is opaque stays so exactly.
    """
    floor = np.floor(np.clip(weights, 0, 255))
    rest = np.round(weights.sum(-1)) - floor.sum(-1)
    most = weights.argmax(-1)[..., None]
    np.put_along_axis(floor, most, np.take_along_axis(floor, most, -1) + rest[..., None], -1)
    return np.clip(floor, 0, 255).astype(np.uint8)


def shrink(weights: np.ndarray, factor: int) -> np.ndarray:
    """A drawing at 1 / factor of its size: uint8 [S, S, K] to [S / factor, S / factor, K]."""
    n = weights.shape[0] // factor
    return whole(weights.reshape(n, factor, n, factor, -1).mean((1, 3), dtype=np.float32))


def split(weights: np.ndarray, share: np.ndarray) -> np.ndarray:
    """A drawing with a pattern: `share` (0..1, [S, S]) of "main" and its shades is "accent".

    The shades keep a part, so that the volume is seen through the pattern.
    """
    out = weights.copy()
    for slot, part in (("main", 1.0), ("light", 0.6), ("dark", 0.6)):
        given = np.round(weights[..., SLOT[slot]] * (share * part)).astype(np.uint8)
        out[..., SLOT[slot]] -= given
        out[..., SLOT["accent"]] += given
    return out


def draw(paint: Callable[[Canvas], None], size: int, span: float = MARGIN) -> np.ndarray:
    """Paints on a fine canvas and reduces it to `size`.

    Args:
      paint: puts the drawing on a canvas of any size.
      size: height and width wanted, pixels.
      span: half width of the canvas in its own units.

    Returns:
      uint8 [size, size, K]: weights in 255ths.
    """
    factor = -(-FINEST // size)
    canvas = Canvas(size * factor, span)
    paint(canvas)
    weights = canvas.weights.reshape(len(SLOTS), size, factor, size, factor).mean((2, 4))
    return whole(np.moveaxis(weights, 0, -1) * 255)


Colour = tuple[float, float, float]


def mix(a, b, share: float) -> Colour:
    """The colour `share` of the way from `a` to `b`."""
    # Plain numbers: for three of them numpy would take ten times as long.
    keep = 1 - share
    return (a[0] * keep + b[0] * share, a[1] * keep + b[1] * share, a[2] * keep + b[2] * share)


def shifted(colour, shift) -> Colour:
    """A colour moved by `shift`, RGB."""
    return tuple([min(max(c + d, 0.0), 255.0) for c, d in zip(colour, shift, strict=True)])


def shaded(colour) -> Colour:
    """The colour in the shadow: darker, and a little cooler."""
    return mix((colour[0] * 0.62, colour[1] * 0.62, colour[2] * 0.62), (36, 26, 78), 0.22)


def tones(colour) -> dict[str, Colour]:
    """A colour with its shadow and its light, as the slots "main", "dark" and "light"."""
    return {"main": colour, "dark": shaded(colour), "light": mix(colour, (255, 250, 226), 0.5)}


_FIXED = {"ink": (44, 38, 54), "paper": (252, 249, 240), "shadow": (24, 26, 52)}
_NONE = (0, 0, 0)


def palette(**slots) -> np.ndarray:
    """Colours of all slots as whole numbers in float32 [K, 4], the last column the opacity.

    Whole numbers, because then every product and sum of the colouring is exact in float32: the
    picture does not depend on how a BLAS orders the additions, or on its threads.
    """
    colours = {**_FIXED, **slots}
    rows = [(*colours.get(name, _NONE), 255) for name in SLOTS]
    return np.rint(np.array(rows, np.float32))
