"""README's commands, executed in the order in which they stand, in one fresh folder.

What is changed of them is this. A training runs a preset's smoke test, `tiny` or `tiny_PRESET`,
for one step and without scores, under the name and in the place that README says, so that what
follows finds it. RUN is the first one, DIR a folder of small pictures, IMAGES and LAYOUTS the runs
of README's chains, which are then trained already. What is judged is `--num 8`, and nothing is
pushed.
"""

import ast
import importlib
import re
import shlex
import sys
import time
from pathlib import Path

import jaxt2i
from tests.test_readme import ROOT, commands, config_of

PLAIN, FULL, PARSED = "executed", "executed by pytest -m full", "understood, no more"
NETWORK = "it installs from the network"
# How a command begins, what is done with it, and where not all of it, why: the first that fits.
TRIED = (
    ("python3 -m venv", PARSED, NETWORK),
    (".venv/bin/pip", PARSED, NETWORK),
    ("pip install", PARSED, NETWORK),
    (". .venv", PARSED, "it is the shell's own"),
    ("ruff", PARSED, "CI lints"),
    ("pytest", PARSED, "this is it; tests/test_contract.py has a method of one's own"),
    ("python -m jaxt2i.train --config configs/stylegan_t.py", PLAIN, ""),
    ("python -m jaxt2i.train --config configs/clip.py:emoji_other", PARSED, "emoji are downloaded"),
    ("python -m jaxt2i.train --config configs/clip.py", PARSED, "tests/run/test_own.py trains it"),
    ("python -m jaxt2i.train --config configs/df_gan.py:emoji", PARSED, "emoji are downloaded"),
    ("python -m jaxt2i.train --config configs/galip.py", PARSED, "tests/run/test_own.py, too"),
    ("python -m jaxt2i.train --config configs/damsm.py:emoji", PARSED, "tests/run/test_own.py"),
    ("python -m jaxt2i.train --config configs/attngan.py", PARSED, "tests/run/test_own.py"),
    ("python -m jaxt2i.train --config configs/dm_gan.py", PARSED, "as AttnGAN, of the same runs"),
    ("python -m jaxt2i.train", FULL, "a training each"),
    ("python -m jaxt2i.sample --workdir runs/stylegan_t-default", PLAIN, ""),
    ("python -m jaxt2i.sample --workdir RUN", PLAIN, ""),
    ("python -m jaxt2i.sample --workdir EDITOR", PARSED, "tests/run/test_open.py, test_toys.py"),
    ("python -m jaxt2i.sample", FULL, "of other trainings"),
    ("python -m jaxt2i.evaluate --workdir runs/galip-emoji", PARSED, "emoji are downloaded"),
    ("python -m jaxt2i.evaluate", FULL, "of other trainings"),
    ("python -m jaxt2i.from_folder", PLAIN, "but for the trainings: tests/run/test_from_folder.py"),
    ("python -m jaxt2i.prepare vocabulary", PLAIN, ""),
    ("python -m jaxt2i.prepare emoji", PARSED, "tests/data/builders/test_emoji.py makes a font"),
    ("python -m jaxt2i.export runs/stylegan_t-default --to flowers-more", FULL, "for its time"),
    ("python -m jaxt2i.export", PLAIN, ""),
    ("python -m jaxt2i.studio", PARSED, "it waits for a browser: tests/test_studio.py"),
)
# Statements of the block in Python that wait for the full tests: a training, and judges.
LATER = ("jaxt2i.train(", "best_of=")
PLACES = {
    "RUN": "runs/stylegan_t-default",
    "DIR": "pictures",
    "LAYOUTS": "runs/text_to_layout-default",
    "IMAGES": "runs/layout_to_image-default",
}
README = ROOT / "README.md"


def tried(words):
    """How a command of README is tried, and why not wholly."""
    said = shlex.join(words)
    return next(((how, why) for start, how, why in TRIED if said.startswith(start)), (None, ""))


def train(rest):
    """A training as README has it, but for its size."""
    named, _ = config_of(rest)
    file, _, preset = named.partition(":")
    name, given = Path(file).stem, [w.removeprefix("--config.") for w in rest if "=" in w]
    known = jaxt2i.presets(name)
    own = f"tiny_{preset}" if f"tiny_{preset}" in known else "tiny"
    changes = dict(word.split("=", 1) for word in given)
    place = f"runs/{name}-{preset or 'default'}"
    jaxt2i.train(f"{name}:{own}", place, total_steps=1, score_images=0, **changes)


def execute(words):
    """One command, in this process and in this folder."""
    words = [PLACES.get(word, word) for word in words]
    name, rest = words[2], words[3:]
    if name == "jaxt2i.train":
        return train(rest)
    if "--push" in rest:
        rest = rest[: rest.index("--push")]
    more = {"jaxt2i.evaluate": ["--num", "8"], "jaxt2i.from_folder": ["--dry-run"]}
    importlib.import_module(name).main([*rest, *more.get(name, [])])


def python_block():
    """The statements of README's block in Python."""
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    return [ast.unparse(statement) for statement in ast.parse(block).body]


def walk_through(kinds):
    """Executes what is of these kinds; what needs the chains' runs comes last."""
    asked = [words for words in commands(README) if tried(words)[0] in kinds]
    for words in sorted(asked, key=lambda words: "IMAGES" in words):
        print(f"{time.process_time():.1f} s so far; now: {shlex.join(words)}", flush=True)
        execute(words)
    names = {}
    for statement in python_block():
        if FULL in kinds or not any(word in statement for word in LATER):
            print(f"{time.process_time():.1f} s so far; now: {statement}", flush=True)
            exec(statement, names)


if __name__ == "__main__":
    walk_through(set(sys.argv[1:]))
