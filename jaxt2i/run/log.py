"""A run's records, written by a thread of their own so that the step never waits for them.

In the work directory: metrics.jsonl (one JSON object a line), TensorBoard files, sample grids
with captions, and the curves of the scores.
"""

import concurrent.futures
import dataclasses
import io
import json
import math
import resource
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxt2i import places
from jaxt2i.data import fonts
from jaxt2i.engine.method import Method, Tree
from jaxt2i.engine.state import State, count
from jaxt2i.run import trouble
from jaxt2i.run.curves import Curve, draw_curves
from jaxt2i.run.files import Lines, json_lines, write_lines
from jaxt2i.run.tensorboard import TensorBoard

# How drawn pictures differ from real ones, told by no network.
DISTANCES = ("pixels/colours", "pixels/spectrum")

try:
    from clu import parameter_overview
except ImportError:  # the run goes on without its tables
    parameter_overview = None


def say(*lines: str) -> None:
    """Prints for the person at the screen, from the first process only."""
    if jax.process_index() == 0:
        print(*lines, sep="\n", flush=True)


class Records:
    """Writes what a run did.

    Args:
      workdir: the run's directory.
      first_step: lines of an earlier attempt beyond this step are dropped from metrics.jsonl, so
        that a resumed run leaves one history.
      better: {score: "higher" | "lower"} for the curves.
      notes: on all scores, such as "trains the run"; curves say them.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        first_step: int,
        better: Mapping[str, str],
        *,
        notes: Sequence[str] = (),
    ):
        self.workdir = epath.Path(workdir)
        self._scores = {
            f"score/{name}": f"{name} ({', '.join([f'{way} is better', *notes])})"
            for name, way in better.items()
        }
        self.failure: BaseException | None = None
        self._told = False
        self._tensorboard: TensorBoard | None = None
        self._enabled = jax.process_index() == 0
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "records")
        self._pending: list[concurrent.futures.Future] = []
        self.history: list[dict[str, Any]] = []
        if self._enabled:
            places.make_folder(self.workdir / "samples")
            self.history = earlier_lines(self.workdir / "metrics.jsonl", first_step)
            self._lines = Lines(self.workdir / "metrics.jsonl")
            self._tensorboard = TensorBoard(self.workdir / "tensorboard", say)

    def submit(self, function: Callable[[], None]) -> None:
        """Runs `function` in the records' thread, in order; its error ends the run later."""
        self._pending = [f for f in self._pending if not self._collect(f)]
        self._pending.append(self._pool.submit(function))

    def _collect(self, future: concurrent.futures.Future) -> bool:
        error = future.exception() if future.done() else None
        if error and places.scheme_of(self.workdir) and trouble.of_store(error):
            self._tell(error)
        elif error and self.failure is None:
            self.failure = error
        return future.done()

    def _tell(self, error: BaseException) -> None:
        """Says once that the store fails: checkpoints alone are worth ending a run for."""
        if not self._told:
            say(
                f"{trouble.said(error, self.workdir)}; the training goes on: lines of metrics wait "
                "until it does, pictures and TensorBoard files of now are left out"
            )
        self._told = True

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """One line of metrics.jsonl and its TensorBoard scalars; called in the thread."""
        if not self._enabled:
            return
        line = {"step": step, **{k: tidy(v) for k, v in scalars.items()}}
        self.history.append(line)
        self._lines.add(json.dumps(line))  # keeps it, whatever the store says
        if self._tensorboard:
            numbers = {k: v for k, v in line.items() if isinstance(v, (int, float)) and k != "step"}
            self._tensorboard.scalars(step, numbers)

    def grid(self, step: int, images: np.ndarray, captions: Sequence[str]) -> epath.Path | None:
        """A captioned grid as samples/STEP.png; called in the thread."""
        if not self._enabled:
            return None
        path = self.workdir / "samples" / f"{step:08d}.png"
        save_grid(path, images, captions)
        if self._tensorboard:
            self._tensorboard.images(step, "samples", images[:16])
        return path

    def layouts(self, step: int, draw: Callable[[epath.Path], None]) -> None:
        """Boxes as samples/STEP_layout.png, drawn by `draw`; called in the thread."""
        if self._enabled:
            draw(self.workdir / "samples" / f"{step:08d}_layout.png")

    def curves(self) -> None:
        """Draws scores as curves.png and signs of health as health.png; called in the thread."""
        if not self._enabled:
            return
        seen = dict.fromkeys(key for line in self.history for key in line)
        pixels = {key: f"{key} (0: as real pictures)" for key in seen if key in DISTANCES}
        health = {key: key for key in seen if key.startswith(("health/", "pixels/"))}
        save_curves(self.workdir / "curves.png", self.history, self._scores | pixels)
        save_curves(self.workdir / "health.png", self.history, health)

    def drain(self) -> None:
        """Waits until all submitted so far is written; `failure` then holds what went wrong."""
        if self._enabled:
            self._pending.append(self._pool.submit(self._lines.flush))
        concurrent.futures.wait(self._pending)
        for future in self._pending:
            self._collect(future)
        self._pending = []

    def close(self) -> None:
        """Finishes what was submitted."""
        closed = self._pool.submit(self._lines.close) if self._enabled else None
        self._pool.shutdown(wait=True)
        if closed and closed.exception():
            say(f"metrics.jsonl stays in parts ({closed.exception()}), which the next start joins")
        if self._tensorboard:
            try:
                self._tensorboard.close()
            except Exception as error:  # the run is over, and metrics.jsonl is whole
                say(f"the last TensorBoard file is incomplete ({type(error).__name__}: {error})")


