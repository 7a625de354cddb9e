"""Drawings of the `scenes` corpus: seventeen things and eight backgrounds, in palette slots."""

import math

import numpy as np

from jaxt2i.data.drawn.drawing import (
    COLOURS,
    Canvas,
    Chance,
    blend,
    box,
    circle,
    ellipse,
    mix,
    palette,
    petal,
    polygon,
    shaded,
    shifted,
    smooth,
    spline,
    stroke,
    tones,
)

# Each function paints one thing inside [-1, 1]; `chance` makes the variants differ.


def _ball(c: Canvas, chance: Chance) -> None:
    c.shadow(0.93, 0.7)
    c.paint(circle(c.x, c.y, 0, 0, 0.95), shade=0.9, light=0.75)
    a = chance.between(-0.6, 0.6)
    for bend in (-0.45, 0.45):
        x = c.x * math.cos(a) + c.y * math.sin(a)
        y = c.y * math.cos(a) - c.x * math.sin(a)
        seam = np.abs(np.hypot(x - 2.6 * bend, y) - abs(1.8 * bend)) - 0.02
        c.paint(np.maximum(seam, circle(c.x, c.y, 0, 0, 0.93)), "dark", opacity=0.6)
    c.paint(ellipse(c.x, c.y, -0.4, -0.45, 0.24, 0.14, -0.7), "paper", opacity=0.7, soft=0.12)


def _balloon(c: Canvas, chance: Chance) -> None:
    sway = chance.between(-0.14, 0.14)
    string = spline([(0, 0.35), (sway, 0.55), (-sway, 0.78), (sway / 2, 0.99)])
    c.paint(stroke(c.x, c.y, string, 0.022), "ink", opacity=0.8)
    c.paint(polygon(c.x, c.y, [(0, 0.3), (-0.1, 0.46), (0.1, 0.46)], 0.01), shade=0.9)
    wide = 0.58 + 0.12 * smooth(0.5, -0.6, c.y)
    c.paint((np.hypot(c.x / wide, (c.y + 0.32) / 0.67) - 1) * 0.6, shade=0.8, light=0.8)
    c.paint(ellipse(c.x, c.y, -0.25, -0.58, 0.17, 0.1, -0.8), "paper", opacity=0.75, soft=0.08)


def _boat(c: Canvas, chance: Chance) -> None:
    lean = chance.between(-0.05, 0.05)
    c.shadow(0.95, 0.9, 0.1)
    c.paint(stroke(c.x, c.y, [(0, 0.5), (lean, -0.95)], 0.04, 0.025), "third")
    bulge = 0.1 * np.sin(np.clip((c.y + 0.8) / 1.2, 0, 1) * np.pi)
    big = [(0.07 + lean, -0.88), (0.07, 0.36), (0.78, 0.36)]
    c.paint(polygon(c.x - bulge, c.y, big, 0.01), "paper", shade=0.5)
    small = [(-0.08 + lean, -0.68), (-0.08, 0.36), (chance.between(-0.66, -0.5), 0.36)]
    c.paint(polygon(c.x + 0.7 * bulge, c.y, small, 0.01), "paper", shade=0.7)
    flag = [(lean, -0.97), (lean, -0.79), (lean + 0.26, -0.88)]
    c.paint(polygon(c.x, c.y, flag), "second")
    hull = np.maximum(0.44 - c.y + 0.1 * c.x**2, np.hypot(c.x / 0.98, (c.y - 0.42) / 0.56) - 1)
    c.paint(hull, shade=0.7)
    trim = np.abs(c.y - 0.5 + 0.1 * c.x**2) - 0.025
    c.paint(np.maximum(trim, hull + 0.02), "paper", opacity=0.85)


def _butterfly(c: Canvas, chance: Chance) -> None:
    spread = chance.between(0.9, 1.05)
    side = np.abs(c.x) / spread
    lower = ellipse(side, c.y, 0.42, 0.42, 0.36, 0.46, -0.55)
    upper = ellipse(side, c.y, 0.52, -0.35, 0.34, 0.6, 0.75)
    c.paint(lower, shade=0.8, rim=0.9)
    c.paint(upper, shade=0.35, rim=0.9)
    c.paint(ellipse(side, c.y, 0.6, -0.44, 0.13, 0.2, 0.7), "light", opacity=0.9)
    c.paint(circle(side, c.y, 0.45, 0.5, chance.between(0.1, 0.15)), "light", opacity=0.9)
    feeler = spline([(0.02, -0.4), (0.1, -0.75), (0.24, -0.93)])
    c.paint(stroke(side, c.y, feeler, 0.022), "ink")
    c.paint(circle(side, c.y, 0.25, -0.94, 0.045), "ink")
    c.paint(ellipse(c.x, c.y, 0, 0.05, 0.08, 0.55), "ink")
    c.paint(circle(c.x, c.y, 0, -0.48, 0.12), "ink")


