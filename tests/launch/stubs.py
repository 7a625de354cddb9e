"""Stand-ins for gcloud, kubectl, srun and the like: they record how they are called and answer."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
STUB = f"""#!{sys.executable} -IS
import fcntl, json, os, sys
called = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
folder = os.environ["STUBS"]
# Several may be called at once; the lock ends with the process.
turn = open(folder + "/turn", "w")
fcntl.flock(turn, fcntl.LOCK_EX)
with open(folder + "/calls", "a") as calls:
    calls.write(json.dumps(called) + "\\n")
with open(folder + "/answers") as file:
    answers = json.load(file)
for words, given in answers.items():
    if words in " ".join(called):
        out, err, code = given.pop(0) if len(given) > 1 else given[0]
        with open(folder + "/answers", "w") as file:
            json.dump(answers, file)
        if out == "<stdin>":
            out = sys.stdin.read()
        sys.stdout.write(out)
        sys.stderr.write(err)
        sys.exit(code)
"""


class Stubs:
    """A folder of stand-ins, first on the PATH of what `run` starts.

    Attributes:
      env: more environment for the scripts.
    """

    def __init__(self, folder: Path, *names: str):
        self.folder, self.env = folder, {}
        folder.mkdir()
        for name in names:
            (folder / name).write_text(STUB)
            (folder / name).chmod(0o755)
        self.answer({})

    def answer(self, answers: dict[str, list]) -> None:
        """{words of a call: its answers in turn, the last for good}; text or (out, err, code)."""
        full = {
            words: [(a, "", 0) if isinstance(a, str) else a for a in given]
            for words, given in answers.items()
        }
        (self.folder / "answers").write_text(json.dumps(full))

    def run(self, *command: str, code: int = 0) -> str:
        """Runs a command in the repository and returns all it says."""
        done = subprocess.run(
            list(map(str, command)),
            cwd=ROOT,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith(("TPU_", "SLURM_"))},
                "STUBS": str(self.folder),
                "PATH": f"{self.folder}:{os.environ['PATH']}",
                **self.env,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def calls(self) -> list[list[str]]:
        """The calls since the last time that was asked."""
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]
