"""Drawings of the `blooms` corpus: flowers and birds told apart by shape, in palette slots."""

import math

import numpy as np

from jaxt2i.data.drawn.drawing import (
    COLOURS,
    Canvas,
    Chance,
    blend,
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

TAU = 2 * math.pi


def _leaf(c: Canvas, x, y, angle, length, width) -> None:
    """One leaf with its middle rib, in the third colour."""
    u = (c.x - x) * math.cos(angle) + (c.y - y) * math.sin(angle)
    v = (c.y - y) * math.cos(angle) - (c.x - x) * math.sin(angle)
    c.paint(petal(u, v, length, width, 0.85, 1.0), "third", shade=0.7)
    c.paint(np.maximum(np.abs(v) - 0.012, np.abs(u - 0.45 * length) - 0.42 * length),
            "third_dark", opacity=0.8)  # fmt: skip


def _leaves(c: Canvas, chance: Chance) -> None:
    """Leaves that look out from behind a flower head."""
    turn = chance.between(0, TAU)
    for k in range(3):
        angle = turn + k * TAU / 3 + chance.between(-0.3, 0.3)
        _leaf(c, 0, 0, angle, 1.12, 0.32)


def _stem(c: Canvas, chance: Chance, top: float, leaves: float = 0.75) -> None:
    bend = chance.between(-0.08, 0.08)
    c.paint(stroke(c.x, c.y, spline([(0, top), (bend, 0.4), (0, 0.98)]), 0.045), "third")
    for sign in (-1, 1):
        angle = -math.pi / 2 + sign * chance.between(0.45, 0.75)
        _leaf(c, 0, 0.95, angle, leaves * chance.between(0.9, 1.1), 0.15)


def _centre(c: Canvas, r: float, seeds: int = 0) -> None:
    """A domed centre in the second colour, with rings of seeds."""
    c.paint(circle(c.x, c.y, 0, 0, r), "second", shade=0.8, rim=0.6)
    for k in range(seeds):
        # The golden angle packs seeds as sunflowers do.
        a, d = k * 2.39996, r * 0.9 * math.sqrt((k + 0.5) / seeds)
        dot = circle(c.x, c.y, d * math.cos(a), d * math.sin(a), 0.32 * r / math.sqrt(seeds))
        c.paint(dot, "second_dark", opacity=0.8)


def _jitter(chance: Chance, n: int, low=0.9) -> list[float]:
    return [chance.between(low, 1.0) for _ in range(n)]


# --- Flowers seen from the front ---


def _daisy(c: Canvas, chance: Chance) -> None:
    n = 13 + chance.below(5)
    turn, long = chance.between(0, 1), 0.95
    c.ring(0, 0, n, long, 2.0 / n, turn=turn, jitter=_jitter(chance, n), belly=1.5, blunt=0.5)
    _centre(c, chance.between(0.25, 0.32), 24)


def _sunflower(c: Canvas, chance: Chance) -> None:
    n = 17 + chance.below(5)
    turn = chance.between(0, 1)
    for k, long in enumerate((0.98, 0.84)):
        c.ring(0, 0, n, long, 3.0 / n, turn=turn + k * math.pi / n,
               jitter=_jitter(chance, n, 0.92), blunt=1.1)  # fmt: skip
    _centre(c, chance.between(0.46, 0.54), 60)


def _dahlia(c: Canvas, chance: Chance) -> None:
    n, turn = 13 + chance.below(3), chance.between(0, 1)
    for k in range(6):
        long = 0.96 - 0.155 * k
        c.ring(0, 0, n - k, long, 2.4 * long / (n - k), turn=turn + 0.5 * k, belly=1.5, blunt=0.8)
    c.paint(circle(c.x, c.y, 0, 0, 0.09), "second")


def _rose(c: Canvas, chance: Chance) -> None:
    turn = chance.between(0, TAU)
    for n, out, size in ((6, 0.52, 0.44), (5, 0.36, 0.38), (4, 0.22, 0.31), (3, 0.11, 0.23)):
        turn += 0.6
        for k in range(n):
            a = turn + k * TAU / n
            x, y = out * math.cos(a), out * math.sin(a)
            c.paint(ellipse(c.x, c.y, x, y, size * 0.9, size * chance.between(1.0, 1.1), a),
                    shade=0.6, rim=0.85, light=0.6)  # fmt: skip
    r, a = np.hypot(c.x, c.y), np.arctan2(c.y, c.x)
    spiral = np.abs((r / 0.1 - a / TAU + turn) % 1 - 0.5) * 0.1 - 0.018
    c.paint(circle(c.x, c.y, 0, 0, 0.22), rim=0.7)
    c.paint(np.maximum(spiral, r - 0.2), "dark")


def _lily(c: Canvas, chance: Chance) -> None:
    turn = chance.between(0, 1)
    c.ring(0, 0, 3, 0.97, 0.3, turn=turn, belly=0.95, blunt=0.9)
    c.ring(0, 0, 3, 0.97, 0.33, turn=turn + math.pi / 3, belly=0.9, blunt=0.9)
    sector = (np.arctan2(c.y, c.x) - turn) * (6 / TAU)
    side = np.abs(sector - np.round(sector)) * TAU / 6 * np.hypot(c.x, c.y)
    c.paint(np.maximum(side - 0.02, np.hypot(c.x, c.y) - 0.75), "light", opacity=0.8)
    for k in range(6):
        a = turn + (k + 0.5) * TAU / 6 + chance.between(-0.15, 0.15)
        x, y = 0.42 * math.cos(a), 0.42 * math.sin(a)
        c.paint(stroke(c.x, c.y, [(0, 0), (x, y)], 0.02), "second")
        c.paint(ellipse(c.x, c.y, x, y, 0.075, 0.045, a + 1.5), "second", rim=0.8)
    c.paint(circle(c.x, c.y, 0, 0, 0.07), "second")


def _poppy(c: Canvas, chance: Chance) -> None:
    turn = chance.between(0, TAU)
    for k in (0, 2, 1, 3):
        a = turn + k * TAU / 4
        f = ellipse(c.x, c.y, 0.4 * math.cos(a), 0.4 * math.sin(a), 0.52, 0.66, a)
        c.paint(f, shade=0.6, rim=0.8, light=0.7)
    r, a = np.hypot(c.x, c.y), np.arctan2(c.y, c.x)
    c.paint(r - 0.36 - 0.05 * np.cos(4 * (a - turn)), "ink", opacity=0.85, soft=0.1)
    for k in range(16):
        x, y = 0.28 * math.cos(k * TAU / 16), 0.28 * math.sin(k * TAU / 16)
        c.paint(circle(c.x, c.y, x, y, 0.032), "second")
    _centre(c, 0.18, 8)


def _pansy(c: Canvas, chance: Chance) -> None:
    wide = chance.between(0.42, 0.48)
    for x, y, a, b, turn in ((-0.32, -0.5, wide, 0.46, 0.3), (0.32, -0.5, wide, 0.46, -0.3)):
        c.paint(ellipse(c.x, c.y, x, y, a, b, turn), shade=0.9, rim=0.6)
    for x in (-0.5, 0.5):
        c.paint(ellipse(c.x, c.y, x, 0.0, 0.47, 0.42), shade=0.5, rim=0.6)
    lower = ellipse(c.x, c.y, 0, 0.46, 0.6, 0.5)
    c.paint(lower, shade=0.45, rim=0.6)
    r, a = np.hypot(c.x, c.y), np.arctan2(c.y, c.x)
    whiskers = 0.32 + 0.1 * np.cos(13 * a)
    mask = np.maximum(r - whiskers, -0.12 - c.y)
    c.paint(mask, "ink", opacity=0.88, soft=0.05)
    c.paint(circle(c.x, c.y, 0, 0.02, 0.12), "second")


def _cosmos(c: Canvas, chance: Chance) -> None:
    turn = chance.between(0, 1)
    c.ring(0, 0, 8, 0.95, 0.36, turn=turn, jitter=_jitter(chance, 8, 0.94), belly=2.0, blunt=0.42,
           notch=chance.between(0.08, 0.14))  # fmt: skip
    a = (np.arctan2(c.y, c.x) - turn) * (8 / TAU)
    r = np.hypot(c.x, c.y)
    for k in (-0.16, 0.16):
        line = np.abs(a - np.round(a) - k) * r - 0.012
        c.paint(np.maximum(line, np.abs(r - 0.52) - 0.26), "dark", opacity=0.5)
    _centre(c, 0.19, 14)


def _pinwheel(c: Canvas, chance: Chance) -> None:
    turn, twist = chance.between(0, TAU), chance.between(0.75, 1.0)
    c.ring(0, 0, 5, 0.97, 0.5, turn=turn, belly=1.9, blunt=0.75, twist=twist)
    c.ring(0, 0, 5, 0.3, 0.1, turn=turn, slot="second", twist=twist)
    c.paint(circle(c.x, c.y, 0, 0, 0.07), "second")


def _primrose(c: Canvas, chance: Chance) -> None:
    turn, notch = chance.between(0, TAU), chance.between(0.2, 0.28)
    c.ring(0, 0, 5, 0.98, 0.6, turn=turn, belly=1.7, blunt=0.45, notch=notch)
    c.ring(0, 0, 5, 0.42, 0.2, turn=turn, slot="second", belly=1.2)
    c.paint(circle(c.x, c.y, 0, 0, 0.08), "third")


def _starflower(c: Canvas, chance: Chance) -> None:
    turn, wide = chance.between(0, TAU), chance.between(0.3, 0.38)
    c.ring(0, 0, 5, 0.98, wide, turn=turn, belly=0.62, blunt=1.15)
    for k in range(5):
        a = turn + (k + 0.5) * TAU / 5
        c.paint(stroke(c.x, c.y, [(0, 0), (0.3 * math.cos(a), 0.3 * math.sin(a))], 0.022), "second")
        c.paint(circle(c.x, c.y, 0.3 * math.cos(a), 0.3 * math.sin(a), 0.045), "second")
    _centre(c, 0.13)


def _hydrangea(c: Canvas, chance: Chance) -> None:
    c.paint(circle(c.x, c.y, 0, 0, 0.86), "dark")
    for k in range(26):
        a, d = k * 2.39996 + chance.between(-0.2, 0.2), 0.78 * math.sqrt((25.5 - k) / 26)
        x, y = d * math.cos(a), d * math.sin(a)
        c.ring(x, y, 4, 0.24, 0.14, turn=chance.between(0, 1.5), belly=1.3, blunt=0.5)
        c.paint(circle(c.x, c.y, x, y, 0.038), "second")


def _orchid(c: Canvas, chance: Chance) -> None:
    turn = chance.between(-0.08, 0.08) - math.pi / 2
    c.ring(0, 0, 3, 0.97, 0.26, turn=turn, belly=1.0, blunt=0.75)
    for sign in (-1, 1):
        a = math.pi / 2 - sign * (math.pi / 2 + chance.between(0.12, 0.25))
        u, v = c.x * math.cos(a) + c.y * math.sin(a), c.y * math.cos(a) - c.x * math.sin(a)
        c.paint(petal(u, v, 0.95, 0.46, 1.25, 0.5), shade=0.5, rim=0.6)
        c.paint(np.maximum(np.abs(v) - 0.014, np.abs(u - 0.4) - 0.3), "dark", opacity=0.5)
    lip = blend(ellipse(c.x, c.y, 0, 0.26, 0.17, 0.2), ellipse(c.x, c.y, 0, 0.48, 0.28, 0.16), 0.1)
    c.paint(lip, "second", shade=0.8, rim=0.8)
    for x, y in ((-0.1, 0.44), (0.1, 0.44), (0, 0.3)):
        c.paint(circle(c.x, c.y, x, y, 0.035), "second_dark")
    c.paint(ellipse(c.x, c.y, 0, 0.04, 0.1, 0.12), "paper", rim=0.6)


# --- Flowers seen from the side, on their stem ---


def _tulip(c: Canvas, chance: Chance) -> None:
    _stem(c, chance, 0, 0.95)
    half = chance.between(0.36, 0.42)
    for sign in (-1, 1):
        a = -math.pi / 2 + sign * 0.2
        u = c.x * math.cos(a) + (c.y - 0.1) * math.sin(a)
        v = (c.y - 0.1) * math.cos(a) - c.x * math.sin(a)
        c.paint(petal(u, v - sign * 0.1, 1.08, half * 0.72, 0.85, 0.6), shade=0.75, rim=0.5)
    c.paint(petal(0.14 - c.y, c.x, 1.0, half * 0.85, 0.8, 0.6), shade=0.5, rim=0.7)


def _bellflower(c: Canvas, chance: Chance) -> None:
    tip = chance.between(0.3, 0.5)
    stem = spline([(-0.2, 0.98), (-0.3, 0.2), (-0.2, -0.6), (0.1, -0.92), (tip, -0.8)])
    c.paint(stroke(c.x, c.y, stem, 0.04, 0.025), "third")
    _leaf(c, -0.25, 0.85, -2.2, 0.6, 0.14)
    _leaf(c, -0.25, 0.7, -0.5, 0.6, 0.14)
    for x, y, s in ((-0.62, -0.2, 0.8), (-0.02, -0.62, 0.9), (0.5, -0.74, 1.0)):
        y = y + chance.between(-0.05, 0.05)
        joint = spline([(x, y), (x * 0.7 - 0.05, y - 0.12), (-0.22, y - 0.02)])
        if x < 0.4:
            c.paint(stroke(c.x, c.y, joint, 0.02), "third")
        u, v = (c.y - y) / s, (c.x - x) / s
        half = 0.14 + 0.12 * smooth(0, 0.25, u) + 0.17 * smooth(0.35, 0.72, u)
        half = half * np.sqrt(np.clip(u / 0.12, 0.01, 1))
        hem = 0.66 + 0.06 * np.cos(v * 15)
        c.paint(np.maximum(np.abs(v) - half, np.maximum(u - hem, -u)), shade=0.8, light=0.8)
        c.paint(ellipse(v, u, 0, 0.01, 0.13, 0.07), "third")
        c.paint(ellipse(v, u, 0, 0.74, 0.05, 0.09), "second")


def _thistle(c: Canvas, chance: Chance) -> None:
    _stem(c, chance, 0, 0.9)
    n = 13 + 2 * chance.below(3)
    for row, long in ((0, 1.0), (1, 0.82)):
        for k in range(n - row):
            a = -math.pi / 2 + ((k + 0.5 * row) / (n - 1) - 0.5) * 1.9
            tip = (long * 0.98 * math.cos(a) * 0.8, 0.05 + long * math.sin(a))
            line = stroke(c.x, c.y, [(0, 0.1), tip], 0.05, 0.035)
            c.paint(line, "dark" if (k + row) % 3 == 0 else "main" if row else "light")
    f = ellipse(c.x, c.y, 0, 0.12, 0.36, 0.34)
    c.paint(f, "third", shade=0.9, rim=0.7)
    net = np.minimum(np.abs((c.x + c.y) % 0.16 - 0.08), np.abs((c.x - c.y) % 0.16 - 0.08)) - 0.014
    c.paint(np.maximum(net, f), "third_dark", opacity=0.8)


def _lotus(c: Canvas, chance: Chance) -> None:
    c.paint(ellipse(c.x, c.y, 0, 0.66, 0.98, 0.2), "third", shade=0.8)
    c.paint(ellipse(c.x, c.y, 0, 0.6, 0.5, 0.08), "third_dark", opacity=0.6, soft=0.1)
    rise = chance.between(0.95, 1.1)
    for spread, long, wide in ((1.25, 0.95, 0.2), (0.85, 1.05, 0.22), (0.42, 1.12, 0.24)):
        for sign in (-1, 1):
            a = -math.pi / 2 + sign * spread
            u = c.x * math.cos(a) + (c.y - 0.6) * math.sin(a)
            v = (c.y - 0.6) * math.cos(a) - c.x * math.sin(a)
            bow = v + sign * 0.16 * np.sin(np.clip(u / long, 0, 1) * np.pi)
            c.paint(petal(u, bow, long * rise, wide, 1.0, 0.85), shade=0.5, rim=0.7)
    c.paint(petal(0.6 - c.y, c.x, 1.12 * rise, 0.27, 0.95, 0.8), shade=0.4, rim=0.7)
    for sign in (-1, 1):
        a = -math.pi / 2 + sign * 0.62
        u = c.x * math.cos(a) + (c.y - 0.64) * math.sin(a)
        v = (c.y - 0.64) * math.cos(a) - c.x * math.sin(a)
        c.paint(petal(u, v + sign * 0.08, 0.72, 0.2, 1.0, 0.8), shade=0.3, rim=0.7, light=0.9)


def _lavender(c: Canvas, chance: Chance) -> None:
    for x, top, lean in ((-0.42, -0.7, -0.1), (0.42, -0.62, 0.1), (0.0, -0.95, 0.0)):
        top = top + chance.between(-0.05, 0.05)
        foot = (x * 0.25, 0.98)
        c.paint(stroke(c.x, c.y, spline([(x + lean, top), (x, 0.2), foot]), 0.028), "third")
        for k in range(7):
            y = top + 0.12 * k + 0.05
            cx = x + lean * (1 - k / 7)
            size = 0.07 + 0.05 * math.sin(math.pi * (k + 1) / 8)
            for side in (-1, 1, 0):
                bud = ellipse(c.x, c.y, cx + side * size * 1.2, y - 0.03 * (side == 0), size,
                              size * 0.75, -0.5 * side)  # fmt: skip
                c.paint(bud, shade=0.8, rim=0.5)
    for sign in (-1, 1):
        _leaf(c, 0, 0.95, -math.pi / 2 + sign * 0.6, 0.55, 0.07)


# --- Birds: body main, wing second, belly accent, beak and legs third ---


def _eye(c: Canvas, x: float, y: float, r: float) -> None:
    c.paint(circle(c.x, c.y, x, y, r * 1.3), "paper")
    c.paint(circle(c.x, c.y, x, y, r), "ink")
    c.paint(circle(c.x, c.y, x - 0.3 * r, y - 0.35 * r, 0.32 * r), "paper")


def _belly(c: Canvas, f, body) -> None:
    c.paint(np.maximum(f, body + 0.02), "accent", soft=0.06)
    c.paint(np.maximum(f, body + 0.02), "dark", opacity=0.28 * smooth(-0.2, 0.7, c.y), soft=0.06)


def _branch(c: Canvas, chance: Chance, y: float) -> None:
    tilt = chance.between(-0.08, 0.08)
    line = spline([(-1.0, y + tilt), (-0.3, y - 0.02), (0.4, y + 0.02), (1.0, y - tilt)])
    c.paint(stroke(c.x, c.y, line, 0.075, 0.05), "third_dark")
    c.paint(stroke(c.x, c.y - 0.03, line, 0.02), "ink", opacity=0.3)


def _wing(c: Canvas, x, y, length, width, angle, feathers=3) -> None:
    u = (c.x - x) * math.cos(angle) + (c.y - y) * math.sin(angle)
    v = (c.y - y) * math.cos(angle) - (c.x - x) * math.sin(angle)
    f = petal(u, v, length, width, 0.7, 0.7)
    c.paint(f, "second", shade=0.7, rim=0.6)
    for k in range(feathers):
        curve = np.abs(v + width * (0.75 - 0.55 * k) * np.sin(np.clip(u / length, 0, 1) * 2.6))
        c.paint(np.maximum(curve - 0.016, f + 0.03), "second_dark", opacity=0.8)


def _finch(c: Canvas, chance: Chance) -> None:
    fat = chance.between(0.92, 1.08)
    _branch(c, chance, 0.84)
    c.paint(stroke(c.x, c.y, [(-0.4, 0.3), (-0.92, 0.66)], 0.11, 0.09), "second")
    body = blend(ellipse(c.x, c.y, -0.02, 0.2, 0.62 * fat, 0.52, 0.5),
                 circle(c.x, c.y, 0.3, -0.36, 0.4), 0.2)  # fmt: skip
    c.paint(polygon(c.x, c.y, [(0.62, -0.5), (0.98, -0.32), (0.62, -0.16)], 0.02), "third")
    c.paint(body, shade=0.6)
    _belly(c, ellipse(c.x, c.y, 0.28, 0.34, 0.36, 0.46, 0.3), body)
    _wing(c, 0.2, 0.0, 0.98, 0.26, 2.55)
    _eye(c, 0.44, -0.44, 0.08)
    for x in (0.0, 0.2):
        c.paint(stroke(c.x, c.y, [(x, 0.62), (x + 0.03, 0.82)], 0.03), "third")


def _owl(c: Canvas, chance: Chance) -> None:
    _branch(c, chance, 0.86)
    side = np.abs(c.x)
    body = blend(ellipse(c.x, c.y, 0, 0.18, 0.6, 0.72), ellipse(c.x, c.y, 0, -0.45, 0.6, 0.4), 0.2)
    tuft = chance.between(-0.98, -0.9)
    c.paint(polygon(side, c.y, [(0.2, -0.78), (0.56, tuft), (0.58, -0.4)], 0.02), shade=0.7)
    c.paint(body, shade=0.6)
    _belly(c, ellipse(c.x, c.y, 0, 0.36, 0.36, 0.46), body)
    for row in range(3):
        waves = np.abs(c.y - 0.2 - 0.17 * row + 0.05 * np.cos(c.x * 26)) - 0.015
        c.paint(np.maximum(waves, ellipse(c.x, c.y, 0, 0.36, 0.32, 0.4)), "dark", opacity=0.45)
    wing = ellipse(side, c.y, 0.56, 0.22, 0.17, 0.52, -0.12)
    c.paint(wing, "second", shade=0.7, rim=0.7)
    c.paint(circle(side, c.y, 0.27, -0.44, 0.29), "light")
    c.paint(circle(side, c.y, 0.27, -0.44, 0.23), "paper", rim=0.7)
    c.paint(circle(side, c.y, 0.25, -0.43, 0.14), "ink")
    for x in (-0.3, 0.2):
        c.paint(circle(c.x, c.y, x, -0.49, 0.05), "paper")
    c.paint(polygon(c.x, c.y, [(-0.09, -0.32), (0.09, -0.32), (0, -0.1)], 0.02), "third")
    for x in (-0.22, 0.22):
        c.paint(ellipse(c.x, c.y, x, 0.85, 0.14, 0.08), "third")


def _toucan(c: Canvas, chance: Chance) -> None:
    _branch(c, chance, 0.8)
    c.paint(stroke(c.x, c.y, [(-0.45, 0.45), (-0.72, 0.95)], 0.14, 0.12), "second")
    body = blend(ellipse(c.x, c.y, -0.22, 0.22, 0.42, 0.62, 0.35),
                 circle(c.x, c.y, -0.08, -0.48, 0.34), 0.25)  # fmt: skip
    c.paint(body, shade=0.6)
    _belly(c, ellipse(c.x, c.y, 0.06, -0.2, 0.26, 0.42), body)
    drop = chance.between(0.3, 0.42)
    bend = c.y + 0.52 - drop * np.clip(c.x / 0.95, 0, 1.2) ** 2.2
    half = 0.25 * np.sqrt(np.clip((0.98 - c.x) / 0.9, 0.0, 1))
    beak = np.maximum(np.abs(bend) - half, np.maximum(0.1 - c.x, c.x - 0.97))
    c.paint(beak, "third", shade=0.8, rim=0.6)
    c.paint(np.maximum(beak, 0.8 - c.x + 0.3 * np.abs(bend)), "ink")
    c.paint(np.maximum(np.abs(bend - 0.03) - 0.014, beak), "third_dark")
    _wing(c, -0.1, 0.0, 0.85, 0.24, 2.0)
    _eye(c, -0.02, -0.56, 0.085)


def _heron(c: Canvas, chance: Chance) -> None:
    bend = chance.between(0.2, 0.32)
    for x, foot in ((-0.12, -0.16), (0.06, 0.12)):
        c.paint(stroke(c.x, c.y, [(x, 0.4), (foot, 0.94), (foot + 0.14, 0.97)], 0.028), "third")
    neck = spline([(0.14, 0.05), (0.3, -0.15), (bend - 0.12, -0.45), (0.26, -0.74)])
    body = ellipse(c.x, c.y, -0.18, 0.16, 0.52, 0.26, -0.35)
    f = blend(blend(body, stroke(c.x, c.y, neck, 0.12, 0.075), 0.12),
              ellipse(c.x, c.y, 0.28, -0.8, 0.16, 0.12), 0.05)  # fmt: skip
    c.paint(polygon(c.x, c.y, [(0.38, -0.86), (0.98, -0.72), (0.38, -0.74)], 0.012), "third")
    c.paint(stroke(c.x, c.y, [(0.2, -0.88), (-0.12, -0.8)], 0.03, 0.01), "ink")
    c.paint(f, shade=0.6)
    _belly(c, ellipse(c.x, c.y, 0.08, 0.24, 0.3, 0.16, -0.3), body)
    _wing(c, 0.16, 0.0, 0.92, 0.24, 2.65)
    _eye(c, 0.34, -0.82, 0.045)


def _jay(c: Canvas, chance: Chance) -> None:
    crest = chance.between(-0.98, -0.88)
    _branch(c, chance, 0.66)
    c.paint(polygon(c.x, c.y, [(-0.3, 0.3), (-0.98, 0.86), (-0.78, 0.98), (-0.1, 0.5)], 0.02),
            "second")  # fmt: skip
    c.paint(polygon(c.x, c.y, [(0.62, -0.5), (0.95, -0.4), (0.6, -0.32)], 0.02), "third")
    c.paint(polygon(c.x, c.y, [(0.52, -0.66), (-0.12, crest), (0.08, -0.36)], 0.05), shade=0.5)
    body = blend(ellipse(c.x, c.y, -0.02, 0.16, 0.36, 0.55, 0.6),
                 circle(c.x, c.y, 0.36, -0.42, 0.3), 0.25)  # fmt: skip
    c.paint(body, shade=0.6)
    _belly(c, ellipse(c.x, c.y, 0.26, 0.2, 0.24, 0.44, 0.35), body)
    _wing(c, 0.16, 0.0, 0.88, 0.22, 2.3)
    _eye(c, 0.44, -0.46, 0.065)
    collar = stroke(c.x, c.y, spline([(0.18, -0.22), (0.36, -0.08), (0.58, -0.16)]), 0.035)
    c.paint(np.maximum(collar, body), "ink", opacity=0.85)
    c.paint(stroke(c.x, c.y, [(0.06, 0.5), (0.08, 0.64)], 0.03), "third")


def _swallow(c: Canvas, chance: Chance) -> None:
    lift = chance.between(-0.1, 0.1)
    for sign in (-1, 1):
        tail = [(-0.3, 0.24), (-0.96, 0.5 + 0.2 * sign), (-0.4, 0.34)]
        c.paint(polygon(c.x, c.y, tail, 0.025), "second")
    far = spline([(0.2, -0.05), (0.36, -0.55), (0.2, -0.92 + lift)])
    c.paint(stroke(c.x, c.y, far, 0.17, 0.02), "second_dark")
    body = blend(ellipse(c.x, c.y, 0.08, 0.08, 0.52, 0.2, -0.35),
                 circle(c.x, c.y, 0.55, -0.12, 0.2), 0.12)  # fmt: skip
    c.paint(polygon(c.x, c.y, [(0.7, -0.2), (0.96, -0.14), (0.7, -0.06)], 0.015), "third")
    c.paint(body, shade=0.5)
    _belly(c, ellipse(c.x, c.y, 0.2, 0.17, 0.4, 0.14, -0.35), body)
    near = spline([(0.22, 0.02), (-0.2, -0.42), (-0.82, -0.62 + lift)])
    c.paint(stroke(c.x, c.y, near, 0.21, 0.02), "second", shade=0.6, rim=0.6)
    c.paint(stroke(c.x, c.y + 0.06, near, 0.02), "second_dark", opacity=0.7)
    _eye(c, 0.6, -0.17, 0.05)


FACING = {
    f.__name__[1:]: f
    for f in (
        _daisy,
        _sunflower,
        _dahlia,
        _rose,
        _lily,
        _poppy,
        _pansy,
        _cosmos,
        _pinwheel,
        _primrose,
        _starflower,
        _hydrangea,
        _orchid,
    )
}
STEMMED = {
    f.__name__[1:]: f
    for f in (
        _tulip,
        _bellflower,
        _thistle,
        _lotus,
        _lavender,
    )
}
BIRDS = {
    f.__name__[1:]: f
    for f in (
        _finch,
        _owl,
        _toucan,
        _heron,
        _jay,
        _swallow,
    )
}


def paint_object(c: Canvas, name: str, leaves: bool, chance: Chance) -> None:
    """Paints a variant of a flower or bird."""
    if leaves and name in FACING:
        _leaves(c, chance)
    {**FACING, **STEMMED, **BIRDS}[name](c, chance)


def pattern(name: str, c: Canvas, chance: Chance) -> np.ndarray:
    """Share [S, S] of the accent colour for "tipped" or "spotted"."""
    if name == "tipped":
        return smooth(0.56, 0.84, np.hypot(c.x, c.y))
    grid = chance.between(0.22, 0.27)
    u, v = c.x / grid, c.y / grid
    du, dv = (u + 0.5 * (np.floor(v) % 2)) % 1 - 0.5, v % 1 - 0.5
    return np.clip(0.5 + (0.27 - np.hypot(du, dv)) * grid / c.pixel, 0, 1)


def paint_background(c: Canvas, chance: Chance) -> None:
    """A garden out of focus: a soft gradient and discs of light."""
    a = chance.between(0, TAU)
    share = smooth(-1.4, 1.4, math.cos(a) * c.x + math.sin(a) * c.y)
    c.lay(1.0, {"main": 1 - 0.65 * share, "dark": 0.65 * share})
    for _ in range(9):
        x, y, r = chance.between(-1, 1), chance.between(-1, 1), chance.between(0.12, 0.42)
        cover, _ = c.cover(circle(c.x, c.y, x, y, r), 0.05)
        c.lay(cover * chance.between(0.08, 0.3), {chance.pick(("light", "light", "second")): 1.0})
    c.lay(0.55 * smooth(0.75, 1.6, np.hypot(c.x, c.y)), {"dark": 1.0})


_LEAF = (84, 146, 78)
_BRANCH = (104, 76, 58)
_BEAKS = ((246, 176, 60), (240, 140, 60), (106, 96, 100))


def background_palette(facts: dict) -> np.ndarray:
    """Colours of the garden behind, a little muted."""
    colour = mix(COLOURS[facts["background_colour"]], (140, 140, 140), 0.16)
    base = tones(shifted(colour, [6 + 6 * s for s in facts["shade"]]))
    return palette(**base, second=mix(base["main"], (255, 226, 150), 0.4))


def object_palette(thing: dict) -> np.ndarray:
    """Colours of the one flower or bird."""
    own = tones(shifted(COLOURS[thing["colour"]], thing["shift"]))
    if thing["kind"] == "bird":
        second, accent = COLOURS[thing["wing"]], COLOURS[thing["belly"]]
        third, third_dark = _BEAKS[thing["variant"] % 3], _BRANCH
    else:
        second, accent = COLOURS[thing.get("center", "yellow")], COLOURS[thing["accent"]]
        third = shifted(_LEAF, thing["shift"])
        third_dark = shaded(third)
    return palette(
        **own, accent=accent, second=second, second_dark=shaded(second),
        third=third, third_dark=third_dark,
    )  # fmt: skip
