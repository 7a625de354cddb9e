"""What the pages for readers say can be done: commands parse, presets, settings and files exist."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from benchmarks import systems
from jaxt2i.run import settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *ROOT.glob("launch/*.md"), *ROOT.glob("benchmarks/*.md")]
# Their command line is a configuration's: absl's flags and config_flags.
BY_CONFIG = ("train", "plan")


class Parsed(Exception):
    """The arguments were understood; what they ask for is another test's."""


def commands(page):
    """Every line of shell in a page, joined where it goes on, without comments."""
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            for command in re.split(r"&&|;", line):
                words = shlex.split(command, comments=True)
                if words:
                    yield words


def modules():
    for page in PAGES:
        for words in commands(page):
            if "jaxt2i." in " ".join(words) and "-m" in words:
                at = words.index("-m")
                if words[at + 1].startswith("jaxt2i."):
                    name, *rest = words[at + 1 :]
                    yield pytest.param(
                        name, rest, id=f"{page.parent.name}: {shlex.join(words)}"[:120]
                    )


def config_of(rest):
    """The configuration that is named, and the settings that are changed."""
    named, changed, words = "configs/stylegan_t.py", [], iter(rest)
    for word in words:
        key, equals, value = word.partition("=")
        if key == "--config":
            named = value if equals else next(words)
        elif key.startswith("--config."):
            changed.append(key.removeprefix("--config."))
    return named, changed


def preset_of(named):
    file, _, preset = named.partition(":")
    path = file if file.endswith(".py") else f"configs/{file}.py"
    return settings.preset(str(ROOT / path), preset)


@pytest.mark.parametrize(("name", "rest"), list(modules()))
def test_a_command_is_understood(name, rest, monkeypatch):
    module = name.removeprefix("jaxt2i.")
    if module in BY_CONFIG:
        named, changed = config_of(rest)
        config = preset_of(named)
        for key in changed:
            at = config
            for part in key.split("."):
                assert part in at, f"config.{key} is not a setting of {named}"
                at = at[part]
        return
    if "--config" in rest and rest[rest.index("--config") + 1] != "FILE":
        preset_of(rest[rest.index("--config") + 1])
    found = importlib.util.find_spec(name)
    if found.submodule_search_locations:
        name += ".__main__"

    def known(parser, args=None, namespace=None):
        plain(parser, args, namespace)
        raise Parsed

    plain = argparse.ArgumentParser.parse_known_args
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", known)
    with pytest.raises(Parsed):
        importlib.import_module(name).main(rest)


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_files_that_are_named_exist(page):
    text = page.read_text()
    named = re.findall(r"\]\(([\w./-]+)\)", text)
    named += re.findall(r"`((?:benchmarks|launch|configs|jaxt2i|tests)/[\w./-]+)`", text)
    named += [w for words in commands(page) for w in words if re.match(r"launch/\w+\.\w+$", w)]
    for name in named:
        found = ROOT / name if (ROOT / name).exists() else page.parent / name
        assert found.exists() or "NAME" in name, f"{page.name} names {name}, which is not there"


def test_presets_of_the_table_exist():
    rows = re.findall(
        r"^\|(?:[^|]*\|){2}([^|]*)\|([^|]*)\|", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    named = [n for row in rows for cell in row for n in re.findall(r"`([a-z_]+(?::\w+)?)`", cell)]
    assert len(named) > 20
    for name in named:
        preset_of(name)


def test_the_table_of_systems_is_that_of_today():
    assert systems.PAGE.read_text() == systems.page(systems.PAGE.read_text()), (
        "python benchmarks/systems.py --write"
    )
