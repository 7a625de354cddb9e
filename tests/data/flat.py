"""A folder that is read in no time: embedded pictures are drawn anew in each process."""

from pathlib import Path

from PIL import Image

COLOURS = ("red", "green", "blue", "white", "orange", "purple", "grey", "pink")


def make_folder(folder: Path, count: int = 32) -> tuple[str, str]:
    """Fills a folder with flat pictures and captions.

    Returns:
      the settings by which a command line reads it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        name = COLOURS[i % len(COLOURS)]
        Image.new("RGB", (16, 16), name).save(folder / f"{i:02d}.png")
        (folder / f"{i:02d}.txt").write_text(f"number {i} is {name}\n")
    return "--config.data.source=folder", f"--config.data.path={folder}"