def _car(c: Canvas, chance: Chance) -> None:
    roof, front = chance.between(-0.62, -0.5), chance.between(0.42, 0.6)
    c.shadow(0.66, 1.05, 0.14)
    cabin = [(-0.62, 0.02), (-0.42, roof), (0.22, roof), (front, 0.02)]
    cab = polygon(c.x, c.y, cabin, 0.07)
    c.paint(blend(box(c.x, c.y, 0, 0.2, 0.98, 0.3, 0.18), cab, 0.1), shade=0.75)
    glass = polygon(c.x, c.y, cabin, -0.02)
    for pane in (c.x + 0.1, -0.02 - c.x):
        c.paint(np.maximum(np.maximum(glass, pane), c.y + 0.02), "second", shade=0.8, rim=0.2)
    c.paint(box(c.x, c.y, 0, 0.24, 0.95, 0.018), "dark", opacity=0.7)
    c.paint(ellipse(c.x, c.y, 0.88, 0.12, 0.09, 0.07), "paper")
    c.paint(ellipse(c.x, c.y, -0.93, 0.12, 0.05, 0.08), "accent")
    for x in (-0.52, 0.54):
        c.paint(circle(c.x, c.y, x, 0.44, 0.26), "ink")
        c.paint(circle(c.x, c.y, x, 0.44, 0.13), "paper", shade=0.9)


def _cat(c: Canvas, chance: Chance) -> None:
    c.shadow(0.95, 0.8)
    up = chance.between(-0.1, 0.25)
    tail = spline([(0.3, 0.82), (0.72, 0.8), (0.86, 0.4), (0.74, up)])
    c.paint(stroke(c.x, c.y, tail, 0.11, 0.09), shade=0.8)
    body = blend(ellipse(c.x, c.y, 0, 0.5, 0.42, 0.5), box(c.x, c.y, 0, 0.8, 0.46, 0.18, 0.16), 0.2)
    c.paint(body, shade=0.6)
    c.paint(ellipse(c.x, c.y, 0, 0.5, 0.2, 0.3), "paper", opacity=0.8, soft=0.06)
    for x in (-0.2, 0.2):
        c.paint(ellipse(c.x, c.y, x, 0.9, 0.17, 0.1), shade=0.5)
    side = np.abs(c.x)
    c.paint(polygon(side, c.y, [(0.1, -0.7), (0.46, -0.98), (0.5, -0.4)], 0.02), shade=0.5)
    c.paint(polygon(side, c.y, [(0.22, -0.68), (0.41, -0.84), (0.43, -0.52)]), "second")
    c.paint(ellipse(c.x, c.y, 0, -0.34, 0.56, 0.45), shade=0.5)
    c.paint(ellipse(side, c.y, 0.1, -0.16, 0.15, 0.11), "paper", opacity=0.85)
    c.paint(ellipse(side, c.y, 0.23, -0.4, 0.115, 0.13), "third", rim=0.6)
    c.paint(ellipse(side, c.y, 0.23, -0.4, 0.05, 0.11), "ink")
    c.paint(circle(c.x, c.y, -0.2, -0.45, 0.03), "paper")
    c.paint(circle(c.x, c.y, 0.26, -0.45, 0.03), "paper")
    c.paint(polygon(c.x, c.y, [(-0.06, -0.24), (0.06, -0.24), (0, -0.17)], 0.015), "second")


def _cloud(c: Canvas, chance: Chance) -> None:
    f = box(c.x, c.y, 0, 0.32, 0.95, 0.22, 0.22)
    for x, y, r in ((-0.45, 0.08, 0.34), (0.08, -0.14, 0.46), (0.55, 0.12, 0.3)):
        puff = circle(c.x, c.y, x + chance.between(-0.1, 0.1), y, r * chance.between(0.88, 1.08))
        f = blend(f, puff, 0.06)
    c.paint(f, shade=0.6, rim=0.25, light=0.9, soft=0.03)


