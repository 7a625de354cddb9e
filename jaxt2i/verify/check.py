"""One case: computed, compared, and where float32 fails judged in float64."""

import contextlib
import dataclasses
import math
import time
import traceback
from collections.abc import Iterator

import jax
import numpy as np

from jaxt2i.engine.method import PRODUCTS
from jaxt2i.verify.compute import float64
from jaxt2i.verify.find import Runner
from jaxt2i.verify.golden import (
    Case,
    Comparison,
    Golden,
    GoldenError,
    compare,
    compare_json,
    subsample,
)

STATUSES = ("pass", "kink", "FAIL", "no runner")
# Of float32 products: as the system of a case is trained, as the platform multiplies, exactly.
PRECISIONS = ("training", "default", "highest")
TRAINING = PRECISIONS[0]
# In float64 only a wrong formula is further off, as a share of the reference's peak.
WIDE_LIMIT = 1e-5
# A kink that flips moves some entries; an error of the maths moves them all.
CONFINED = 0.05
# Inputs that are off by this share of themselves are as good as they were; and what they then move
# explains an error that is up to twice as large.
ROUNDING, SHARE = 1e-7, 0.5
# A recorded figure has two digits.
RECORDED = 1.05
OF_FLOAT32 = "float32's own rounding is stored: judged in float32"


@dataclasses.dataclass
class Line:
    """One compared array, or one case that could not be compared.

    Attributes:
      case: "folder/case".
      output: name of the array, "" where the whole case is meant.
      status: "pass"; "kink": rounding alone explains what is off, in float32 (few entries, and
        float64 agrees) or in the reference (`of_reference`); "FAIL"; or "no runner".
      result: the comparison, where there was one; of a kink, the float32 one.
      wide: the comparison in float64, where float32 failed.
      note: what is wrong, in words.
      seconds: time of the whole case, on its first line.
      products: precision of float32 products.
    """

    case: str
    output: str
    status: str
    result: Comparison | None = None
    wide: Comparison | None = None
    note: str = ""
    seconds: float = 0.0
    products: str = ""


def check(
    golden: Golden,
    label: str,
    name: str,
    run: Runner,
    precision: str = "default",
    wide: bool = False,
) -> Iterator[Line]:
    """Runs one case and compares everything the folder has of it.

    Large outputs are stored with strides; a runner may give them whole. Where float32 fails, the
    case is repeated in float64, and `judged` decides. What is float32's own (`of_float32`) is
    judged in float32, also where `wide` asks for float64.

    Args:
      golden: the folder.
      label: "folder/case".
      name: of the case.
      run: computes it.
      precision: of float32 products, a key of `jaxt2i.engine.method.PRODUCTS` or "highest".
      wide: compute in float64 at once, with the limits of `wide_limit`.
    """
    start = time.perf_counter()
    try:
        case = golden.case(name)
        made = _made(golden, case, run, precision, wide)
        found = _compared(case, made, wide)
        doubtful = [k for k, x in found.items() if not x.passed and not math.isnan(x.error)]
        again, moved = {}, {}
        if doubtful and not wide:
            again = _compared(case, _made(golden, case, run, precision, True), True)
            if case.data is None and any(scattered(found[k]) for k in doubtful):
                moved = moves(made, _made(golden, nudged(case), run, precision, False), doubtful)
        kept = [k for k in doubtful if wide and of_float32(case, k)]
        if kept:
            narrow = _compared(case, _made(golden, case, run, precision, False), False)
            found |= {k: narrow[k]._replace(note=OF_FLOAT32) for k in kept}
    except GoldenError as error:
        yield Line(label, "", "FAIL", note=str(error))
        return
    except Exception as error:
        traceback.print_exc()
        said = f"the runner stopped: {type(error).__name__}: {error}"
        yield Line(label, "", "FAIL", note=said.splitlines()[0])
        return
    seconds = time.perf_counter() - start
    for output, result in found.items():
        own = of_reference(case, output)
        if output in doubtful and not wide:
            status, note = judged(result, again[output], own, moved.get(output, 0.0))
            yield Line(label, output, status, result, again[output], note, seconds)
        elif wide and not result.passed and agrees(result, own):
            note = f"a kink: the reference's float32 is off by {own:.1e} of peak from its float64"
            yield Line(label, output, "kink", result, None, note, seconds)
        else:
            status = "pass" if result.passed else "FAIL"
            yield Line(label, output, status, result, None, result.note, seconds)
        seconds = 0.0


