"""The pre-norm transformer under CLIP, DINO and DINOv2, its layers scanned over stacked weights."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.nn.convolution import patches
from jaxt2i.nn.remat import Policy
from jaxt2i.nn.resample import bicubic_matrix, bilinear_matrix


def quick_gelu(x: jax.Array) -> jax.Array:
    """X sigmoid(1.702 x), the activation of OpenAI's CLIP."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "quick_gelu": quick_gelu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
}


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """The activation of that name; `ValueError` names the known ones."""
    if name not in ACTIVATIONS:
        raise ValueError(f"act={name!r} is unknown; choose from {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def layer_norm(eps: float, dtype, name: str | None = None) -> nn.LayerNorm:
    """Layer normalisation with two-pass statistics in float32, whatever the dtype of x."""
    return nn.LayerNorm(epsilon=eps, use_fast_variance=False, dtype=dtype, name=name)


class Block(nn.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x)).

    Attributes:
      length: tokens of a sequence, N.
      heads: attention heads.
      mlp: hidden width of the MLP.
      depth: blocks in the whole stack; scales the initial weights of what joins the residual.
      act: key of `ACTIVATIONS`.
      eps: of the layer norms.
      causal: whether a token sees only itself and earlier ones.
      layer_scale: whether both branches are multiplied by a learned vector (DINOv2).
      dtype: of activations; softmax and norm statistics are float32.

    Initial weights: OpenAI's `CLIP.initialize_parameters` for the text transformer, used for both
    towers here.
    """

    length: int
    heads: int
    mlp: int
    depth: int
    act: str = "gelu"
    eps: float = 1e-5
    causal: bool = False
    layer_scale: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, prompt: jax.Array | None = None, reads: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """[B N, C] to [B N, C], twice: what the next block reads, and what a scan collects.

        Args:
          x: [B N, C], the tokens of all sequences, one sequence after the other.
          prompt: [B, C], one more token, which is dropped behind the block; None: there is none.
          reads: bool scalar; False hides the prompt from the other tokens.
        """
        length, width, joins = self.length, x.shape[-1], (2 * self.depth) ** -0.5
        mask = None
        if prompt is not None:
            x = x.reshape(-1, length, width)
            x = jnp.concatenate([x, prompt[:, None].astype(x.dtype)], 1).reshape(-1, width)
            mask = jnp.append(jnp.ones(length, bool), reads)[None, None, None]
        if width % self.heads:
            raise ValueError(f"width={width} cannot be split into heads={self.heads}")
        tokens = length + (prompt is not None)

        def dense(name: str, features: int, std: float) -> nn.Dense:
            init = nn.initializers.normal(std)
            return nn.Dense(features, dtype=self.dtype, kernel_init=init, name=name)

        def scaled(name: str, branch: jax.Array) -> jax.Array:
            if not self.layer_scale:
                return branch
            gain = self.param(name, nn.initializers.ones, (width,))
            return branch * gain.astype(self.dtype)

        def attended(qkv: jax.Array) -> jax.Array:
            apart = (-1, tokens, self.heads, width // self.heads)
            parts = (part.reshape(apart) for part in jnp.split(qkv, 3, -1))
            return jax.nn.dot_product_attention(*parts, mask=mask, is_causal=self.causal)

        # Both are computed again for gradients: what they would keep is larger than what they read,
        # and heads apart fill half of a TPU's lanes.
        attend = jax.checkpoint(attended, prevent_cse=False)
        act = jax.checkpoint(activation(self.act), prevent_cse=False)

        h = layer_norm(self.eps, self.dtype, "norm1")(x)
        h = attend(dense("qkv", 3 * width, width**-0.5)(h))
        h = dense("proj", width, width**-0.5 * joins)(h.reshape(x.shape))
        self.sow("intermediates", "attention", h.reshape(-1, tokens, width))
        x = x + scaled("scale1", h)
        h = layer_norm(self.eps, self.dtype, "norm2")(x)
        h = act(dense("fc1", self.mlp, (2 * width) ** -0.5)(h))
        x = x + scaled("scale2", dense("fc2", width, width**-0.5 * joins)(h))
        if prompt is not None:
            x = x.reshape(-1, tokens, width)[:, :length].reshape(-1, width)
        return x, x


class Transformer(nn.Module):
    """A stack of blocks whose weights carry the layer as their first axis.

    Attributes:
      layers: blocks, L.
      unroll: how many consecutive layers one turn of the compiled loop holds. 1 is the fastest
        on CPUs (ViT-B/32, 4 images: forward 0.70 s against 0.74 s with 12, gradient 1.5 s against
        2.5 s) and compiles four times as fast.
      remat: what a block keeps for the backward pass, see `jaxt2i.nn.remat.recomputed`.
      heads, mlp, act, eps, causal, layer_scale, dtype: see `Block`.
    """

    layers: int
    heads: int
    mlp: int
    act: str = "gelu"
    eps: float = 1e-5
    causal: bool = False
    layer_scale: bool = False
    dtype: jnp.dtype = jnp.float32
    unroll: int = 1
    remat: Policy = None

    @nn.compact
    def __call__(
        self, x: jax.Array, prompts: jax.Array | None = None, reads: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """[B, N, C] to (the last block's output, all blocks' outputs [L, B, N, C]).

        A caller under jit that drops the second result does not pay for it.

        Args:
          x: [B, N, C].
          prompts: [L, B, C], one more token for each block; None: there are none.
          reads: bool [L], False for blocks that read none; their row of `prompts` is padding.
        """
        block = nn.remat(Block, prevent_cse=False, policy=self.remat) if self.remat else Block
        scan = nn.scan(
            block,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True},
            length=self.layers,
            unroll=self.unroll,
        )
        shape = x.shape
        blocks = scan(
            length=shape[1],
            heads=self.heads,
            mlp=self.mlp,
            depth=self.layers,
            act=self.act,
            eps=self.eps,
            causal=self.causal,
            layer_scale=self.layer_scale,
            dtype=self.dtype,
            name="blocks",
        )
        given = () if prompts is None else (prompts, reads)
        last, each = blocks(x.reshape(-1, shape[-1]), *given)
        return last.reshape(shape), each.reshape(self.layers, *shape)


def offset_matrix(out: int, size: int) -> np.ndarray:
    """Bicubic by the factor (out + 0.1) / size, as DINOv2's own code has it (torch.hub)."""
    return bicubic_matrix(out, size, step=size / (out + 0.1))