def _fish(c: Canvas, chance: Chance) -> None:
    tall = chance.between(0.42, 0.58)
    open_ = chance.between(0.42, 0.58)
    tail = [(0.45, 0), (0.97, -open_), (0.8, 0), (0.97, open_)]
    c.paint(polygon(c.x, c.y, tail, 0.02), "second", shade=0.7)
    fin = [(-0.25, -tall + 0.1), (0.12, -tall - 0.3), (0.4, -0.2)]
    c.paint(polygon(c.x, c.y, fin, 0.03), "second")
    c.paint(polygon(c.x, c.y, [(-0.1, 0.3), (0.15, tall + 0.22), (0.25, 0.25)], 0.03), "second")
    half = tall * np.sqrt(np.clip(1 - ((c.x + 0.18) / 0.8) ** 2, 0, 1))
    half = half * (1 - 0.25 * smooth(0, 0.6, c.x))
    c.paint(np.maximum(np.abs(c.y) - half, np.abs(c.x + 0.18) - 0.8), shade=0.8, light=0.7)
    gill = np.abs(np.hypot(c.x + 0.85, c.y) - 0.5) - 0.025
    c.paint(np.maximum(gill, np.abs(c.y) - 0.26), "dark", opacity=0.8)
    c.paint(ellipse(c.x, c.y, -0.02, 0.1, 0.17, 0.09, 0.3), "second", rim=0.7)
    c.paint(circle(c.x, c.y, -0.62, -0.1, 0.12), "paper", rim=0.1)
    c.paint(circle(c.x, c.y, -0.64, -0.1, 0.065), "ink")


def _flower(c: Canvas, chance: Chance) -> None:
    n, turn = 5 + chance.below(4), chance.between(0, 1)
    c.shadow(0.96, 0.5)
    c.paint(stroke(c.x, c.y, [(0, -0.3), (0.04, 0.1), (0, 0.5)], 0.045), "third")
    for sign, y in ((1, 0.36), (-1, 0.28)):
        u, v = c.x * sign * 0.75 - (c.y - y) * 0.65, c.x * sign * 0.65 + (c.y - y) * 0.75
        c.paint(petal(u, v, 0.62, 0.15, 0.9), "third")
    c.ring(0, -0.4, n, 0.58, 0.42 * math.pi / n * 1.15, turn=turn, belly=1.6, blunt=0.6)
    c.paint(circle(c.x, c.y, 0, -0.4, 0.19), "accent")
    c.paint(circle(c.x, c.y, -0.04, -0.44, 0.09), "paper", opacity=0.35, soft=0.06)
    c.paint(polygon(c.x, c.y, [(-0.4, 0.5), (0.4, 0.5), (0.28, 0.97), (-0.28, 0.97)]), "second")
    c.paint(box(c.x, c.y, 0, 0.48, 0.47, 0.08, 0.03), "second", shade=0.4)


def _house(c: Canvas, chance: Chance) -> None:
    peak, half = chance.between(-0.98, -0.8), chance.between(0.6, 0.72)
    right = 1 if chance.yes() else -1
    c.shadow(0.97, 1.05)
    c.paint(box(c.x, c.y, 0.42 * right, -0.6, 0.1, 0.34), "third")
    c.paint(box(c.x, c.y, 0, 0.4, half, 0.57), shade=0.45, rim=0.25)
    eave = np.maximum(polygon(c.x, c.y - 0.1, [(-0.9, 0), (0.9, 0), (0, peak)]), 0.05 - c.y)
    c.paint(np.maximum(eave, np.abs(c.x) - half), "dark", opacity=0.5)
    c.paint(polygon(c.x, c.y, [(-0.92, 0.04), (0.92, 0.04), (0, peak)], 0.04), "second")
    door = 0.3 * right
    c.paint(box(c.x, c.y, door, 0.64, 0.16, 0.33, 0.04), "third")
    c.paint(circle(c.x, c.y, door + 0.09, 0.66, 0.03), "paper")
    pane = box(c.x, c.y, -door, 0.44, 0.16, 0.15)
    c.paint(pane - 0.04, "third_dark")
    c.paint(pane, "paper", rim=0, shade=0.3)
    bars = np.minimum(np.abs(c.x + door), np.abs(c.y - 0.44)) - 0.02
    c.paint(np.maximum(bars, pane), "third_dark")
    c.paint(circle(c.x, c.y, 0, -0.3, 0.13), "paper", shade=0.3)


