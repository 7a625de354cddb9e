"""Curves over training, one panel a quantity."""

import dataclasses
import io
import math
from collections.abc import Sequence

from etils import epath

from jaxt2i.places import write_whole

ACROSS = 3  # panels beside each other


@dataclasses.dataclass(frozen=True)
class Curve:
    """One panel.

    Attributes:
      title: above it.
      points: (x, y), in order.
      bands: (x, low, high): where y may as well have been.
    """

    title: str
    points: Sequence[tuple[float, float]]
    bands: Sequence[tuple[float, float, float]] = ()


def draw_curves(path: epath.PathLike, curves: Sequence[Curve], xlabel: str) -> None:
    """Draws curves; no curves, no file.

    Args:
      path: the picture, by its ending PNG, PDF or SVG.
      curves: the panels, row by row.
      xlabel: what x counts.
    """
    # Without pyplot, whose state threads would share.
    from matplotlib.figure import Figure

    if not curves:
        return
    across = min(ACROSS, len(curves))
    down = math.ceil(len(curves) / across)
    figure = Figure(figsize=(4.2 * across, 3 * down), dpi=110, layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for axis, curve in zip(axes, curves, strict=False):
        if curve.points:
            axis.plot(*zip(*curve.points, strict=True), marker=".", lw=1.5)
        if curve.bands:
            axis.fill_between(*zip(*curve.bands, strict=True), alpha=0.2, linewidth=0)
        axis.set_title(curve.title, fontsize=10)
        axis.set_xlabel(xlabel, fontsize=9)
        axis.grid(alpha=0.3)
    for axis in axes[len(curves) :]:
        axis.axis("off")
    out, path = io.BytesIO(), epath.Path(path)
    figure.savefig(out, format=path.suffix[1:])
    write_whole(path, out.getvalue())
