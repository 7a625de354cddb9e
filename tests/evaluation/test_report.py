"""What an evaluation writes."""

import json

import numpy as np
from etils import epath

from jaxt2i.evaluation import report
from jaxt2i.metrics.protocols import Protocol


def test_rows_with_masks_of_objects_are_written_in_words(tmp_path):
    mask = np.ones((4, 4), np.uint8)
    row = {"prompt": "a dog", "image": mask, "objects": [{"label": "dog", "mask": mask}]}
    result = report.Result("a run", 1, [], Protocol(name="a protocol"), rows=[row])
    report.write_json(epath.Path(tmp_path) / "found.json", result)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["grid"] == [{"prompt": "a dog", "objects": [{"label": "dog"}]}]