def _kite(c: Canvas, chance: Chance) -> None:
    w, sway = chance.between(0.52, 0.64), chance.between(0.12, 0.24)
    tail = spline([(0, 0.3), (sway, 0.5), (-sway, 0.72), (sway * 0.6, 0.97)])
    c.paint(stroke(c.x, c.y, tail, 0.022), "ink", opacity=0.8)
    for x, y in ((sway * 0.9, 0.52), (-sway * 0.9, 0.74)):
        bow = [
            (x - 0.15, y - 0.09),
            (x - 0.15, y + 0.09),
            (x + 0.15, y - 0.09),
            (x + 0.15, y + 0.09),
        ]
        c.paint(polygon(c.x, c.y, bow, 0.01), "second")
    points = [(0, -0.97), (w, -0.42), (0, 0.34), (-w, -0.42)]
    f = polygon(c.x, c.y, points, 0.015)
    c.paint(f, shade=0.5)
    c.paint(np.maximum(f, -c.x), "dark", opacity=0.35)
    cross = np.minimum(np.abs(c.x), np.abs(c.y + 0.42)) - 0.02
    c.paint(np.maximum(cross, f), "paper", opacity=0.9)


def _moon(c: Canvas, chance: Chance) -> None:
    bite = chance.between(0.3, 0.5)
    f = np.maximum(circle(c.x, c.y, 0, 0, 0.95), -circle(c.x, c.y, bite, -0.2, 0.8))
    c.paint(f, shade=0.5, light=0.9)
    for x, y, r in ((-0.55, 0.35, 0.1), (-0.68, -0.05, 0.07), (-0.25, 0.68, 0.07)):
        c.paint(np.maximum(circle(c.x, c.y, x, y, r), f), "dark", opacity=0.35)


def _mushroom(c: Canvas, chance: Chance) -> None:
    wide = chance.between(0.85, 0.98)
    c.shadow(0.95, 0.6)
    half = 0.2 + 0.13 * smooth(0.1, 0.9, c.y)
    stem = np.maximum(np.abs(c.x) - half, np.maximum(c.y - 0.97, -0.1 - c.y))
    c.paint(stem, "paper", shade=0.9)
    c.paint(ellipse(c.x, c.y, 0, 0.1, wide * 0.9, 0.16), "paper", shade=1, rim=1)
    f = np.maximum(np.hypot(c.x / wide, (c.y - 0.12) / chance.between(0.9, 1.05)) - 1, c.y - 0.1
                   - 0.1 * np.cos(c.x * 1.6))  # fmt: skip
    c.paint(f, shade=0.75, light=0.7)
    c.paint(ellipse(c.x, c.y, -0.36, -0.45, 0.2, 0.1, -0.6), "paper", opacity=0.5, soft=0.1)


def _star(c: Canvas, chance: Chance) -> None:
    turn = -math.pi / 2 + chance.between(-0.2, 0.2)
    depth = chance.between(0.44, 0.52)
    points = [
        (r * math.cos(turn + k * math.pi / 5), r * math.sin(turn + k * math.pi / 5))
        for k, r in enumerate([0.9, depth * 0.9] * 5)
    ]
    f = polygon(c.x, c.y, points, 0.07)
    c.paint(f, shade=0.6, light=0.7)
    sector = (np.arctan2(c.y, c.x) - turn) * (5 / np.pi)
    c.paint(f + 0.05, "dark", opacity=0.4 * (np.floor(sector) % 2))


def _sun(c: Canvas, chance: Chance) -> None:
    n, turn = 10 + 2 * chance.below(3), chance.between(0, 0.5)
    c.paint(circle(c.x, c.y, 0, 0, 0.75), "light", opacity=0.35, soft=0.35)
    c.ring(0, 0, n, 0.97, 0.22, turn=turn, belly=0.7, slot="second")
    c.paint(circle(c.x, c.y, 0, 0, 0.6), shade=0.5, light=0.9, rim=0.3)


