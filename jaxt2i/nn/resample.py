"""All resizing of images and features, [B, H, W, C]: FIR filters, up- and down-convolutions,
and resampling as products with one small matrix an axis.

No variant builds a zero-inserted intermediate. Every variant of an operation gives the same
numbers, borders included; `fastest.FASTEST` says which one a platform uses where the field says
"auto".
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.nn.convolution import convolve, in_phases, transposed
from jaxt2i.nn.fastest import by_platform
from jaxt2i.nn.nearest import centre_index, nearest_index, pillow_index, taken

HIGHEST = jax.lax.Precision.HIGHEST
# Height of a map up to which an up-convolution is a transposed one on every platform: there a TPU
# needs two to seven times fewer cycles for it (benchmarks/results/up_conv_v5e.json). GPUs follow
# the TPU, not yet measured.
LOW = 32
NHWC = ("NHWC", "HWIO", "NHWC")

# --- FIR filters -------------------------------------------------------------------------------


def setup_filter(
    taps: Sequence[float] | Sequence[Sequence[float]] | None,
    *,
    normalize: bool = True,
    flip: bool = False,
    gain: float = 1.0,
    separable: bool | None = None,
) -> np.ndarray:
    """A FIR filter as StyleGAN2 prepares it.

    Args:
      taps: 1-D or 2-D taps; None is the identity.
      normalize: divide by the sum, so that constants pass unchanged.
      flip: mirror it.
      gain: factor of the whole two-dimensional filter.
      separable: keep 1-D taps 1-D (applied along both axes); None: only from 8 taps on.

    Returns:
      float32 [n] (separable) or [fh, fw].
    """
    f = np.asarray([1.0] if taps is None else taps, np.float64)
    if f.ndim == 1 and not (len(f) >= 8 if separable is None else separable):
        f = np.outer(f, f)
    if normalize:
        f = f / f.sum()
    if flip:
        f = np.flip(f)
    return (f * gain ** (f.ndim / 2)).astype(np.float32)


def _two(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _four(padding: int | Sequence[int]) -> tuple[int, int, int, int]:
    """Padding as (x0, x1, y0, y1) from one number, (x, y) or all four."""
    if isinstance(padding, int):
        return (padding,) * 4
    if len(padding) == 2:
        return (padding[0], padding[0], padding[1], padding[1])
    return tuple(padding)


def separate(f: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """(vertical, horizontal) taps of a filter, None where it is not a product of two."""
    if f.ndim == 1:
        return f, f
    left, values, right = np.linalg.svd(np.asarray(f, np.float64))
    if len(values) > 1 and values[1] > 1e-6 * values[0]:
        return None
    root = np.sqrt(values[0]) * np.sign(left[:, 0].sum() or 1)
    return left[:, 0] * root, right[0] * root


def fir_matrix(
    taps: np.ndarray, size: int, *, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """One axis of `upfirdn2d` as a matrix.

    Args:
      taps: [n], applied as a correlation.
      size: length of the axis.
      up: every sample is followed by up - 1 zeros.
      down: every `down`-th sample of the result is kept.
      pad: zeros before and after; negative crops.

    Returns:
      float32 [out, size].
    """
    out = (size * up + sum(pad) - len(taps)) // down + 1
    matrix = np.zeros((out, size), np.float64)
    for k, tap in enumerate(taps):
        at = np.arange(out) * down + k - pad[0]  # position in the zero-inserted axis
        hit = (at % up == 0) & (at >= 0) & (at < size * up)
        matrix[np.flatnonzero(hit), at[hit] // up] += tap
    return matrix.astype(np.float32)


def apply_matrices(
    x: jax.Array, rows: jax.Array | np.ndarray, cols: jax.Array | np.ndarray
) -> jax.Array:
    """Resamples both axes of images by matrices, in full float32 precision.

    Args:
      x: [B, H, W, C].
      rows: [out, H], or [G, out, H]: one matrix for each of G groups of consecutive images.
      cols: [out, W] or [G, out, W].

    Returns:
      [B, out, out, C], of x's dtype.
    """
    rows, cols = jnp.asarray(rows, x.dtype), jnp.asarray(cols, x.dtype)
    if rows.ndim == 2:
        x = jnp.einsum("ih,bhwc->biwc", rows, x, precision=HIGHEST)
        return jnp.einsum("jw,biwc->bijc", cols, x, precision=HIGHEST)
    grouped = x.reshape(len(rows), -1, *x.shape[1:])
    grouped = jnp.einsum("gih,gbhwc->gbiwc", rows, grouped, precision=HIGHEST)
    grouped = jnp.einsum("gjw,gbiwc->gbijc", cols, grouped, precision=HIGHEST)
    return grouped.reshape(x.shape[0], *grouped.shape[2:])


def _dilated_fir(
    x: jax.Array, f: np.ndarray, up: tuple[int, int], down: tuple[int, int], pad: Sequence[int]
) -> jax.Array:
    """Depthwise correlation of [B, H, W, C] with [fh, fw]; pads are (x0, x1, y0, y1)."""
    (ux, uy), (x0, x1, y0, y1), channels = up, pad, x.shape[-1]
    kernel = jnp.tile(jnp.asarray(f, x.dtype)[:, :, None, None], (1, 1, 1, channels))
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (down[1], down[0]),
        ((y0, y1 + uy - 1), (x0, x1 + ux - 1)),  # the zeros after the last sample
        lhs_dilation=(uy, ux),
        dimension_numbers=NHWC,
        feature_group_count=channels,
        precision=HIGHEST,
    )


def upfirdn2d(
    x: jax.Array,
    f: np.ndarray,
    *,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    gain: float = 1.0,
    flip: bool = False,
    variant: str = "auto",
) -> jax.Array:
    """Zero-inserts, pads, filters and decimates, as one operation.

    Args:
      x: [B, H, W, C].
      f: what `setup_filter` returns; a constant.
      up: zeros after each sample: up - 1; one number or (x, y).
      down: keep every `down`-th sample; one number or (x, y).
      padding: zeros in the up-sampled image: one number, (x, y) or (x0, x1, y0, y1); negative
        crops.
      gain: factor of the result.
      flip: False is a true convolution, True a correlation.
      variant: "dilated" (depthwise convolution), "matmul" (one matrix an axis; filters that are
        a product of two) or "auto".

    Returns:
      [B, H', W', C], H' = (H up + y0 + y1 - fh) // down + 1.
    """
    up, down, pad = _two(up), _two(down), _four(padding)
    f = np.asarray(f, np.float64) * gain ** (f.ndim / 2)
    f = f if flip else np.flip(f)
    parts = separate(f)

    def dilated(x: jax.Array) -> jax.Array:
        if f.ndim == 2:
            return _dilated_fir(x, f, up, down, pad)
        x = _dilated_fir(x, f[None, :], (up[0], 1), (down[0], 1), (*pad[:2], 0, 0))
        return _dilated_fir(x, f[:, None], (1, up[1]), (1, down[1]), (0, 0, *pad[2:]))

    def matmul(x: jax.Array) -> jax.Array:
        rows = fir_matrix(parts[0], x.shape[1], up=up[1], down=down[1], pad=pad[2:])
        cols = fir_matrix(parts[1], x.shape[2], up=up[0], down=down[0], pad=pad[:2])
        return apply_matrices(x, rows, cols)

    variants = {"dilated": dilated}
    if parts is not None:
        variants["matmul"] = matmul
    return by_platform("upfirdn", variant, variants, x)


def _extent(f: np.ndarray) -> tuple[int, int]:
    """(width, height) of a filter, taps."""
    return f.shape[-1], f.shape[0]


def filter2d(x: jax.Array, f: np.ndarray, **kw) -> jax.Array:
    """Filters at the same size; keywords of `upfirdn2d`."""
    (w, h) = _extent(f)
    return upfirdn2d(x, f, padding=(w // 2, (w - 1) // 2, h // 2, (h - 1) // 2), **kw)


def upsample2d(x: jax.Array, f: np.ndarray, up: int = 2, **kw) -> jax.Array:
    """Enlarges `up` times, brightness kept; keywords of `upfirdn2d`."""
    pad = [p for n in _extent(f) for p in ((n + up - 1) // 2, (n - up) // 2)]
    return upfirdn2d(x, f, up=up, padding=pad, gain=up**2, **kw)


def downsample2d(x: jax.Array, f: np.ndarray, down: int = 2, **kw) -> jax.Array:
    """Shrinks `down` times; keywords of `upfirdn2d`."""
    pad = [p for n in _extent(f) for p in ((n - down + 1) // 2, (n - down) // 2)]
    return upfirdn2d(x, f, down=down, padding=pad, **kw)


# --- Convolutions that resize ------------------------------------------------------------------


def conv2d(x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding="SAME") -> jax.Array:
    """Correlation of [B, H, W, I] with [kh, kw, I, O]."""
    return convolve(x, kernel.astype(x.dtype), (stride, stride), padding)


def phase_matrices(taps: np.ndarray, k: int, pad: int) -> tuple[np.ndarray, int]:
    """Folds one axis of "zero-insert by 2, FIR, valid correlation" into two phase kernels.

    Output 2q + p of the composite is sum_a kernel_p[a] x[q + a + first], where
    kernel_p = matrices[p] @ kernel. Holds at the borders too, as the composite acts on the
    zero-padded input and nothing lies between its two steps.

    Args:
      taps: FIR [n], applied as a correlation.
      k: taps of the convolution.
      pad: zeros before the first sample of the zero-inserted axis.

    Returns:
      (matrices [2, K, k], first).
    """
    entries = [
        (p, (p + s + i - pad) // 2, i, taps[s])
        for p in range(2)
        for s in range(len(taps))
        for i in range(k)
        if (p + s + i - pad) % 2 == 0
    ]
    first = min(e[1] for e in entries)
    matrices = np.zeros((2, max(e[1] for e in entries) - first + 1, k))
    for p, at, i, tap in entries:
        matrices[p, at - first, i] += tap
    return matrices.astype(np.float32), first


def _folded(x, kernel, parts, pads) -> jax.Array:
    k, outputs = kernel.shape[0], kernel.shape[-1]
    batch, height, width, _ = x.shape
    rows, top = phase_matrices(parts[0], k, pads[2])
    cols, left = phase_matrices(parts[1], k, pads[0])
    phases = jnp.einsum("pai,ijIO->apjIO", rows, kernel, precision=HIGHEST)
    phases = jnp.einsum("qbj,apjIO->abIpqO", cols, phases, precision=HIGHEST)
    edges = ((-top, rows.shape[1] - 1 + top), (-left, cols.shape[1] - 1 + left))
    y = conv2d(x, phases.reshape(*phases.shape[:3], -1), padding=edges)  # [B, H, W, 4 O]
    y = y.reshape(batch, height, width, 2, 2, outputs).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(batch, 2 * height, 2 * width, outputs)


def up_conv(
    x: jax.Array, kernel: jax.Array, f: np.ndarray, *, flip: bool = False, variant: str = "auto"
) -> jax.Array:
    """Enlarges twice with the FIR filter f, then convolves, as one linear operation.

    StyleGAN2's `conv2d_resample(up=2)`: zero-insert, pad, FIR with gain 4, valid convolution.
    The FIR's result reaches beyond the image, so this differs at the border from a convolution
    of the enlarged image with zero padding.

    Args:
      x: [B, H, W, I].
      kernel: [k, k, I, O], odd k.
      f: FIR filter, [n] or [n, n].
      flip: turn the kernel by 180 degrees: a true convolution instead of a correlation.
      variant: "dilated" (transposed convolution, then FIR: 9 products a pixel of x), "folded" (FIR
        folded into four kernels on the low-resolution grid, then depth to space: 36), "resize" (FIR
        as two matrix products, then an ordinary convolution: 36), or "auto", which is "dilated" up
        to a height of 32 and the platform's beyond.

    Returns:
      [B, 2H, 2W, O].
    """
    k, (fw, fh) = kernel.shape[0], _extent(f)
    kernel = jnp.flip(kernel, (0, 1)) if flip else kernel
    # Padding of the zero-inserted image: the convolution's own and the FIR's, as (x0, x1, y0, y1).
    pads = [k // 2 + p for n in (fw, fh) for p in ((n + 1) // 2, (n - 2) // 2)]
    true_fir = np.flip(f) * 4.0 ** (f.ndim / 2)
    parts = separate(true_fir)

    def dilated(x: jax.Array, kernel: jax.Array) -> jax.Array:
        y = transposed(x, kernel.astype(x.dtype))  # [B, 2H + k - 2, ..., O]
        # The convolution came first: it used k - 1 zeros in front, and behind one less than
        # that, since the zero after the last sample was not inserted.
        rest = [p - k + 1 + side for p, side in zip(pads, (0, 1, 0, 1), strict=True)]
        return upfirdn2d(y, true_fir, padding=rest, flip=True)

    def folded(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return _folded(x, kernel, parts, pads)

    def resize(x: jax.Array, kernel: jax.Array) -> jax.Array:
        enlarged = upfirdn2d(x, true_fir, up=2, padding=pads, flip=True, variant="matmul")
        return conv2d(enlarged, kernel, padding="VALID")

    variants = {"dilated": dilated}
    if parts is not None:
        variants |= {"folded": folded, "resize": resize}
    if variant == "auto" and x.shape[1] <= LOW:
        variant = "dilated"
    return by_platform("up_conv", variant, variants, x, kernel)


def down_conv(
    x: jax.Array, kernel: jax.Array, f: np.ndarray, *, flip: bool = False, variant: str = "auto"
) -> jax.Array:
    """Filters with f, then convolves with stride 2: StyleGAN2's `conv2d_resample(down=2)`.

    Args:
      x: [B, H, W, I].
      kernel: [k, k, I, O], odd k.
      f: FIR filter, [n] or [n, n].
      flip: turn the kernel by 180 degrees.
      variant: of the filter, see `upfirdn2d`.

    Returns:
      [B, H/2, W/2, O].
    """
    kernel = jnp.flip(kernel, (0, 1)) if flip else kernel
    pads = [kernel.shape[0] // 2 + p for n in _extent(f) for p in ((n - 1) // 2, (n - 2) // 2)]
    return conv2d(upfirdn2d(x, f, padding=pads, variant=variant), kernel, stride=2, padding="VALID")


# --- Doubling and convolving --------------------------------------------------------------------


def _halves(taps: jax.Array) -> jax.Array:
    # Two taps for each of two phases: a pixel of the small picture is two of the large one.
    a, b, c = taps
    return jnp.stack([jnp.stack([a, b + c]), jnp.stack([a + b, c])])


def _in_phases(x: jax.Array, kernel: jax.Array) -> jax.Array:
    rows = _halves(kernel)  # [2 phases, 2 places, 3, I, O]
    phases = _halves(jnp.moveaxis(rows, 2, 0)).transpose(3, 1, 4, 2, 0, 5)
    return in_phases(x, phases.astype(x.dtype))


def _in_rows(x: jax.Array, kernel: jax.Array) -> jax.Array:
    wide = jnp.repeat(x, 2, 2)
    rows = [
        conv2d(wide, taps, padding=((1 - p, p), (1, 1))) for p, taps in enumerate(_halves(kernel))
    ]
    batch, height, width, _ = wide.shape
    return jnp.stack(rows, 2).reshape(batch, 2 * height, width, -1)


def up_nearest_conv(x: jax.Array, kernel: jax.Array, variant: str = "auto") -> jax.Array:
    """Doubles by nearest neighbour, then correlates with 3x3 taps, as one linear operation.

    Each of the four phases of the result sees 2x2 pixels of the small picture: 16 products a pixel
    of it where the convolution of the large picture has 36, and so for both gradients. To weave
    phases into rows costs a TPU more than that: it has two phases, the rows, of 12 products each
    (`benchmarks/results/up_nearest_v5e.json`).

    Args:
      x: [B, H, W, I].
      kernel: [3, 3, I, O]; the large picture has a zero at each border.
      variant: "phases", from 256 pixels of the batch on, below which the sums of taps cost more
        than they save; "rows", from a height of 12 on; "resize", one operation after the other; or
        "auto".

    Returns:
      [B, 2H, 2W, O], of x's dtype.
    """

    def resize(x: jax.Array, kernel: jax.Array) -> jax.Array:
        large = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
        return conv2d(large, kernel, padding=((1, 1), (1, 1)))

    variants = {"resize": resize}
    batch, height, width, _ = x.shape
    # An exported sampler does not know its batch.
    if (batch if isinstance(batch, int) else 1) * height * width >= 256:
        variants["phases"] = _in_phases
    if height >= 12:
        variants["rows"] = _in_rows
    return by_platform("up_nearest_conv", variant, variants, x, kernel)


# --- Resampling matrices -----------------------------------------------------------------------


def area_matrix(out: int, size: int) -> np.ndarray:
    """Adaptive average pooling as a matrix [out, size]; also enlarges (torch mode "area")."""
    i, at = np.arange(out)[:, None], np.arange(size)[None, :]
    inside = (at >= i * size // out) & (at < -(-(i + 1) * size // out))
    return (inside / inside.sum(1, keepdims=True)).astype(np.float32)


F32 = np.float32


def _fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Multiplies and adds in float32, rounding once: a b + c.

    PyTorch computes positions and weights so. Far from the corner the rounding moves a pixel by
    4e-6, at an edge a thousandth of a level of 255.
    """
    return F32(np.multiply(a, b, dtype=np.float64) + c)


