"""Our side: the library's own method, step program and drawer, in a process of its own."""

import importlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from peers import given, talk
from peers.sizes import draws

# The published preset whose settings are taken; "cub" where nothing is said.
PRESETS = {"galip": "coco", "stylegan_t": "lite64"}
PRECISION = {"float32": "float32", "amp": "bfloat16"}
# {network: (module of its published names, key of its tables)} beside those of the systems.
ENCODERS = {
    "galip": {"image": ("clip_names", "image")},
    "stylegan_t": {"guide": ("clip_names", "image"), "features": ("dino_names", "features")},
    "attngan": {net: ("damsm_names", net) for net in ("text", "image")},
    "dm_gan": {net: ("damsm_names", net) for net in ("text", "image")},
}


def config_of(job: dict[str, Any]):
    """The published configuration at a job's size, on random encoders."""
    from jaxt2i.run import settings

    system, size = job["system"], job["size"]
    file = Path(__file__).parents[2] / "configs" / f"{system}.py"
    c = settings.preset(str(file), PRESETS.get(system, "cub"))
    c.batch_size, c.accumulate, c.seed = size["batch"], 1, job["seed"]
    c.precision = PRECISION[job["precision"]]
    c.data.update(source="synthetic", corpus="blooms", tokens=size["tokens"])
    mini = system in ("galip", "stylegan_t") or size.get("perception") == "mini"
    c.data.tokenizer = "mini" if mini else "words"
    c.data.resolution = size.get("real", size["resolution"])
    # The mini CLIP comes with the library.
    c.model.weights = "pretrained" if size.get("perception") == "mini" else "random"
    c.model.update({name: value for name, value in size.items() if name in c.model})
    if job["given"] and "clip" in size:
        given.register(size)
        c.model.perception = given.KIND
    if "base" in size:
        c.model.update(g_base=size["base"], d_base=size["base"])
    if "vocab" in size and "text_vocab" in c.model:
        c.model.text_vocab = size["vocab"]
    if "image_size" in c.model:
        c.model.update(image_size=size["resolution"], mismatch_group=0)
    if "micro_batch" in c.model:
        c.model.micro_batch = min(c.model.micro_batch, size["batch"])
    for player, lr in zip(("g", "d"), size.get("lr", ()), strict=False):
        c.optim[player].lr = lr
    return c


def tables(system: str) -> dict[str, tuple]:
    """{network: tables of its published names}."""
    known = dict(importlib.import_module(f"jaxt2i.systems.{system}.names").TABLES)
    for net, (module, key) in ENCODERS.get(system, {}).items():
        known[net] = importlib.import_module(f"jaxt2i.encoders.{module}").TABLES[key]
    return known


def templates_of(run) -> dict[str, Any]:
    """{network: variables}, shapes alone."""
    from jaxt2i.engine import state as states

    shapes, frozen = states.shapes(run.method, run.batch_spec())
    return frozen | {n: {"params": x, **shapes.extra.get(n, {})} for n, x in shapes.params.items()}


def converted(job: dict, templates: Mapping[str, Any]) -> dict[str, Any]:
    """{network: variables} that the official side began with, of those that it has.

    Raises:
      PeerError: where its networks are not ours.
    """
    from jaxt2i.convert import rules

    known, out = tables(job["system"]), {}
    with np.load(job["weights"]) as file:
        held = {key: file[key] for key in file.files}
    for net, template in templates.items():
        weights = {k.partition("|")[2]: x for k, x in held.items() if k.startswith(f"{net}|")}
        if not weights:
            continue
        try:
            table = rules.pick(known[net], weights)
            out[net], report = rules.to_flax(table, weights, template)
            report.require_all(f"the official network {net!r}")
        except rules.ConversionError as error:
            raise talk.PeerError(f"{job['system']}: {error}") from None
    return out