def _tree(c: Canvas, chance: Chance) -> None:
    kind = chance.below(3)
    c.shadow(0.96, 0.6)
    trunk = 0.1 + 0.05 * smooth(0.6, 1.0, c.y)
    c.paint(np.maximum(np.abs(c.x) - trunk, np.maximum(c.y - 0.97, -c.y)), "third")
    if kind == 0:  # a fir
        for y, w in ((0.55, 0.72), (0.1, 0.58), (-0.32, 0.42)):
            c.paint(polygon(c.x, c.y, [(-w, y), (w, y), (0, y - 0.72)], 0.05), shade=0.8)
        return
    if kind == 1:
        puffs = [(-0.36, 0.08, 0.42), (0.38, 0.1, 0.4), (0, -0.45, 0.5), (0, 0, 0.45)]
    else:
        puffs = [(0, 0.02, 0.5), (0, -0.4, 0.55)]
    f = np.float32(9.0)
    for x, y, r in puffs:
        f = blend(circle(c.x, c.y, x, y, r * chance.between(0.94, 1.06)), f, 0.05)
    c.paint(f + 0.02 * np.sin(9 * c.x) * np.sin(9 * c.y + 1), shade=0.85, light=0.6)
    for _ in range(7):
        a, r = chance.between(0, 6.28), chance.between(0.1, 0.45)
        leaf = circle(c.x, c.y, r * math.cos(a), -0.2 + r * math.sin(a), 0.1)
        tint = "light" if math.sin(a) < 0.2 else "dark"
        c.paint(np.maximum(leaf, f), tint, opacity=0.4, soft=0.05)


def _umbrella(c: Canvas, chance: Chance) -> None:
    hook = spline([(0, 0.62), (0.02, 0.88), (0.15, 0.95), (0.26, 0.8)])
    c.paint(stroke(c.x, c.y, [(0, -0.9), *hook], 0.045), "third")
    c.paint(stroke(c.x, c.y, [(0, -0.97), (0, -0.7)], 0.035), "third")
    top = chance.between(-0.86, -0.78)
    lobes = np.abs(np.cos(c.x * (2.5 * np.pi / 0.98)))
    dome = np.hypot(c.x / 0.98, (c.y - 0.1) / (0.1 - top)) - 1
    f = np.maximum(dome, c.y - 0.12 + 0.14 * lobes)
    c.paint(f, shade=0.7, light=0.7)
    for k in (-0.6, -0.2, 0.2, 0.6):
        rib = np.abs(c.x - k * 0.98 * np.sqrt(np.clip((c.y - top) / (0.1 - top), 0, 1))) - 0.014
        c.paint(np.maximum(rib, f), "dark", opacity=0.75)


THINGS = {
    f.__name__[1:]: f
    for f in (
        _ball,
        _balloon,
        _boat,
        _butterfly,
        _car,
        _cat,
        _cloud,
        _fish,
        _flower,
        _house,
        _kite,
        _moon,
        _mushroom,
        _star,
        _sun,
        _tree,
        _umbrella,
    )
}


# --- Textures: how much of the second colour is seen, over the thing's own square. ---


def pattern(name: str, c: Canvas, chance: Chance) -> np.ndarray:
    """Share [S, S] of the accent colour for "striped", "dotted" or "checked"."""
    a = chance.pick((0.0, 0.5 * math.pi, 0.6, -0.6))
    u, v = c.x * math.cos(a) + c.y * math.sin(a), c.y * math.cos(a) - c.x * math.sin(a)
    u, v = u + chance.between(0, 0.4), v + chance.between(0, 0.4)
    edge = 0.5 / c.pixel
    wave_u, wave_v = np.sin(u * 9) / 9, np.sin(v * 9) / 9
    if name == "striped":
        return np.clip(0.5 + wave_u * edge * 2, 0, 1)
    if name == "checked":
        return np.clip(0.5 + wave_u * wave_v * 9 * edge * 2, 0, 1)
    row = np.floor(v / 0.42)
    du = (u / 0.42 + 0.5 * (row % 2)) % 1 - 0.5
    dv = (v / 0.42) % 1 - 0.5
    return np.clip(0.5 + (0.29 - np.hypot(du, dv)) * 0.42 * edge * 2, 0, 1)


# --- Backgrounds, on [-1, 1] squared. `level` is where the ground begins, as y. ---


def _sky(c: Canvas, level: float) -> None:
    share = smooth(-1.0, level + 0.1, c.y + 0 * c.x)
    c.lay(1.0, {"main": 1 - share, "light": share})


def _hill(c: Canvas, chance: Chance, level: float, height: float, slot: str, opacity=1.0) -> None:
    f = level - c.y
    for k in (1.3, 2.6, 4.4):
        f = f - height / k * np.sin(k * c.x + chance.between(0, 6.28))
    c.paint(f, slot, rim=0.0, light=0.3, shade=0.6, opacity=opacity)


