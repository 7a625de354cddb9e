"""Edits beside their sources: what is measured outside the region, and in which direction."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxt2i import evaluate
from jaxt2i.metrics import editing
from tests.evaluation import small


def test_directions_say_whether_pictures_changed_as_captions_did():
    eye = np.eye(4)
    found = editing.directions(
        eye[[0, 0, 0]], eye[[1, 2, 0]], np.float32(3 * eye[[0, 0, 0]]), 2 * eye[[1, 1, 1]]
    )
    np.testing.assert_allclose(found, [1, 0.5, np.nan])


def test_a_folder_of_edits_is_judged(monkeypatch, tmp_path, capsys):
    small.stand_ins(monkeypatch)
    folder, rng = tmp_path / "drawn", np.random.default_rng(0)
    folder.mkdir()
    lines = []
    for i in range(3):
        source = rng.integers(0, 256, (64, 64, 3), np.uint8)
        edit, region = source.copy(), np.zeros((64, 64, 3), np.uint8)
        region[:32] = 255
        edit[:32] = 255 - edit[:32]  # inside alone
        if i == 1:
            edit[40:] = np.clip(edit[40:].astype(int) + 10, 0, 255).astype(np.uint8)
        if i == 2:
            region[:] = 255
        for name, x in (("", edit), ("_source", source), ("_region", region), ("_seen", edit)):
            Image.fromarray(x).save(folder / f"{i:06d}{name}.png")
        line = {"file_name": f"{i:06d}.png", "text": "a red bird", "number": i}
        lines.append(json.dumps(line | {"source_prompt": "a blue bird"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "drawn.json").write_text("{}")
    timed = {"pictures": 2, "seconds_a_picture": 0.25, "at_once": 1, "device": "a clock"}
    (folder / "timing.json").write_text(json.dumps(timed))

    def judged():
        place = ["--images", str(folder), "--batch", "4", "--metrics", "edits"]
        evaluate.main([*place, "--weights", "lpips_alex=random", "openai_vit_b32=random"])
        found = json.loads((tmp_path / "drawn-evaluation" / "scores.json").read_text())
        return {x["metric"]: x for x in found["scores"]}, found

    scores, _ = judged()
    assert set(scores) == {
        *("edit_lpips", "edit_lpips_outside", "edit_psnr_outside"),
        *("edit_clip_score", "edit_clip_direction", "edit_seconds"),
    }
    assert scores["edit_seconds"]["value"] == 0.25
    assert scores["edit_seconds"]["facts"]["device"] == "a clock"
    outside = scores["edit_lpips_outside"]
    # Of two edits: nothing changed outside of one, a little outside of the other; one has none.
    assert outside["facts"]["generated"] == 2
    assert "1 of 3 edits have no lpips_outside" in outside["warnings"][0]
    assert 0 < outside["value"] < scores["edit_lpips"]["value"] / 2
    assert editing.EQUAL / 2 < scores["edit_psnr_outside"]["value"] < editing.EQUAL
    assert -1 <= scores["edit_clip_direction"]["value"] <= 1
    texts = [{k: v for k, v in json.loads(x).items() if k != "source_prompt"} for x in lines]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, texts)) + "\n")
    (folder / "timing.json").write_text(json.dumps(timed | {"seconds_a_picture": None}))
    scores, found = judged()
    assert "edit_clip_direction" not in scores
    assert any("source_prompt" in note for note in found["notes"])
    assert "edit_seconds" not in scores
    assert any("draw more edits in one go" in note for note in found["notes"])
    (folder / "000001_source.png").unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        judged()
    assert (
        "as python -m jaxt2i.sample --edit writes them" in f"{stopped.value} {capsys.readouterr()}"
    )
