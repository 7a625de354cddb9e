"""A damaged work directory is told in one sentence, whoever opens it."""

import contextlib
import json

import pytest

from jaxt2i import evaluate, sample
from jaxt2i.config import ConfigError
from jaxt2i.convert import __main__ as conversion
from jaxt2i.encoders import perception
from jaxt2i.run import checkpoint, settings
from jaxt2i.run import open as runs
from tests.evaluation.small import untrained


@pytest.fixture
def workdir(tmp_path):
    settings.write_config(tmp_path, settings.preset("configs/df_gan.py", "tiny"), "a test")
    return tmp_path


DAMAGE = {
    "cut off": (lambda text: text[: len(text) // 2], "not readable as JSON"),
    "empty": (lambda text: "", "not readable as JSON"),
    "a list": (lambda text: "[1, 2]", r"it holds no settings, but \[1, 2\]"),
    "a section": (lambda text: changed(text, data=3), "config.data is 3, expected a section"),
    "a kind": (lambda text: changed(text, batch_size="x"), "batch_size is x, expected a whole"),
}


def changed(text, **values):
    return json.dumps(json.loads(text) | values)


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_config_is_one_sentence(workdir, kind, capsys):
    damage, said = DAMAGE[kind]
    file = workdir / "config.json"
    file.write_text(damage(file.read_text()))
    sentence = rf"(?s)config\.json is damaged \(.*{said}.*delete it and start the training command"
    with pytest.raises(ConfigError, match=sentence) as error:
        settings.note_changes(workdir, settings.preset("configs/df_gan.py", "tiny"))
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=sentence):
        sample.main(["--workdir", str(workdir), "--prompts", "a bird"])
    with pytest.raises(SystemExit, match=sentence):
        evaluate.main(["--workdir", str(workdir)])
    assert conversion.main(["df_gan", "--from", str(workdir), "--to", str(workdir / "to")]) == 1
    assert "cannot convert: " in capsys.readouterr().err


def test_every_key_may_be_lost(workdir):
    """What is absent is a sentence, or nobody needs it."""
    whole = json.loads((workdir / "config.json").read_text())
    for name in settings.flat(whole):
        *above, key = name.split(".")
        found = json.loads(json.dumps(whole))
        section = found
        for part in above:
            section = section[part]
        del section[key]
        (workdir / "config.json").write_text(json.dumps(found))
        if name in settings.NEEDED:
            with pytest.raises(ConfigError, match=rf"lacks config\.{name}: .*delete that"):
                runs.open_run(settings.read_config(workdir))
            continue
        with contextlib.suppress(ConfigError):  # settings of the model that do not go together
            run = runs.open_run(settings.read_config(workdir))
            run.layout()
            run.words()


def test_damaged_checkpoints_are_named(tmp_path, capsys):
    run = untrained(tmp_path / "run", steps=(1,))
    files = [f for f in (run / "checkpoints").rglob("*") if f.is_file()]
    for file in files:
        if "state" in file.parts:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ConfigError, match=r"checkpoints.1 cannot be used .*copy the run again"):
        checkpoint.latest(run)
    with pytest.raises(ConfigError, match=r"no checkpoint can be used: step 1 \(.*train it again"):
        sample.main(["--workdir", str(run), "--prompts", "a bird"])


def test_all_files_that_cannot_be_used_are_told_at_once(tmp_path):
    missing = tmp_path / "prompts.txt"
    with pytest.raises(ConfigError, match=r"--prompts-file .*no such file; and .*holds no run"):
        sample.main(["--workdir", str(tmp_path), "--prompts-file", str(missing)])


def test_unknown_perceptions_name_their_line():
    with pytest.raises(ConfigError, match=r"config\.model\.perception='mni'; did you mean mini"):
        perception.make("mni")
    with pytest.raises(ConfigError, match=r"config\.model\.weights='x'; known: pretrained"):
        perception.make("mini", weights="x")


def test_pictures_that_are_no_squares_are_refused_by_who_draws_squares():
    for name in ("df_gan", "stylegan_t", "galip"):
        config = settings.preset(f"configs/{name}.py", "tiny")
        with config.ignore_type():
            config.data.resolution = (16, 32)
        with pytest.raises(ConfigError, match=rf"\(16, 32\).*{name} can do squares only"):
            runs.open_run(config)


def test_a_configuration_that_raises_is_one_line(tmp_path):
    for text in ("def get_config(name=None):\n  return nothing", "import no_such_module", "x = ("):
        (tmp_path / "own.py").write_text(text)
        with pytest.raises(ConfigError, match=r"own\.py.*no configuration, which is a Python file"):
            settings.configuration(str(tmp_path / "own.py"), [])
