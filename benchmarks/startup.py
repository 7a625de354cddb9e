"""From the command to the first step: python benchmarks/startup.py [--config F ...] [--save NAME].

Each line is the real command in a process of its own, with a clock around its parts: first with an
empty compilation cache, then `--repeats` times with what the first one left there. Compiling runs
beside the making of the state, so the parts are more than the whole; the probe, which tells whether
a run is well, comes after the first step. Weights are random where they are not shipped. The last
line says how long TensorFlow takes to load, which begins after the first steps, as it is and as
`jaxt2i.data.tf` loads it. `--tree DIR` measures another copy of the package; a busy machine is best
judged by CPU seconds, all threads together.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from machine import report, show

ROOT = Path(__file__).parents[1]
CONFIGS = ("stylegan_t", "galip", "df_gan", "souza", "attngan", "dm_gan", "damsm", "clip")


def fresh(script: str, *args: str, env: dict | None = None, tree: Path = ROOT) -> dict:
    """What a script prints last, as JSON, when a new process runs it with --child.

    Raises:
      RuntimeError: with its last words when it fails.
    """
    path = os.pathsep.join((str(tree), *filter(None, [os.environ.get("PYTHONPATH")])))
    out = subprocess.run(
        [sys.executable, script, "--child", *args],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": path, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if out.returncode:
        raise RuntimeError(f"{' '.join(args)}:\n{out.stdout[-1000:]}\n{out.stderr[-3000:]}")
    return json.loads(out.stdout.splitlines()[-1])


class Laps:
    """Seconds of the parts of a start, and when the process began."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._process = psutil.Process()
        self._begun = self._process.create_time()

    def since_start(self) -> float:
        """Seconds since the process began."""
        return time.time() - self._begun

    def cpu(self) -> float:
        """CPU seconds so far, of all threads."""
        times = self._process.cpu_times()
        return times.user + times.system

    def timed(self, name: str, owner, attribute: str) -> None:
        """Adds the time of each call of a function to a part."""
        function = getattr(owner, attribute)

        def around(*args, **kw):
            started = time.perf_counter()
            try:
                return function(*args, **kw)
            finally:
                took = time.perf_counter() - started
                self.seconds[name] = self.seconds.get(name, 0.0) + took

        setattr(owner, attribute, around)


def child(config_file: str, preset: str, workdir: str) -> None:
    """Trains one step as the command line does, and prints the times as its last line."""
    laps = Laps()
    # Here, so that a process that only starts others stays small.
    import jax

    from jaxt2i import train as command
    from jaxt2i.run import log, settings, train, training
    from jaxt2i.run import open as runs

    assert command.main
    laps.seconds["import"] = laps.since_start()
    laps.timed("prepare", runs, "prepare_jax")
    laps.timed("build", runs, "open_run")
    laps.timed("data", runs.Run, "source")
    laps.timed("data", runs.Run, "pipeline")
    laps.timed("compile", jax.stages.Lowered, "compile")
    lower = training.loop.lower_step
    training.loop.lower_step = lambda *args: list(lower(*args))  # all of it while the clock runs
    laps.timed("trace", training.loop, "lower_step")
    laps.timed("probe", train, "probe_of")
    laps.timed("state", training, "start")
    laps.timed("samples and scores", training, "Painting")
    write = log.Records.write

    def first_numbers(self, step, scalars):
        laps.seconds.setdefault("first step", laps.since_start())
        laps.seconds.setdefault("cpu", laps.cpu())
        write(self, step, scalars)

    log.Records.write = first_numbers
    runs.prepare_jax()
    config = settings.preset(config_file, preset)
    config.update(total_steps=1, sample_every_steps=0, checkpoint_every_steps=0)
    if "weights" in config.model:
        config.model.weights = "random"
    train.train(config, Path(workdir), "")
    times = laps.seconds
    print(json.dumps({f"{k.replace(' ', '_')}_s": round(v, 2) for k, v in times.items()}))


def loading(repeats: int, tree: Path) -> dict:
    """Seconds that TensorFlow takes to load, in processes of their own, alternating."""
    ways = {
        "plain": "import tensorflow",
        "ours": "from jaxt2i.data import tf; tf.tensorflow()",
    }
    took = {name: [] for name in ways}
    for _ in range(repeats):
        for name, words in ways.items():
            timed = (
                "import time; begin = time.perf_counter()\n"
                f"{words}\nprint(time.perf_counter() - begin)"
            )
            out = subprocess.check_output(
                [sys.executable, "-c", timed], cwd=tree, text=True, stderr=subprocess.DEVNULL
            )
            took[name].append(float(out))
    middle = {f"{name}_s": round(statistics.median(x), 2) for name, x in took.items()}
    return show({"what": "loading TensorFlow", **middle})


def measure(name: str, preset: str, repeats: int, tree: Path) -> list[dict]:
    """The lines of one preset: with an empty cache, then the median of those with a full one."""

    def start(env):
        with tempfile.TemporaryDirectory(prefix="jaxt2i-startup-") as workdir:
            return fresh(__file__, f"configs/{name}.py", preset, workdir, env=env, tree=tree)

    with tempfile.TemporaryDirectory(prefix="jaxt2i-cache-") as cache:
        env = {"JAX_COMPILATION_CACHE_DIR": cache}
        cold, warm = start(env), [start(env) for _ in range(repeats)]
    common = {"what": "start", "method": name, "preset": preset}
    lines = [show({**common, "cache": "empty", **cold})]
    if warm:
        middle = {key: round(statistics.median(run[key] for run in warm), 2) for key in warm[0]}
        spread = [
            min(run["first_step_s"] for run in warm),
            max(run["first_step_s"] for run in warm),
        ]
        lines.append(show({**common, "cache": "full", **middle, "first_step_min_max_s": spread}))
    return lines


def main() -> None:
    """Measures what the command line asks for."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--config", nargs="+", default=CONFIGS, help="names of files in configs/")
    p.add_argument("--preset", nargs="+", default=["tiny", "embedded"])
    p.add_argument("--repeats", type=int, default=3, help="starts with a full cache")
    p.add_argument("--tree", type=Path, default=ROOT, help="where another copy of the package is")
    p.add_argument("--save", help="name of the file in benchmarks/results")
    p.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.child:
        child(*args.child)
        return
    lines = []
    for name in args.config:
        for preset in args.preset:
            lines += measure(name, preset, args.repeats, args.tree)
    if args.repeats:
        lines.append(loading(args.repeats, args.tree))
    # Only now: it asks for the devices, which the measured processes need for themselves.
    report(lines, args.save)


if __name__ == "__main__":
    main()
