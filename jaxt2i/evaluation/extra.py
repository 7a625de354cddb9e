"""Metrics beside those of feature networks: a table, to be added to.

`METRICS` holds what is asked for by `--metrics NAME`: a function of the whole `Case`. What the
command line does instead of judging stands in `commands`.
"""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxt2i import api
from jaxt2i.evaluation import corpora, edited, judges, languages, layouts, own, report, sets, soa
from jaxt2i.evaluation.reading import Reader
from jaxt2i.evaluation.subjects import Subject
from jaxt2i.metrics.score import Score


@dataclasses.dataclass
class Case:
    """One set of pictures that is judged, and everything at hand to judge it by.

    Attributes:
      args: the command line.
      subject: what is judged.
      data: on which data; None: a folder of pictures alone.
      chosen: what is drawn for; None: a folder.
      fake: the judged pictures, with captions, labels and rows in words.
      real: pictures to compare with; None where there are none, or statistics alone.
      reader: of feature networks, for `reader.network(name)` and `reader.texts`.
      result: takes notes, facts and breakdowns besides the scores that are returned.
      shared: what one metric has found out that another may need.
      layouts: that pictures are drawn from, see `beside.rows`.
    """

    args: argparse.Namespace
    subject: Subject
    data: corpora.Data | None
    chosen: corpora.Chosen | None
    fake: sets.Set
    real: sets.Set | None
    reader: Reader
    result: report.Result
    shared: dict[str, Any] = dataclasses.field(default_factory=dict)
    layouts: str = ""

    @property
    def system(self) -> api.System | None:
        """What draws; None: pictures of a folder."""
        return self.subject.system


class Extra(NamedTuple):
    """A metric.

    Attributes:
      compute: the case -> scores.
      needs: "system" (pictures are drawn here), "captions", "real".
      layouts: whether it judges layouts, of a system that draws no pictures too.
      by_layouts: whether --layouts puts its scores of pictures from other layouts beside.
    """

    compute: Callable[[Case], Sequence[Score]]
    needs: tuple[str, ...] = ()
    layouts: bool = False
    by_layouts: bool = False


def preferred(metric: str) -> Extra:
    """What a network that learned from people's choices thinks of pictures."""

    def compute(case: Case) -> Sequence[Score]:
        found = judges.verdicts([metric], case.fake, case.reader)[metric].score()
        network = judges.JUDGES[metric].network
        case.result.facts.setdefault("networks", {}).update(case.reader.told(network))
        return [found]

    return Extra(compute, ("captions",))


# Both scores of the shipped CLIP, from one look at the pictures.
MINI_FRECHET = "mini_clip_frechet"

METRICS: dict[str, Extra] = {
    MINI_FRECHET: Extra(own.by_mini_clip, ("captions", "real")),
    **{metric: preferred(metric) for metric in judges.JUDGES},
    "edits": Extra(edited.by_edits, ("captions",)),
    "recognised": Extra(own.by_recogniser, ("system", "captions"), by_layouts=True),
    "independent": Extra(own.by_independent, ("system", "captions")),
    "feature_diversity": Extra(own.by_features, ("system", "captions")),
    "cross_lingual": Extra(languages.by_languages, ("system", "captions")),
    "soa": Extra(soa.by_objects, by_layouts=True),
    "lqs": Extra(layouts.by_quality, layouts=True, by_layouts=True),
    "relations": Extra(layouts.by_relations, ("captions",), layouts=True, by_layouts=True),
}
