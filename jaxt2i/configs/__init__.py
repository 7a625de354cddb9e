"""The presets, `jaxt2i.configs.NAME`: installed they lie here, in a checkout in configs/."""

from pathlib import Path

# This file is the checkout's alone: pyproject.toml puts the files of configs/ in its place.
__path__ = [str(Path(__file__).parents[2] / "configs")]
