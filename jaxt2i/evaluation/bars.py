"""Bars of shares, one a class, as a picture inside of a page."""

import html
from collections.abc import Mapping

# Pixels: of a row, of the names, of the widest bar and of the numbers.
ROW, NAMES, BARS, NUMBERS = 16, 130, 520, 60
COLOUR, MARK = "#5b8def", "#222"


def svg(shares: Mapping[str, tuple[float, float | None]]) -> str:
    """A bar for every class, and a mark where real pictures are.

    Args:
      shares: {class: (percent, that of real pictures; None where there are none)}.
    """
    parts = []
    for place, (name, (share, best)) in enumerate(shares.items()):
        top, said = place * ROW, f"{share:.1f}"
        text = html.escape(name)
        parts.append(f'<text x="{NAMES - 6}" y="{top + 12}" text-anchor="end">{text}</text>')
        wide = BARS * share / 100
        parts.append(
            f'<rect x="{NAMES}" y="{top + 3}" width="{wide:.1f}" height="{ROW - 6}" '
            f'fill="{COLOUR}"/>'
        )
        if best is not None:
            at, said = NAMES + BARS * best / 100, f"{said} / {best:.1f}"
            parts.append(
                f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top + 1}" y2="{top + ROW - 1}" '
                f'stroke="{MARK}" stroke-width="2"/>'
            )
        parts.append(f'<text x="{NAMES + BARS + 8}" y="{top + 12}">{said}</text>')
    width, height = NAMES + BARS + NUMBERS + 30, ROW * len(shares)
    return (
        f'<svg class="bars" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-size="11" font-family="sans-serif" role="img">{"".join(parts)}</svg>'
    )