class Side:
    """What a job builds.

    Attributes:
      method: the library's, of the job's configuration.
      about: what it says of itself.
    """

    def __init__(self, job: dict[str, Any]):
        import jax

        from jaxt2i.engine import mesh
        from jaxt2i.engine import state as states
        from jaxt2i.engine import step as steps
        from jaxt2i.run import open as runs
        from jaxt2i.run import training

        run = runs.open_run(config_of(job))
        self.method, spec, self.draws = run.method, run.batch_spec(), draws(job["size"])
        # One device, as the official loops use without their multi-GPU options.
        self.layout = mesh.Layout(mesh.make(1, 1, 1, jax.devices()[:1]))
        weights, nets = converted(job, templates_of(run)), run.method.trained
        self.state = states.new(self.method, {n: weights[n] for n in nets})
        if job["given"]:
            self.method, self.frozen, spec = given.with_given(job, self.method, weights, spec)
        else:
            place = self.layout.shardings(states.shapes(run.method, spec)[1])
            self.frozen = states.create_frozen(self.method, spec, job["seed"], place)
        self.state, self.frozen = (
            jax.device_put(tree, self.layout.shardings(tree)) for tree in (self.state, self.frozen)
        )
        rules = steps.Rules(job["seed"], run.config.batch_size, 1000)
        there = jax.eval_shape(lambda *x: x, self.state, self.frozen)
        programs = training.compile_step(self.method, rules, self.layout, spec, there)
        self.play, self.rows, self.batch = programs.play[1], None, None
        if job["batch"]:
            self.rows = dict(np.load(job["batch"]))
            self.batch = self.layout.put_batch({k: self.rows[k] for k in spec})
        self.about = {
            "jax": jax.__version__,
            "device": jax.devices()[0].device_kind,
            "threads": len(os.sched_getaffinity(0)),
            "precision": run.config.precision,
            "products": run.config.matmul_precision,
            "parameters": {n: states.count(weights[n]["params"]) for n in nets},
            "compile_s": round(programs.compile_seconds, 1),
            "gflop": round(programs.flops / 1e9, 1),
        }

    def train(self, steps: int) -> float:
        """Seconds a step."""
        import jax

        jax.block_until_ready(self.state)
        started = time.perf_counter()
        for _ in range(steps):
            self.state, metrics = self.play(self.state, self.frozen, self.batch)
        jax.block_until_ready((self.state, metrics))
        return (time.perf_counter() - started) / steps

    def drawer(self) -> Callable[[int], float]:
        """Seconds that so many pictures take, as the command line and the Python API draw them."""
        from jaxt2i.engine import draw

        made = draw.Drawer(method=self.method, layout=self.layout, wanted=("image",))
        row = {name: self.rows[name][0] for name in self.method.sampler.needs}

        def seconds(count: int) -> float:
            weights = self.state.replace(opt={}), self.frozen
            requests = [draw.Request(row, seed) for seed in range(count)]
            return talk.seconds_of(lambda: list(made.stream(*weights, requests)), lambda: None)

        return seconds

    def learn(self, command: dict, line: talk.Line) -> talk.Stopwatch:
        """Steps on given batches; losses, and pictures of the held-out rows now and then.

        Returns:
          What the steps alone took.
        """
        import jax

        data, out = dict(np.load(command["data"])), Path(command["out"])
        size, losses, look, watch = command["batch"], [], self.looker(), talk.Stopwatch()
        held = {k.removeprefix("held_"): x for k, x in data.items() if k.startswith("held_")}
        train = {k: x for k, x in data.items() if not k.startswith("held_")}
        for step in range(command["steps"] + 1):
            if step in command["look_at"]:
                line.progress(step, command["steps"], watch.seconds)
                parts = talk.parts(held, command["at_once"])
                image = np.concatenate([look(self.state, part) for part in parts]).clip(-1, 1)
                np.save(out / f"{step}.npy", ((image + 1) * 127.5).astype(np.uint8))
            if step == command["steps"]:
                break
            part = slice(step * size, (step + 1) * size)
            keys = (*self.method.needs, *self.draws)
            batch = self.layout.put_batch({k: train[k][part] for k in keys})
            with watch:
                self.state, metrics = self.play(self.state, self.frozen, batch)
                metrics = jax.device_get(metrics)
            losses.append({k: float(x) for k, x in metrics.items() if x.ndim == 0})
        (out / "losses.json").write_text(json.dumps(losses))
        return watch

    def looker(self) -> Callable:
        """(state, held-out rows) -> pictures [n, H, W, 3] of the weights as they are."""
        import jax

        from jaxt2i.engine import state as states

        @jax.jit
        def look(state, frozen, rows):
            ctx = states.context(self.method, state, frozen, key=None, use_ema=False)
            keys = jax.vmap(jax.random.key)(jax.numpy.arange(len(rows["z"])))
            return self.method.sampler(ctx, rows, keys, z=rows["z"])["image"]

        needs = (*self.method.sampler.needs, "z")
        return lambda state, held: look(
            state.replace(opt={}), self.frozen, {k: held[k] for k in needs}
        )

    def memory(self) -> dict[str, int]:
        """The most that was held since it was last asked."""
        import jax

        stats = jax.devices()[0].memory_stats() or {}
        if "peak_bytes_in_use" in stats:
            return {"device_mib": stats["peak_bytes_in_use"] // 2**20}
        out = {"rss_mib": talk.peak_mib()}
        talk.forget_peak()
        return out


def main() -> None:
    """Builds what the first command asks for, then answers the others."""
    line = talk.Line()
    job = line.next()
    talk.pin(job["cores"])
    from jaxt2i.run import open as runs

    runs.prepare_jax()
    try:
        side = Side(job)
    except (talk.PeerError, *runs.USER_ERRORS) as error:
        line.reply(error=str(error))
        return
    line.reply(**side.about)
    draw = None
    while (command := line.next())["do"] != "stop":
        if command["do"] == "train":
            line.reply(seconds=side.train(command["steps"]))
        elif command["do"] == "draw":
            draw = draw or side.drawer()
            line.reply(seconds=draw(command["count"]))
        elif command["do"] == "learn":
            line.reply(**side.learn(command, line).said())
        else:
            line.reply(**side.memory())


if __name__ == "__main__":
    main()
