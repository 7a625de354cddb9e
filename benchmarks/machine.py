"""What every benchmark line says of where it was measured, and how lines are kept."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import jax

from jaxt2i.run import flags

# What is measured runs as the commands run it.
flags.apply()


def facts() -> dict:
    """Machine, versions and commit."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return {
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "devices": jax.device_count(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        **{name: version(name) for name in ("jax", "jaxlib", "flax")},
        "commit": commit.stdout.strip(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def results(name: str, ending: str = "json") -> Path:
    """Where a file of results is."""
    return Path(__file__).parent / "results" / f"{name}.{ending}"


def report(lines: list[dict], file: str | None) -> None:
    """Keeps lines, with the machine's facts, as benchmarks/results/FILE.json."""
    if file:
        text = json.dumps({"machine": facts(), "lines": lines}, indent=1)
        results(file).write_text(text + "\n")


def show(line: dict) -> dict:
    """Prints one line as JSON and gives it back."""
    print(json.dumps(line), flush=True)
    return line