def of_reference(case: Case, output: str) -> float:
    """How far the stored float32 array is from the official code's own float64, as a share of peak.

    Folders record it, behind the largest difference, or of the worst array of a case; 0 where they
    do not, and for what is float32's own. Our float64 can be no closer to such an array: there the
    official float32, too, has turned decisions over.
    """
    if case.data is not None or of_float32(case, output):
        return 0.0
    recorded = case.info.get("measured") or {}
    _, *share = recorded.get(output) or recorded.get("*") or [0]
    return (share[0] if share else 0.0) or 0.0


def agrees(wide: Comparison, own: float) -> bool:
    """Whether a float64 array is right, given how far the reference itself is off."""
    return wide.passed or (own > 0 and wide.relative <= WIDE_LIMIT + RECORDED * own)


def nudged(case: Case) -> Case:
    """The case with float32 inputs that are off by about one rounding."""
    rng = np.random.default_rng(0)

    def moved(x: np.ndarray) -> np.ndarray:
        if x.dtype != np.float32:
            return x
        return (x * (1 + ROUNDING * rng.standard_normal(x.shape))).astype(np.float32)

    return dataclasses.replace(case, inputs={k: moved(x) for k, x in case.inputs.items()})


def moves(made: dict, other: dict, outputs: list[str]) -> dict[str, float]:
    """{output: largest difference between two results}."""
    return {
        k: float(np.abs(np.asarray(made[k], float) - np.asarray(other[k], float)).max(initial=0))
        for k in outputs
    }


def scattered(narrow: Comparison) -> bool:
    """Whether more entries miss than a kink that flips would move by itself."""
    return narrow.wrong > max(1, CONFINED * narrow.size) or narrow.size == 1


def judged(
    narrow: Comparison, wide: Comparison, own: float = 0.0, moved: float = 0.0
) -> tuple[str, str]:
    """(status, note) of an array that float32 gets wrong.

    Rounding turns a few ReLU and max-pool decisions over, and what hangs on them. Then the same
    operations in float64 agree with the reference, and float32 differs in few entries; or in many,
    where all of them hang on one decision, but then it also moves when its inputs do.

    Args:
      narrow: the comparison in float32.
      wide: that in float64.
      own: see `of_reference`.
      moved: how far the array moves with inputs that are off by one rounding.
    """
    said = (
        f"float32 off by {narrow.relative:.1e} of peak in {narrow.wrong} of {narrow.size} entries, "
        f"float64 by {wide.relative:.1e}"
    )
    if not agrees(wide, own):
        return "FAIL", f"{said}: the float64 limit is {wide.limit:.1e}"
    if not scattered(narrow):
        return "kink", f"{said}: a kink"
    if moved >= SHARE * narrow.error:
        return "kink", f"{said}: a kink, as inputs off by one rounding move it by {moved:.1e}"
    return "FAIL", f"{said}: the maths is right, but too many entries miss for a kink"


def _made(golden: Golden, case: Case, run: Runner, precision: str, wide: bool) -> dict:
    """{output: array} of one computation."""
    with contextlib.ExitStack() as stack:
        products = PRODUCTS.get(precision, precision)
        stack.enter_context(jax.default_matmul_precision(products))
        if wide:
            stack.enter_context(float64())
        return run(golden, case)


def _compared(case: Case, made: dict, wide: bool) -> dict[str, Comparison]:
    """{output: comparison} of what was made."""
    out = {}
    for output, limit in case.tolerance.items():
        if output not in made:
            out[output] = Comparison(False, math.nan, math.nan, 0.0, "the runner did not make it")
        elif case.data is not None:
            out[output] = compare_json(case.data, made[output], limit)
        else:
            stored = case.outputs[output]
            limit = wide_limit(case, output) if wide else limit
            out[output] = compare(stored, subsample(made[output], stored.shape), limit)
    return out


def of_float32(case: Case, output: str) -> bool:
    """Whether a stored array is float32's own: integers made by rounding, what float32 leaves."""
    return case.data is None and (
        case.outputs[output].dtype.kind in "iu" or output.endswith("_float32")
    )


def wide_limit(case: Case, output: str) -> dict:
    """The limit of an array in float64: `WIDE_LIMIT` of its peak, or its own where that is less."""
    own, stored = case.tolerance[output], case.outputs[output]
    if stored.dtype.kind != "f" or stored.dtype == np.float16:
        return own
    peak = float(np.nan_to_num(np.abs(stored)).max(initial=0))
    limit = WIDE_LIMIT * peak
    if limit >= max(own["abs"], own["rel_peak"] * peak) or peak <= own["abs"]:
        return own
    return {"abs": limit, "rel_peak": 0.0}
