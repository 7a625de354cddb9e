"""What was drawn: pictures and other outputs with their rows, to be looked at and kept."""

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from jaxt2i.config import ConfigError, nearest
from jaxt2i.data import show
from jaxt2i.data.conditions import Row
from jaxt2i.engine.method import Tree
from jaxt2i.run import edits, folder, log


class Drawn(Sequence):
    """What was drawn, in the order it was asked for.

    Attributes:
      rows: the conditions of each, in words, with its seed and controls: to be drawn again.
      outputs: {name: array} of each.
      sweep: of edits, the control whose values stand side by side.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Row, dict[str, Tree]]],
        columns: int,
        about: dict,
        names: Sequence[str] = (),
    ):
        """Keeps what was drawn.

        Args:
          pairs: (row, what was drawn for it).
          columns: of the grid; 0 chooses.
          about: with what, for the record.
          names: of the classes of boxes.
        """
        self.rows = [row for row, _ in pairs]
        self.outputs = [out for _, out in pairs]
        self._columns, self._about, self.sweep = columns, about, ""
        self._names = tuple(names)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int | slice) -> Any:
        """{"row": its words, "image": uint8 [H, W, 3], ...} of one; of a slice, a list of them."""
        if isinstance(i, slice):
            return [self[k] for k in range(len(self))[i]]
        return {"row": self.rows[i], **self.outputs[i]}

    @property
    def arrays(self) -> np.ndarray:
        """The pictures, uint8 [n, H, W, 3]."""
        return np.stack(self._each("image"))

    @property
    def images(self) -> list:
        """The pictures, as PIL images."""
        from PIL import Image

        return [Image.fromarray(x) for x in self._each("image")]

    @property
    def stages(self) -> list:
        """The pictures of every stage, asked for by `also=("stages",)`: a tuple for each."""
        return self._each("stages")

    @property
    def attention(self) -> list:
        """Maps over the words of each, asked for by `also=("attention",)`."""
        return self._each("attention")

    @property
    def seeds(self) -> list[int]:
        """The seed of each."""
        return [row["seed"] for row in self.rows]

    @property
    def prompts(self) -> list[str]:
        """The caption of each."""
        return [row.get("prompt", "") for row in self.rows]

    @property
    def scores(self) -> list[float]:
        """What the judge thinks of each, where the best of several was asked for."""
        return [row["scores"]["best"] for row in self.rows if "scores" in row]

    @property
    def layouts(self) -> list[list[dict]]:
        """The objects of each: [{"label", "box", ...}]."""
        return [row.get("objects", []) for row in self.rows]

    def _each(self, name: str) -> list:
        if self.outputs and name not in self.outputs[0]:
            hint = nearest(name, self.outputs[0])
            raise ConfigError(f"no {name!r} was drawn; {hint}. Other outputs: also=({name!r},)")
        return [out[name] for out in self.outputs]

    def grid(self, columns: int = 0):
        """All pictures with their captions, as one PIL image."""
        captions = [folder.caption_of(row) for row in self.rows]
        return log.grid(self.arrays, captions, columns or self._columns)

    def layout_sheet(self):
        """The objects of each over its picture, with names and order, and alone, as one PIL image.

        Raises:
          ConfigError: where no row has objects.
        """
        from PIL import Image

        pairs = zip(self.rows, self.outputs, strict=True)
        tiles = [folder.layout_tile(r, out, self._names) for r, out in pairs if r.get("objects")]
        if not tiles:
            raise ConfigError("no row has objects, and so there is no layout to show")
        pictures = any("image" in out for out in self.outputs)
        return Image.open(io.BytesIO(show.drawn(tiles, beside=pictures)))

    def sheet(self):
        """Edits beside their sources and what the model saw of them, as one PIL image."""
        self._each("seen")
        return edits.sheet(
            list(zip(self.rows, self.outputs, strict=True)), self.sweep, self._columns
        )

    def save(self, out: epath.PathLike, *, overwrite: bool = False) -> epath.Path:
        """Writes pictures, metadata.jsonl, grid.png and layouts.png to a folder, and returns it."""
        place = folder.Folder(out, self._about | {"rows": _digest(self.rows)})
        place.open(overwrite=overwrite)
        numbered = [row | {"number": i} for i, row in enumerate(self.rows)]
        pairs = zip(numbered, self.outputs, strict=True)
        pairs = [(row, out) for row, out in pairs if row["number"] not in place.done]
        place.write(pairs, columns=self._columns, sweep=self.sweep, names=self._names)
        return place.path

    def _repr_png_(self) -> bytes:
        """Shows itself in a notebook: pictures, or the layouts of a system that draws no others."""
        file = io.BytesIO()
        pictures = not self.outputs or "image" in self.outputs[0]
        (self.grid() if pictures else self.layout_sheet()).save(file, "png")
        return file.getvalue()


def _digest(rows: Sequence[Row]) -> str:
    return folder.digest([json.dumps(row, sort_keys=True, default=str) for row in rows])