def tidy(value: Any) -> Any:
    """A number that JSON can hold: six significant digits, null where not finite."""
    if isinstance(value, (bool, str, int)):
        return value
    value = float(value)
    return float(f"{value:.6g}") if math.isfinite(value) else None


def earlier_lines(path: epath.Path, last_step: int) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl up to a step; the file is cut to them.

    A run that was killed may have logged beyond its last checkpoint, or half a line.
    """
    found = json_lines(path)
    lines = [line for line in found if line.get("step", last_step + 1) <= last_step]
    if found or path.exists():
        write_lines(path, [json.dumps(line) for line in lines])
    return lines


def save_grid(
    path: epath.PathLike, images: np.ndarray, captions: Sequence[str], columns: int = 0
) -> None:
    """Writes `grid` to a file, whole or not at all."""
    out = io.BytesIO()
    grid(images, captions, columns).save(out, "PNG")
    places.write_whole(path, out.getvalue())


def grid(images: np.ndarray, captions: Sequence[str], columns: int = 0):
    """Pictures with their captions below them as one PIL image.

    Args:
      images: uint8 [N, H, W, 3].
      captions: N strings.
      columns: pictures a row; 0 chooses.
    """
    from PIL import Image, ImageDraw

    n, height, width, _ = images.shape
    columns = columns or min(n, max(1, round(math.sqrt(n * 1.3))))
    scale = max(1, -(-128 // width))
    captions, needed = fonts.fitted(captions)
    cell, pad = width * scale, 6
    text_width = max(10, int(cell / 5.6))
    wrapped = [textwrap.wrap(c, text_width // (1 + fonts.is_wide(c)))[:4] or [""] for c in captions]
    text_height = 13 * max(map(len, wrapped)) + 4
    rows = -(-n // columns)
    size = (columns * (cell + pad) + pad, rows * (height * scale + text_height + pad) + pad)
    sheet = Image.new("RGB", size, (255, 255, 255))
    write = _writer(ImageDraw.Draw(sheet), needed)
    for i in range(n):
        x = pad + (i % columns) * (cell + pad)
        y = pad + (i // columns) * (height * scale + text_height + pad)
        tile = Image.fromarray(images[i])
        if scale > 1:
            tile = tile.resize((cell, height * scale), Image.Resampling.NEAREST)
        sheet.paste(tile, (x, y))
        for row, line in enumerate(wrapped[i]):
            write(x, y + height * scale + 2 + 13 * row, line)
    return sheet


def _writer(draw, needed: Sequence[Any]) -> Callable[[int, int, str], None]:
    """Writes a line at a place of a sheet, with the plain font as far as it has the letters."""
    from PIL import ImageFont

    faces = [ImageFont.load_default(11), *(ImageFont.truetype(font, 11) for font in needed)]
    # The plain one has few letters besides those of ASCII.
    known = [frozenset(range(32, 127)), *map(fonts.letters, needed)]

    def write(x: int, y: int, line: str) -> None:
        for face, piece in fonts.runs(line, known):
            # By the baseline, which fonts share.
            draw.text((x, y + 10), piece, (40, 40, 40), faces[face], anchor="ls")
            x += faces[face].getlength(piece)

    return write


def save_curves(
    path: epath.PathLike, history: Sequence[Mapping[str, Any]], titles: Mapping[str, str]
) -> None:
    """Plots {key of the metrics: title} over images seen, one panel each, as far as they occur."""
    panels = [
        Curve(
            title,
            [(line["images"], line[key]) for line in history if line.get(key) is not None],
        )
        for key, title in titles.items()
        if any(key in line for line in history)
    ]
    draw_curves(path, panels, "images seen")


class Progress:
    """One line on the screen that is always up to date; plain lines where there is no terminal."""

    def __init__(self, first_step: int, total_steps: int, batch_size: int):
        from tqdm import tqdm

        self._batch_size, self._total = batch_size, total_steps
        self._live = sys.stderr.isatty() and jax.process_index() == 0
        self._bar = tqdm(
            total=total_steps,
            initial=first_step,
            disable=not self._live,
            unit="step",
            dynamic_ncols=True,
            smoothing=0.05,
        )

    def step(self) -> None:
        """One step was dispatched."""
        self._bar.update()

    def show(self, step: int, scalars: Mapping[str, float]) -> None:
        """Shows the newest numbers."""
        losses = " ".join(f"{k} {v:.3f}" for k, v in scalars.items() if k.endswith("loss"))
        rate = scalars["images_per_second"]
        text = f"{scalars['images']:,.0f} img {rate:.1f} img/s {losses}"
        if scalars["input_wait"] > 0.1:
            text += f" waiting for data {scalars['input_wait']:.0%}"
        if self._live:
            self._bar.set_postfix_str(text)
        else:
            left = (self._total - step) / max(scalars["steps_per_second"], 1e-9)
            say(f"step {step}/{self._total}  {text}  ETA {clock(left)}")

    def say(self, text: str) -> None:
        """Prints a line without breaking the live one."""
        if self._live:
            self._bar.write(text)
        else:
            say(text)

    def close(self) -> None:
        """Leaves the last line on the screen."""
        self._bar.close()


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


@dataclasses.dataclass(frozen=True)
class Network:
    """A row of `parameter_table`: a network, its size, and who trains it."""

    network: str
    parameters: int
    size: str
    role: str


def parameter_table(method: Method, state: State, frozen: Mapping[str, Tree]) -> str:
    """One row a network: parameters, bytes, and who trains it; arrays may be shapes."""
    rows = []
    for net in method.nets:
        tree = state.params[net] if net in state.params else frozen[net]
        trainers = [p.name for p in method.players if net in p.nets]
        idle = "frozen" if net in method.frozen else "updated by no player"
        role = f"trained by {', '.join(trainers)}" if trainers else idle
        role += ", averaged" if net in method.ema else ""
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
        rows.append(Network(net, count(tree), f"{size / 2**20:,.1f} MiB", role))
    if parameter_overview is None:
        return "\n".join(f"  {r.network}: {r.parameters:,}, {r.size}, {r.role}" for r in rows)
    return parameter_overview.make_table(rows)


def parameter_list(state: State) -> str:
    """Every trained array: path, shape, dtype, size, how it is split; and their sum."""
    if parameter_overview is None:
        return "This list needs clu: pip install clu\n"
    rows = parameter_overview.get_parameter_overview(state.params, include_stats="sharding")
    return rows + "\n"


def peak_memory() -> dict[str, float]:
    """Peak bytes in use: of the first device where it tells, else of this process."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return {"peak_device_mib": stats["peak_bytes_in_use"] / 2**20}
    return {"peak_host_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def fail(error: Exception) -> None:
    """Ends the program with a message instead of a traceback."""
    sys.exit(f"error: {error}")