def _puffs(c: Canvas, chance: Chance, level: float, n: int) -> None:
    for _ in range(n):
        x, y = chance.between(-0.9, 0.9), chance.between(-0.9, level - 0.35)
        f = ellipse(c.x, c.y, x, y, chance.between(0.25, 0.45), 0.05)
        c.paint(f, "paper", opacity=0.45, soft=0.12, shade=0, rim=0)


def _meadow(c: Canvas, chance: Chance, level: float) -> None:
    _sky(c, level)
    _puffs(c, chance, level, 3)
    _hill(c, chance, level - 0.12, 0.12, "third")
    _hill(c, chance, level, 0.05, "second")
    for _ in range(26):
        x, y = chance.between(-1, 1), 1 - (1 - level) * chance.unit() ** 1.5 * 0.9
        blades = stroke(
            c.x, c.y, [(x, y), (x + chance.between(-0.03, 0.03), y - 0.07)], 0.012, 0.004
        )
        c.paint(blades, "second_dark", opacity=0.6)


def _beach(c: Canvas, chance: Chance, level: float) -> None:
    _sky(c, level - 0.3)
    _puffs(c, chance, level - 0.3, 3)
    c.paint(level - 0.22 - c.y + 0 * c.x, "third", rim=0, shade=0.7)
    shore = level + 0.05 * np.sin(3 * c.x + chance.between(0, 6)) - c.y
    c.paint(shore - 0.05, "paper", opacity=0.8, soft=0.03, rim=0, shade=0)
    c.paint(shore, "second", rim=0.1, shade=0.5)
    for _ in range(14):
        x, y = chance.between(-1, 1), chance.between(level + 0.12, 0.98)
        c.paint(ellipse(c.x, c.y, x, y, 0.03, 0.014), "second_dark", opacity=0.6)


def _night(c: Canvas, chance: Chance, level: float) -> None:
    _sky(c, level)
    for _ in range(32):
        x, y, r = (
            chance.between(-1, 1),
            chance.between(-1, level - 0.1),
            chance.between(0.008, 0.02),
        )
        c.paint(circle(c.x, c.y, x, y, r), "paper", opacity=chance.between(0.5, 1), rim=0, shade=0)
    _hill(c, chance, level - 0.1, 0.14, "third")
    _hill(c, chance, level, 0.05, "second")


def _snow(c: Canvas, chance: Chance, level: float) -> None:
    _sky(c, level)
    _hill(c, chance, level - 0.15, 0.16, "third")
    _hill(c, chance, level, 0.06, "second")
    for _ in range(40):
        x, y, r = chance.between(-1, 1), chance.between(-1, 1), chance.between(0.01, 0.024)
        c.paint(circle(c.x, c.y, x, y, r), "paper", opacity=0.85, rim=0, shade=0)


def _desert(c: Canvas, chance: Chance, level: float) -> None:
    _sky(c, level)
    _hill(c, chance, level - 0.1, 0.2, "third")
    _hill(c, chance, level, 0.06, "second")
    for k in range(4):
        y = level + 0.12 + 0.2 * k
        ridge = np.abs(c.y - y - 0.04 * np.sin(3 * c.x + chance.between(0, 6))) - 0.012
        c.paint(ridge, "second_dark", opacity=0.35, soft=0.03)


def _sea(c: Canvas, chance: Chance, level: float) -> None:
    _sky(c, level)
    _puffs(c, chance, level, 4)
    c.paint(level - c.y + 0 * c.x, "third", rim=0, shade=0.9)
    for _ in range(22):
        t = chance.unit()
        x, y, w = chance.between(-1, 1), level + 0.05 + (0.95 - level) * t, 0.06 + 0.12 * t
        wave = stroke(
            c.x, c.y, [(x - w, y), (x - w / 2, y - 0.02), (x, y), (x + w, y - 0.01)], 0.01
        )
        c.paint(wave, "paper", opacity=0.2 + 0.35 * t, rim=0, shade=0)