def _positions(out: int, scale: float, half: float = 0.0) -> np.ndarray:
    """(i + half) * scale - half for every pixel i, float32 [out]."""
    return _fma(np.arange(out, dtype=F32) + F32(half), F32(scale), -half)


def _tap_matrix(
    out: int, size: int, offsets: range, weight: Callable, step: float | None = None
) -> np.ndarray:
    """Half-pixel resampling without antialiasing; taps beyond the border read its pixel."""
    centre = _positions(out, step or size / out, 0.5)
    base = np.floor(centre)
    matrix = np.zeros((out, size), F32)
    for offset in offsets:
        at = np.clip(base + offset, 0, size - 1).astype(int)
        distance = np.abs(centre - base - F32(offset))
        np.add.at(matrix, (np.arange(out), at), weight(distance))
    return matrix


def bilinear_matrix(out: int, size: int) -> np.ndarray:
    """Bilinear resampling as a matrix [out, size] (torch, align_corners=False, no antialias)."""
    return _tap_matrix(out, size, range(2), lambda d: np.maximum(1 - d, 0))


def corner_matrix(out: int, size: int) -> np.ndarray:
    """Bilinear resampling as a matrix [out, size], corner on corner (torch, align_corners=True)."""
    return _between(_positions(out, (size - 1) / max(out - 1, 1)), size)


