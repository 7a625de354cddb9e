"""Two components that gradio lacks: boxes drawn over a frame, a region painted on a picture."""

from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from jaxt2i.data import show

HERE = Path(__file__).parent
CSS = (HERE / "canvas.css").read_text()


def boxes(classes: Sequence[str], size: Sequence[int]) -> gr.HTML:
    """An editor of layouts; its value is JSON text, see `reading.layout_of`.

    Args:
      classes: names to choose from; none: numbers.
      size: width and height of what is drawn.
    """
    return gr.HTML(
        "",
        html_template=(HERE / "boxes.html").read_text(),
        css_template=CSS,
        js_on_load=(HERE / "boxes.js").read_text(),
        elem_id="boxes",
        classes=list(classes),
        size=list(size),
        colours=list(show.COLOURS),
    )


def region() -> gr.HTML:
    """A painter; its value is a PNG as a data URL, see `reading.region_of`."""
    return gr.HTML(
        "",
        html_template=(HERE / "region.html").read_text(),
        css_template=CSS,
        js_on_load=(HERE / "region.js").read_text(),
        elem_id="region",
        photo="",
    )