def _room(c: Canvas, chance: Chance, level: float) -> None:
    c.lay(1.0, {"main": np.ones(c.shape, np.float32)})
    share = 0.5 * smooth(-1, 1, c.x + c.y)
    c.lay(0.6, {"main": 1 - share, "dark": share})
    paper = np.abs((c.x / 0.25) % 1 - 0.5) * 0.25 - 0.03
    c.paint(paper, "light", opacity=0.35)
    c.paint(level - c.y + 0 * c.x, "second", rim=0, shade=0.6)
    for k in range(-6, 7):
        seam = np.abs(c.x - 0.28 * k * (1 + 0.8 * (c.y - level))) - 0.008
        c.paint(np.maximum(seam, level - c.y), "second_dark", opacity=0.6)
    c.paint(np.abs(c.y - level) - 0.045 + 0 * c.x, "paper", shade=0.4, rim=0.3)


def _plain(c: Canvas, chance: Chance, level: float) -> None:
    a = chance.between(0, 6.28)
    share = smooth(-1.3, 1.3, math.cos(a) * c.x + math.sin(a) * c.y)
    c.lay(1.0, {"light": 0.7 * (1 - share), "main": 0.3 + 0.7 * share})
    f = np.hypot(c.x, c.y)
    c.lay(0.45 * smooth(0.7, 1.6, f), {"dark": 1.0})


GROUNDS = {
    f.__name__[1:]: f
    for f in (
        _meadow,
        _beach,
        _night,
        _snow,
        _desert,
        _sea,
        _room,
        _plain,
    )
}


# --- Colours ---

# Sky top, sky bottom, ground, far ground or water; each with a shadow.
_GROUND_COLOURS = {
    "meadow": ((96, 166, 232), (212, 234, 246), (146, 200, 96), (116, 176, 122)),
    "beach": ((90, 176, 230), (228, 241, 240), (244, 220, 166), (54, 156, 192)),
    "night": ((20, 26, 70), (78, 74, 140), (50, 82, 84), (44, 54, 100)),
    "snow": ((150, 188, 222), (232, 238, 246), (246, 249, 253), (204, 220, 238)),
    "desert": ((244, 160, 108), (254, 226, 174), (238, 186, 118), (222, 148, 98)),
    "sea": ((108, 184, 236), (236, 243, 244), (60, 130, 180), (42, 128, 178)),
    "room": ((238, 216, 196), (250, 238, 224), (190, 138, 94), (150, 100, 66)),
}
_ROOFS = ((176, 88, 66), (120, 84, 70), (92, 98, 116))
# Second and third colours of things, where the caption does not speak of them.
_SECOND = {
    "car": (178, 212, 230),
    "cat": (240, 160, 170),
    "flower": (198, 106, 74),
}
_THIRD = {"cat": (150, 190, 80), "flower": (88, 154, 78)}
_WOOD = (132, 92, 62)


def background_palette(facts: dict) -> np.ndarray:
    """Colours of a layout's background, with its own light."""
    glow, warm = facts["shade"][:2]
    shift = (8 * glow + 7 * warm, 8 * glow, 8 * glow - 7 * warm)
    if facts["background"] == "plain":
        base = mix(COLOURS[facts["background_colour"]], (255, 255, 255), 0.12)
        return palette(**tones(shifted(base, shift)))
    high, low, ground, far = (shifted(c, shift) for c in _GROUND_COLOURS[facts["background"]])
    cool = (60, 70, 120)
    return palette(
        main=high, light=low, dark=mix(high, cool, 0.25),
        second=ground, second_dark=mix(ground, cool, 0.32),
        third=far, third_dark=mix(far, cool, 0.35),
    )  # fmt: skip


def object_palette(thing: dict) -> np.ndarray:
    """Colours of one thing of a layout."""
    own = tones(shifted(COLOURS[thing["colour"]], thing["shift"]))
    name, accent = thing["class"], COLOURS[thing["accent"]]
    if name == "house":
        second = _ROOFS[thing["variant"] % 3]
    elif name == "fish":
        second = mix(own["dark"], own["main"], 0.4)
    elif name == "sun":
        second = mix(own["main"], (246, 140, 40), 0.5)
    else:
        second = _SECOND.get(name, accent)
    third = _THIRD.get(name, _WOOD)
    return palette(
        **own, accent=(252, 206, 84) if name == "flower" else accent,
        second=second, second_dark=shaded(second), third=third, third_dark=shaded(third),
    )  # fmt: skip


def paint_background(c: Canvas, name: str, level: float, chance: Chance) -> None:
    """Paints a variant of a background whose ground begins at `level`, a fraction of the height."""
    GROUNDS[name](c, chance, 2 * level - 1)
