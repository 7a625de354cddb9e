"""Dictionaries that show themselves as a table, in a terminal and in a notebook."""

import dataclasses
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxt2i.engine.method import Control

CONTROLS = ("control", "type", "default", "range", "meaning")
CONDITIONS = ("condition", "type", "needed", "names", "meaning")
# Names of classes that a table shows.
NAMES = 8


class Shown(dict):
    """A dictionary that a table is made of.

    Args:
      items: the dictionary.
      head: of the table.
      rows: of the table, in words.
    """

    def __init__(
        self, items: Mapping[str, Any], head: Sequence[str], rows: Iterable[Sequence[str]]
    ):
        super().__init__(items)
        self._table = [tuple(head), *(tuple(map(str, row)) for row in rows)]

    def __repr__(self) -> str:
        if len(self._table) == 1:
            return f"no {self._table[0][0]}s"
        widths = [max(map(len, column)) for column in zip(*self._table, strict=True)]
        lines = (
            "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
            for row in self._table
        )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Shows itself in a notebook."""
        head, *rows = self._table

        def line(words: Sequence[str], kind: str) -> str:
            return "".join(f"<{kind} align=left>{html.escape(w)}</{kind}>" for w in words)

        lines = [line(head, "th"), *(line(row, "td") for row in rows)]
        return "<table>" + "".join(f"<tr>{x}</tr>" for x in lines) + "</table>"


@dataclasses.dataclass(frozen=True)
class Condition:
    """A word of a row that a system draws from.

    Attributes:
      name: the word.
      type: what stands behind it.
      needed: False: a row may leave it out.
      meaning: in a line.
      names: of the classes that it may name.
    """

    name: str
    type: str
    needed: bool
    meaning: str
    names: tuple[str, ...] = ()


def controls(found: Iterable[Control]) -> Shown:
    """{name: control}, which shows names, types, defaults, ranges and meanings."""
    by_name = {c.name: c for c in found}
    rows = (
        (c.name, type(c.default).__name__, c.default, range_of(c), c.help) for c in by_name.values()
    )
    return Shown(by_name, CONTROLS, rows)


def range_of(control: Control) -> str:
    """What a control may be, in words."""
    if control.choices:
        return ", ".join(control.choices)
    if control.low is None and control.high is None:
        return ""
    if control.high is None:
        return f"{control.low} or more"
    return f"{control.low} to {control.high}" if control.low is not None else f"to {control.high}"


def conditions(found: Iterable[Condition]) -> Shown:
    """{word: condition}, which shows types, names of classes and meanings."""
    by_name = {c.name: c for c in found}
    rows = (
        (
            *(c.name, c.type, "yes" if c.needed else "no"),
            ", ".join(c.names[:NAMES]) + (", ..." if len(c.names) > NAMES else ""),
            c.meaning,
        )
        for c in by_name.values()
    )
    return Shown(by_name, CONDITIONS, rows)