def bicubic_matrix(out: int, size: int, a: float = -0.75, step: float | None = None) -> np.ndarray:
    """Bicubic resampling as a matrix [out, size] (torch, align_corners=False, no antialias).

    Args:
      out: length wanted.
      size: length given.
      a: of Keys' cubic.
      step: from pixel to pixel; None fits size to out. PyTorch takes 1 / scale_factor where it is
        given one.
    """
    return _tap_matrix(out, size, range(-1, 3), lambda d: _cubic(d, a), step)


def tf1_matrix(out: int, size: int) -> np.ndarray:
    """TensorFlow 1's `resize_bilinear` as a matrix [out, size]: pixel i reads i * size / out.

    No half pixel and no antialiasing, so pictures move by up to half a pixel and alias: part of
    what the Inception scores of that time measure.
    """
    return _between(_positions(out, size / out), size)


def grid_matrix(out: int, size: int) -> np.ndarray:
    """`tf1_matrix` as `torch.nn.functional.grid_sample` computes it, rounding and all.

    NVIDIA's Inception network of the StyleGAN family resizes so. Positions are float32 numbers
    around 1, which moves pixels by 1e-5: 4e-4 levels of 255.
    """
    step, i, half = F32(2) / F32(out - 1), np.arange(out, dtype=F32), F32(size) / 2
    line = np.where(i < out // 2, _fma(step, i, -1), _fma(-step, out - 1 - i, 1))
    centres = line * F32(out - 1) / F32(out) + (F32(1) / F32(size) - F32(1) / F32(out))
    return _between(np.clip(_fma(centres + F32(1), half, -0.5), 0, size - 1), size)


def _between(at: np.ndarray, size: int) -> np.ndarray:
    """Linear interpolation at positions [out] of an axis as a matrix [out, size]."""
    low = np.minimum(at.astype(int), size - 1)
    matrix, rows, part = np.zeros((len(at), size)), np.arange(len(at)), at - low
    np.add.at(matrix, (rows, low), 1 - part)
    np.add.at(matrix, (rows, np.minimum(low + 1, size - 1)), part)
    return matrix.astype(np.float32)


def _cubic(d: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic of float32 distances d >= 0."""
    near = _fma(_fma(a + 2, d, -(a + 3)) * d, d, 1)
    far = _fma(_fma(_fma(a, d, -5 * a), d, 8 * a), d, -4 * a)
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _keys(d: np.ndarray) -> np.ndarray:
    """Keys' cubic with a = -0.5, in d's own dtype."""
    d = np.abs(d)
    near, far = (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


# Pillow's filters: (reach in pixels, weight at a signed distance).
FILTERS: dict[str, tuple[float, Callable[[np.ndarray], np.ndarray]]] = {
    "box": (0.5, lambda d: ((d > -0.5) & (d <= 0.5)).astype(float)),
    "bilinear": (1.0, lambda d: np.maximum(1 - np.abs(d), 0)),
    "bicubic": (2.0, _keys),
    "lanczos": (3.0, lambda d: np.where(np.abs(d) < 3, np.sinc(d) * np.sinc(d / 3), 0)),
}


def filter_matrix(out: int, size: int, kind: str, dtype=np.float32) -> np.ndarray:
    """Antialiased resampling as a matrix [out, size].

    Args:
      out: length wanted.
      size: length given.
      kind: key of `FILTERS`. Shrinking widens the filter, enlarging does not.
      dtype: what it is computed in: float64 by Pillow, float32 by PyTorch's antialias=True.

    Source: Pillow's `precompute_coeffs`.
    """
    reach, weight = FILTERS[kind]
    scale = dtype(size / out)
    wide = max(scale, dtype(1))
    centre = (np.arange(out, dtype=dtype)[:, None] + dtype(0.5)) * scale
    at = np.arange(size, dtype=dtype)
    first = np.maximum((centre - reach * wide + 0.5).astype(int), 0)
    last = np.minimum((centre + reach * wide + 0.5).astype(int), size)
    taps = np.where((at >= first) & (at < last), weight((at - centre + 0.5) / wide), 0)
    return taps / taps.sum(1, keepdims=True)


def crop_matrix(offset: jax.Array, out: int, size: int) -> jax.Array:
    """Crops of `out` pixels that start at `offset` as 0/1 matrices [*offset.shape, out, size]."""
    at = jnp.arange(out)[:, None] + offset[..., None, None]
    return (at == jnp.arange(size)).astype(jnp.float32)


def blur_matrix(sigma: jax.Array, size: int, max_sigma: float = 32.0) -> jax.Array:
    """StyleGAN-T's blur along one axis as a banded matrix, of a sigma that may be traced.

    Taps 2^(-(i / sigma)^2) for |i| <= floor(3 sigma), normalised over all of them; zeros outside
    the image. The identity where floor(3 sigma) = 0.

    Args:
      sigma: scalar, pixels.
      size: length of the axis, pixels.
      max_sigma: largest sigma that will come; sets how many taps the normalisation sums.

    Returns:
      float32 [size, size].
    """
    reach = jnp.floor(3 * sigma)
    width = jnp.maximum(sigma, 1e-6)  # sigma 0 has the centre tap alone, which must not be 0/0

    def taps(distance: np.ndarray) -> jax.Array:
        return jnp.where(np.abs(distance) <= reach, jnp.exp2(-jnp.square(distance / width)), 0)

    every = int(3 * max_sigma) + 1
    total = taps(np.arange(-every, every + 1, dtype=np.float32)).sum()
    at = np.arange(size, dtype=np.float32)
    return taps(at[:, None] - at[None, :]) / total


# --- Resizing by name --------------------------------------------------------------------------

MATRICES: dict[str, Callable[[int, int], np.ndarray]] = {
    "tf1_bilinear": tf1_matrix,
    "tf1_bilinear_corners": corner_matrix,
    "nvidia_bilinear": grid_matrix,
    "bilinear": bilinear_matrix,
    "bilinear_corners": corner_matrix,
    "bilinear_antialias": functools.partial(filter_matrix, kind="bilinear"),
    "bicubic": bicubic_matrix,
    "bicubic_antialias": functools.partial(filter_matrix, kind="bicubic"),
    "bicubic_pillow": functools.partial(filter_matrix, kind="bicubic", dtype=np.float64),
    "area": area_matrix,
}
INDICES: dict[str, Callable[[int, int], np.ndarray]] = {
    "nearest": nearest_index,
    "nearest_exact": centre_index,
    "nearest_pillow": pillow_index,
}


def resize(x: jax.Array, size: tuple[int, int], kernel: str) -> jax.Array:
    """Resizes pictures or features in float32.

    Args:
      x: [B, H, W, C], any range.
      size: (height, width) wanted.
      kernel: "tf1_bilinear" (`tf1_matrix`), "nvidia_bilinear" (`grid_matrix`); PyTorch's
        "bilinear", "bilinear_corners" (align_corners=True, which TensorFlow 1 calls by the same
        name), "bilinear_antialias", "bicubic" (a = -0.75), "bicubic_antialias" (a = -0.5), "area",
        "nearest", "nearest_exact"; Pillow's "bicubic_pillow" (of float pictures) and
        "nearest_pillow".

    Returns:
      [B, *size, C] float32. Cubic kernels overshoot the range of x.
    """
    if kernel in INDICES:
        for axis, out in zip((1, 2), size, strict=True):
            x = taken(x, INDICES[kernel](out, x.shape[axis]), axis)
        return x.astype(jnp.float32)
    if kernel not in MATRICES:
        known = ", ".join((*MATRICES, *INDICES))
        raise ValueError(f"resize has no kernel {kernel!r}; choose from {known}")
    rows, cols = (MATRICES[kernel](o, n) for o, n in zip(size, x.shape[1:3], strict=True))
    return apply_matrices(x.astype(jnp.float32), rows, cols)


PRECISION = 22  # bits behind the point of Pillow's weights


def resize_bytes(x: jax.Array, size: tuple[int, int], kind: str) -> jax.Array:
    """Resizes 8-bit pictures to Pillow's very levels: across, then down, rounded each time.

    What `Image.resize`, torchvision's Resize of a Pillow picture and scipy.misc.imresize do. One
    pass in float differs from it on a fifth of the pixels.

    Args:
      x: [B, H, W, C], whole numbers 0..255 of any dtype.
      size: (height, width) wanted.
      kind: key of `FILTERS`, or "nearest".

    Returns:
      uint8 [B, *size, C].
    """
    if kind == "nearest":
        return resize(x, size, "nearest_pillow").astype(jnp.uint8)
    for axes, out, axis in (("bhwc,ow->bhoc", size[1], 2), ("bhwc,oh->bowc", size[0], 1)):
        weights = filter_matrix(out, x.shape[axis], kind, np.float64) * 2**PRECISION
        whole = (weights + np.copysign(0.5, weights)).astype(np.int32)
        # Two halves of 11 bits: their products with levels, and the sums, are exact in float32.
        high = (whole + 2**10) >> 11
        levels = x.astype(jnp.float32)
        parts = [
            jnp.einsum(axes, levels, half.astype(np.float32), precision=HIGHEST).astype(jnp.int32)
            for half in (high, whole - (high << 11))
        ]
        total = (parts[0] << 11) + parts[1] + 2 ** (PRECISION - 1)
        x = jnp.clip(total >> PRECISION, 0, 255)
    return x.astype(jnp.uint8)


def reduce_bytes(image: jax.Array, out: int) -> jax.Array:
    """[B, H, W, C], 0..255, to [B, out, out, C] by Pillow's bilinear; whole numbers in float32."""
    return resize_bytes(image, (out, out), "bilinear").astype(jnp.float32)
