"""One picture of many examples: captions, boxes, masks and classes of pixels, for a person."""

import dataclasses
import io
import math
import textwrap

import numpy as np
from etils import epath

from jaxt2i.data import fonts

# Tableau's colours, which stay apart on photographs.
COLOURS = (
    *("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f"),
    *("#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#bab0ac"),
)
# What boxes alone are drawn on, and how much they are filled.
BLANK, FILLED = np.full((1, 1, 3), 245, np.uint8), 0.45


@dataclasses.dataclass(frozen=True)
class Tile:
    """One example to draw.

    Attributes:
      example: arrays of the schema, without a batch axis; one without an image shows its boxes
        filled on a blank canvas.
      caption: its text, shown below.
      title: shown above.
      size: width and height to draw it at; only their ratio matters.
      names: of the classes that `box_label` counts; a class without a name is its number.
      subject: x, y, w, h of what the picture shows, fractions; drawn dashed.
    """

    example: dict[str, np.ndarray]
    caption: str
    title: str = ""
    size: tuple[int, int] = (1, 1)
    names: tuple[str, ...] = ()
    subject: tuple[float, float, float, float] | None = None


def draw(tiles: list[Tile], file: epath.PathLike, *, beside: bool = False) -> None:
    """Writes the examples as one PNG, or in the format that the file's ending names.

    Args:
      tiles: at least one.
      file: to write.
      beside: show the layout of an example with boxes beside its picture, too.
    """
    file = epath.Path(file)
    file.write_bytes(drawn(tiles, beside=beside, kind=file.suffix[1:] or "png"))


def drawn(tiles: list[Tile], *, beside: bool = False, kind: str = "png") -> bytes:
    """The file of `draw`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tiles, families = _with_letters(tiles)
    pixels = any("segmentation" in tile.example for tile in tiles)
    beside = beside and any("boxes" in tile.example for tile in tiles)
    columns = max(1, min(len(tiles), math.ceil(math.sqrt(len(tiles)))))
    rows = math.ceil(len(tiles) / columns)
    across = 1 + pixels + beside
    figure = Figure(figsize=(2.6 * columns * across, 3.3 * rows), dpi=110, layout="constrained")
    axes = figure.subplots(rows, columns * across, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        _picture(axes[row, column * across], tile, families)
        if beside and "boxes" in tile.example:
            _layout(axes[row, column * across + 1], tile, families)
        if "segmentation" in tile.example:
            _classes(axes[row, (column + 1) * across - 1], tile)
    FigureCanvasAgg(figure)
    out = io.BytesIO()
    figure.savefig(out, format=kind)
    return out.getvalue()


def _with_letters(tiles: list[Tile]) -> tuple[list[Tile], list[str]]:
    """The tiles, their texts as fonts here can draw them, and the names of those fonts."""
    from matplotlib import font_manager

    count = len(tiles)
    names = list(dict.fromkeys(name for tile in tiles for name in tile.names))
    said, needed = fonts.fitted(
        [*(tile.caption for tile in tiles), *(tile.title for tile in tiles), *names]
    )
    for font in needed:
        font_manager.fontManager.addfont(font)
    families = [font_manager.FontProperties(fname=font).get_name() for font in needed]
    shown = dict(zip(names, said[2 * count :], strict=True))
    fitted = [
        dataclasses.replace(
            tile,
            caption=said[i],
            title=said[count + i],
            names=tuple(shown[name] for name in tile.names),
        )
        for i, tile in enumerate(tiles)
    ]
    return fitted, families


def _extent(tile: Tile) -> tuple[float, float, float, float]:
    width, height = tile.size
    return 0, width / max(tile.size), height / max(tile.size), 0


def _picture(axis, tile: Tile, families: list[str]) -> None:
    from matplotlib.patches import Rectangle

    example, (_, width, height, _) = tile.example, _extent(tile)
    canvas = example.get("image", BLANK)
    axis.imshow(canvas, extent=_extent(tile), interpolation="nearest")
    filled = FILLED if canvas is BLANK and "shape_masks" not in example else 0.0
    for i in np.flatnonzero(example.get("box_mask", ())).tolist():
        colour = COLOURS[i % len(COLOURS)]
        if "shape_masks" in example:
            shape = example["shape_masks"][i] / 255
            rgba = np.zeros((*shape.shape, 4))
            rgba[..., :3] = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
            rgba[..., 3] = 0.55 * shape
            axis.imshow(rgba, extent=_extent(tile), interpolation="nearest")
        _box(axis, tile, i, families, filled)
    if tile.subject:
        x, y, w, h = tile.subject
        style = {"fill": False, "edgecolor": "white", "linestyle": "--"}
        axis.add_patch(Rectangle((x * width, y * height), w * width, h * height, **style))
    axis.set_title(textwrap.shorten(tile.title, 44, placeholder="…"), fontsize=6, family=families)
    broad = 42 // (1 + fonts.is_wide(tile.caption))
    below = "\n".join(textwrap.wrap(tile.caption, broad)[:5])
    axis.text(0, height * 1.02, below, fontsize=6.5, va="top", family=families)


def _layout(axis, tile: Tile, families: list[str]) -> None:
    """The boxes alone, filled, in the order in which they are drawn."""
    axis.imshow(BLANK, extent=_extent(tile))
    for i in np.flatnonzero(tile.example["box_mask"]).tolist():
        _box(axis, tile, i, families, FILLED)


def _box(axis, tile: Tile, i: int, families: list[str], filled: float = 0.0) -> None:
    """One object's box with its place in the order and its name, filled to some degree."""
    from matplotlib.patches import Rectangle

    _, width, height, _ = _extent(tile)
    colour = COLOURS[i % len(COLOURS)]
    x, y, w, h = tile.example["boxes"][i]
    at, size = (x * width, y * height), (w * width, h * height)
    if filled:
        axis.add_patch(Rectangle(at, *size, facecolor=colour, edgecolor="none", alpha=filled))
    axis.add_patch(Rectangle(at, *size, fill=False, edgecolor=colour, linewidth=1.5))
    label = int(tile.example["box_label"][i])
    name = tile.names[label] if label < len(tile.names) else str(label)
    axis.text(
        *at,
        f"{i + 1} {name}",
        fontsize=6,
        family=families,
        color="white",
        va="top",
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8},
        clip_on=True,
    )


def _classes(axis, tile: Tile) -> None:
    classes = tile.example["segmentation"]
    axis.imshow(
        np.ma.masked_equal(classes, 0) % 20,
        extent=_extent(tile),
        cmap="tab20",
        vmin=0,
        vmax=19,
        interpolation="nearest",
    )
