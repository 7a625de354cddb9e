"""The official side: its own training loop, fed from here, in a process of its own.

The loop of each system runs as it is and as long as it likes; what it takes for its data loader
waits for commands between two steps, and so knows when a step has ended. Needs PyTorch and nothing
of this library.
"""

import contextlib
import importlib
import json
import sys
import time
from pathlib import Path

import numpy as np

from peers import checkout, talk

# System: (module of its adapter, its class).
ADAPTERS = {
    "df_gan": ("peers.df_gan", "DfGan"),
    "galip": ("peers.galip", "Galip"),
    "souza": ("peers.souza", "Souza"),
    "stylegan_t": ("peers.stylegan_t", "StyleganT"),
    "attngan": ("peers.staged", "AttnGan"),
    "dm_gan": ("peers.staged", "DmGan"),
}


class Stop(Exception):
    """Raised out of the official loop when all is measured."""


class Loader:
    """What the official loop takes for its data loader.

    Args:
      adapter: of the system; feeds and draws.
      line: where commands come from.
      device: what has to be waited for.
      rows: the batch of a measurement.
    """

    def __init__(self, adapter, line: talk.Line, device, rows: dict | None):
        self.adapter, self.line, self.device, self.rows = adapter, line, device, rows

    def __len__(self) -> int:
        return 10**9

    def wait(self) -> None:
        """Until the device is done."""
        if self.device.type == "cuda":
            import torch

            torch.cuda.synchronize()

    def __iter__(self):
        while True:
            command = self.line.next()
            if command["do"] == "train":
                yield from self._train(command["steps"])
            elif command["do"] == "learn":
                yield from self._learn(command)
            elif command["do"] == "draw":
                self._draw(command["count"])
            elif command["do"] == "memory":
                self.line.reply(**self._memory())
            else:
                raise Stop

    def _train(self, steps: int):
        self.wait()
        started = time.perf_counter()
        for _ in range(steps):
            yield self.adapter.feed(self.rows)
        self.wait()
        self.line.reply(seconds=(time.perf_counter() - started) / steps)

    def _draw(self, count: int) -> None:
        rows = {k: np.repeat(x[:1], count, 0) for k, x in self.rows.items()}
        self.line.reply(seconds=talk.seconds_of(lambda: self.adapter.draw(rows), self.wait))

    def _memory(self) -> dict[str, int]:
        if self.device.type == "cuda":
            import torch

            out = {"device_mib": torch.cuda.max_memory_allocated() // 2**20}
            torch.cuda.reset_peak_memory_stats()
            return out
        out = {"rss_mib": talk.peak_mib()}
        talk.forget_peak()
        return out

    def _learn(self, command: dict):
        """Steps on given batches; losses, and pictures of the held-out rows now and then."""
        data, out = dict(np.load(command["data"])), Path(command["out"])
        held = {k.removeprefix("held_"): x for k, x in data.items() if k.startswith("held_")}
        train = {k: x for k, x in data.items() if not k.startswith("held_")}
        steps, size, losses = command["steps"], command["batch"], []
        watch = talk.Stopwatch()
        for step in range(steps + 1):
            if step in command["look_at"]:
                self.line.progress(step, steps, watch.seconds)
                parts = talk.parts(held, command["at_once"])
                np.save(out / f"{step}.npy", np.concatenate([*map(self.adapter.draw, parts)]))
            if step == steps:
                break
            part = slice(step * size, (step + 1) * size)
            with watch:
                yield self.adapter.feed({k: x[part] for k, x in train.items()})
                losses.append(self.adapter.losses())
        (out / "losses.json").write_text(json.dumps(losses))
        self.line.reply(**watch.said())


def build(job: dict):
    """(adapter, device) of a job.

    Raises:
      PeerError: says what is missing.
    """
    module, name = ADAPTERS[job["system"]]
    needs = checkout.NEEDS[job["system"]]
    root = checkout.folder(job["system"], job["checkout"], needs)
    if importlib.util.find_spec("torch") is None:
        raise talk.PeerError(
            f"{sys.executable} has no PyTorch, which the official code needs; install torch there, "
            "or name another interpreter with --python"
        )
    import torch

    torch.set_num_threads(len(job["cores"]))
    torch.manual_seed(job["seed"])
    np.random.seed(job["seed"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        checkout.without_cuda()
    if importlib.util.find_spec("torchvision") is not None:
        checkout.torchvision()
    stood_in = checkout.stand_ins()
    adapter = getattr(importlib.import_module(module), name)(
        root, job["size"], device, amp=job["precision"] == "amp", given=job["given"]
    )
    return adapter, device, sorted({name.partition(".")[0] for name in stood_in.used})


def main() -> None:
    """Builds what the first command asks for, then lets the official loop run."""
    line = talk.Line()
    job = line.next()
    talk.pin(job["cores"])
    try:
        adapter, device, absent = build(job)
    except talk.PeerError as error:
        line.reply(error=str(error))
        return
    import torch

    from peers import tensors

    if job["weights"]:
        np.savez(job["weights"], **tensors.state(adapter.nets, adapter.skipped))
    line.reply(
        torch=torch.__version__,
        device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        precision=adapter.precision,
        parameters=tensors.count(adapter.nets, adapter.skipped),
        stand_ins=absent,
    )
    rows = dict(np.load(job["batch"])) if job["batch"] else None
    with contextlib.suppress(Stop):
        adapter.train(Loader(adapter, line, device, rows))


if __name__ == "__main__":
    main()