MATRICES = {"bicubic": bicubic_matrix, "bicubic_hub": offset_matrix, "bilinear": bilinear_matrix}


def resize_positions(table: jax.Array, grid: tuple[int, int], method: str) -> jax.Array:
    """Position embeddings for another grid of patches.

    Args:
      table: [1 + n * n, C], the class token's first, then row by row.
      grid: (rows, columns) wanted.
      method: "bicubic" (a = -0.75), "bicubic_hub" (`offset_matrix`) or "bilinear", all half-pixel
        and without antialiasing.

    Returns:
      [1 + rows * columns, C]; `table` itself where the grid is the same.
    """
    side = int(np.sqrt(len(table) - 1))
    if grid == (side, side):
        return table
    rows, columns = (MATRICES[method](n, side) for n in grid)
    patches = jnp.einsum(
        "ih,jw,hwc->ijc",
        rows,
        columns,
        table[1:].reshape(side, side, -1),
        precision=jax.lax.Precision.HIGHEST,
    )
    return jnp.concatenate([table[:1], patches.reshape(-1, table.shape[1])])


class Embedding(nn.Module):
    """An image as tokens: patches, a class token before them, positions.

    Attributes:
      resolution: image size that the position table was made for, pixels.
      patch: size of a patch, pixels.
      width: channels, C.
      bias: whether the patch projection has one.
      resize: how positions follow another image size; see `resize_positions`.
      dtype: of activations.
    """

    resolution: int
    patch: int
    width: int
    bias: bool
    resize: str
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        init = nn.initializers.normal
        self.project = nn.Conv(
            self.width,
            (self.patch, self.patch),
            self.patch,
            padding="VALID",
            use_bias=self.bias,
            dtype=self.dtype,
            kernel_init=init((3 * self.patch**2) ** -0.5),
            conv_general_dilated=lambda x, kernel, *_, precision, **__: patches(
                x, kernel, precision
            ),
            name="patch",
        )
        side = self.resolution // self.patch
        self.class_token = self.param("class_token", init(self.width**-0.5), (self.width,))
        shape = (1 + side * side, self.width)
        self.positions = self.param("positions", init(self.width**-0.5), shape)

    def place(self, patches: jax.Array) -> jax.Array:
        """[B, h, w, C] to tokens [B, 1 + h w, C]: the class token first, positions added."""
        grid = patches.shape[1:3]
        tokens = patches.reshape(len(patches), -1, self.width)
        first = self.class_token.astype(self.dtype)
        first = jnp.broadcast_to(first, (len(patches), 1, self.width))
        positions = resize_positions(self.positions, grid, self.resize).astype(self.dtype)
        return jnp.concatenate([first, tokens.astype(self.dtype)], 1) + positions

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, H, W, 3] to (tokens [B, 1 + N, C], bare patches [B, H / patch, W / patch, C])."""
        if x.shape[1] % self.patch or x.shape[2] % self.patch:
            raise ValueError(
                f"an image of {x.shape[1]} x {x.shape[2]} pixels cannot be cut into patches of "
                f"{self.patch}; resize it to multiples of {self.patch}, best to {self.resolution}"
            )
        patches = self.project(x)
        return self.place(patches), patches


def read_out(tokens: jax.Array) -> jax.Array:
    """[B, 1 + N, C] to [B, N, C]: the class token, which comes first, added to every patch."""
    return tokens[:, 1:] + tokens[:, :1]
