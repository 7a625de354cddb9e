"""A recogniser of the procedural corpora: what is where in a picture, and what it looks like.

It reads drawn pictures where no downloaded network is at hand. Objects are found as points (Zhou
et al. 2019, "Objects as Points", arXiv 1904.07850): every cell of a grid says which class has its
centre there, how large its box is, and what it looks like, so that a colour belongs to its thing
and things can be counted. Relations follow from boxes by the corpus' own definition, and from who
is in front of whom. Nothing in it mixes examples: a picture's reading depends on the picture alone.
Held-out pictures at 32 pixels, after 1,800 steps of 32: of blooms 0.98 of the classes and 0.91 of
the classes and colours are right; of scenes 0.89 and 0.79, every object of a crowd counted, and the
number of objects in 0.81. configs/recogniser.py says how captions are checked with it.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxt2i.config import ConfigError, fields
from jaxt2i.data.schema import BOX_ATTRIBUTES, unit_range
from jaxt2i.engine.method import Batch, Ctx, Method, Player
from jaxt2i.metrics.recognised import found, overlap
from jaxt2i.nn.linear import Conv
from jaxt2i.nn.norms import BatchNorm
from jaxt2i.nn.precision import compute_dtype

# Edges of a box below this are taken for it when their logarithm is learned.
_LEAST_EDGE = 1 / 64
# Boxes that share more of their union than this are of the same object: objects of the corpora
# never share more than 0.38 of the smaller one.
_SAME = 0.4
# Cells where an object's Gaussian is lower than this do not speak of it.
_LEAST_WEIGHT = 0.3
# Captions speak of these most.
_WEIGHTS = {"class": 2.0, "colour": 2.0}


@dataclasses.dataclass(frozen=True)
class Model:
    """Sizes of the network, and what it counts as seen.

    Attributes:
      classes: that an object may have.
      values: how many values each of the attributes has, in the order of the batch schema.
      places: backgrounds.
      width: channels of the grid.
      grid: rows and columns.
      depth: blocks of two convolutions on the grid.
      objects: most objects that are seen in a picture.
      least: an object is seen where the network is surer than this.
      noise: pictures are trained on with noise up to this strength, of [-1, 1]: drawn pictures
        are never as clean as real ones.
    """

    classes: int = 17
    values: tuple[int, ...] = (12, 3, 6, 12, 12, 12, 12, 2)
    places: int = 9
    width: int = 96
    grid: int = 8
    depth: int = 2
    objects: int = 8
    least: float = 0.4
    noise: float = 0.15


@dataclasses.dataclass(frozen=True)
class Optim:
    """Muon for matrices and kernels (Jordan et al. 2024, Bernstein and Newhouse 2024), Adam else.

    A short run is won by it: measured on 13,000 pictures of blooms, the share of right classes is
    0.78, and 0.47 by the best Adam.

    Attributes:
      lr: Muon's learning rate.
      adam_lr: that of scales and biases.
      momentum: Muon's.
      b2: Adam's decay of the second moment.
      warmup_steps: linear warm-up from zero.
      decay_steps: cosine decay to zero over this many steps; 0 = constant.
    """

    lr: float = 0.05
    adam_lr: float = 0.02
    momentum: float = 0.95
    b2: float = 0.98
    warmup_steps: int = 0
    decay_steps: int = 0

    def schedule(self, lr: float) -> optax.ScalarOrSchedule:
        """The learning rate of a step, from its highest value."""
        if not self.decay_steps:
            return lr
        return optax.warmup_cosine_decay_schedule(0.0, lr, self.warmup_steps, self.decay_steps)

    def tx(self) -> optax.GradientTransformation:
        """The optax transformation."""

        def dimensions(params):
            """Every kernel is a matrix from what it reads to what it gives."""

            def one(x):
                inner = tuple(range(x.ndim - 1))
                return optax.contrib.MuonDimensionNumbers(inner, (x.ndim - 1,)) if inner else None

            return jax.tree.map(one, params)

        return optax.contrib.muon(
            self.schedule(self.lr),
            beta=self.momentum,
            muon_weight_dimension_numbers=dimensions,
            adam_b2=self.b2,
            adam_learning_rate=self.schedule(self.adam_lr),
        )


# --- The network -------------------------------------------------------------------------------


def patches(x: jax.Array, size: int) -> jax.Array:
    """[B, H, W, C] to [B, H / size, W / size, size * size * C]."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // size, size, w // size, size, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // size, w // size, size * size * c)


def edges(image: jax.Array, size: int, bins: int = 8) -> jax.Array:
    """Histograms of edges: how strong they are in each direction, whatever their colours.

    Classes are shapes, and any shape may have any colours; these channels spare the network to
    learn that (Dollár et al. 2014, "Fast Feature Pyramids", section 4.1).

    Args:
      image: [B, R, R, 3].
      size: of a cell, pixels.
      bins: directions over half a turn.

    Returns:
      [B, R / size, R / size, bins + 1]: strength in each direction relative to the surroundings,
      and the logarithm of the strength.
    """
    padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    right = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    # The colour channel with the strongest edge speaks for a pixel.
    power = jnp.square(down) + jnp.square(right)
    best = power.argmax(-1, keepdims=True)
    down, right = (jnp.take_along_axis(x, best, -1)[..., 0] for x in (down, right))
    angle = jnp.arange(bins) * (jnp.pi / bins)
    along = down[..., None] * jnp.sin(angle) + right[..., None] * jnp.cos(angle)
    strength = jnp.sqrt(power.max(-1, keepdims=True) + 1e-8)
    share = jnp.abs(along / strength) ** 4 * strength
    cells = nn.avg_pool(share, (size, size), (size, size))
    total = cells.sum(-1, keepdims=True)
    around = nn.avg_pool(total, (5, 5), padding="SAME") + 0.05
    return jnp.concatenate([cells / around, jnp.log(total + 0.02)], -1)


class Unit(nn.Module):
    """Convolve, normalise, rectify.

    Attributes:
      features: output channels.
      stride: of the convolution.
      dtype: compute dtype.
    """

    features: int
    stride: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] to [B, H / stride, W / stride, features]."""
        x = Conv(
            self.features,
            stride=self.stride,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=nn.initializers.he_normal(),
            name="conv",
        )(x)
        return jax.nn.relu(BatchNorm(name="norm")(x, train=train))


class Recogniser(nn.Module):
    """A grid of cells that see the whole picture, and what each of them says.

    Attributes:
      classes, values, places, width, grid, depth: as in `Model`.
      dtype: compute dtype; results are float32.
    """

    classes: int = 17
    values: tuple[int, ...] = (12, 3, 6, 12, 12, 12, 12, 2)
    places: int = 9
    width: int = 96
    grid: int = 8
    depth: int = 2
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """Reads pictures.

        Args:
          image: [B, R, R, 3] in [-1, 1]; R a multiple of twice the grid.
          train: normalise by the batch, and let the running statistics advance.

        Returns:
          float32: "heat" [B, G, G], logits of a centre; "class" [B, G, G, classes] and "attributes"
          [B, G, G, sum of values], logits; "box" [B, G, G, 4], the centre seen from the cell's
          corner, in cells, and the logarithms of width and height; "order" [B, G, G], higher is
          nearer; "place" [B, places] and "backdrop" [B, colours], logits of the background;
          "features" [B, 2 width], the picture as a whole.
        """
        width, kind = self.width, {"dtype": self.dtype}
        size = image.shape[1] // (2 * self.grid)
        # Bent before they are averaged, two colours in one cell do not become a third.
        colours = jax.nn.relu(nn.Dense(width // 4, name="colours", **kind)(image))
        cells = nn.avg_pool(colours, (size, size), (size, size))
        x = [patches(image, size), 4 * edges(image, size), cells]
        x = jnp.concatenate([part.astype(self.dtype) for part in x], -1)
        x = Unit(width // 2, name="stem", **kind)(x, train)
        x = Unit(width, stride=2, name="down", **kind)(x, train)
        for n in range(self.depth):
            h = Unit(width, name=f"block{n}_0", **kind)(x, train)
            if n == self.depth // 2:
                # Half-way, every cell learns what the rest of the picture holds.
                c = Unit(width, stride=2, name="coarse_0", **kind)(h, train)
                c = Unit(width, name="coarse_1", **kind)(c, train)
                h = h + nn.Dense(width, name="wide", **kind)(c).repeat(2, 1).repeat(2, 2)
            x = x + Unit(width, name=f"block{n}_1", **kind)(h, train)
        hidden = jax.nn.relu(nn.Dense(2 * width, name="hidden", **kind)(x)).astype(jnp.float32)

        # Near 0.01 everywhere, so that the many empty cells do not drown the first steps.
        rare = nn.initializers.constant(-4.6)
        whole = x.astype(jnp.float32).mean((1, 2))
        backdrop = self.values[0]
        ground = nn.Dense(self.places + backdrop, name="ground")(whole)
        return {
            "heat": nn.Dense(1, bias_init=rare, name="heat")(hidden)[..., 0],
            "class": nn.Dense(self.classes, name="class")(hidden),
            "box": nn.Dense(4, name="box")(hidden),
            "order": nn.Dense(1, name="order")(hidden)[..., 0],
            "attributes": nn.Dense(sum(self.values), name="attributes")(hidden),
            "place": ground[:, : self.places],
            "backdrop": ground[:, self.places :],
            "features": hidden.mean((1, 2)),
        }


# --- The loss ----------------------------------------------------------------------------------


def targets(batch: Batch, grid: int) -> dict[str, jax.Array]:
    """What the cells of the grid should say.

    Args:
      batch: boxes [B, N, 4], box_label, box_mask [B, N], box_attributes [B, N, K].
      grid: rows and columns, G.

    Returns:
      "heat" [B, G, G]: 1 at the cell of each object's centre, falling off like a Gaussian of a
      sixth of its box around it (Zhou et al. 2019, section 3). Then, of the object whose Gaussian
      is the highest in a cell: "weight" [B, G, G], its height there, 0 where low; "box"
      [B, G, G, 4], its centre seen from the cell's corner, in cells, and log width and height;
      "class" [B, G, G] and "attributes" [B, G, G, K].
    """
    centre = (batch["boxes"][..., :2] + batch["boxes"][..., 2:] / 2) * grid
    cell = jnp.clip(jnp.floor(centre), 0, grid - 1)
    size = jnp.maximum(batch["boxes"][..., 2:], _LEAST_EDGE)
    sigma = jnp.maximum(size * grid / 6, 0.4)[..., None]
    spread = jnp.exp(-jnp.square((jnp.arange(grid) - cell[..., None]) / sigma) / 2)
    bell = spread[:, :, 1, :, None] * spread[:, :, 0, None, :]  # [B, N, G, G]
    bell = bell * batch["box_mask"][..., None, None]
    owner = jax.nn.one_hot(bell.argmax(1), bell.shape[1])  # [B, G, G, N]

    def of_owner(x: jax.Array) -> jax.Array:
        return jnp.einsum("bijn,bnk->bijk", owner, x.astype(jnp.float32), precision="highest")

    corner = jnp.stack(jnp.meshgrid(jnp.arange(grid), jnp.arange(grid)), -1)
    heat = bell.max(1)
    numbers = jnp.concatenate([batch["box_label"][..., None], batch["box_attributes"]], -1)
    numbers = of_owner(numbers).round().astype(jnp.int32)
    return {
        "heat": heat,
        "weight": jnp.where(heat > _LEAST_WEIGHT, heat, 0),
        "box": jnp.concatenate([of_owner(centre) - corner, of_owner(jnp.log(size))], -1),
        "class": numbers[..., 0],
        "attributes": numbers[..., 1:],
    }


def focal(logits: jax.Array, heat: jax.Array) -> jax.Array:
    """Sum of the penalty-reduced focal loss (Zhou et al. 2019, equation 1; alpha 2, beta 4)."""
    log_p, log_q = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    p = jnp.exp(log_p)
    peak = jnp.square(1 - p) * log_p
    rest = (1 - heat) ** 4 * jnp.square(p) * log_q
    return -jnp.where(heat == 1, peak, rest).sum()


def cross_entropy(
    logits: jax.Array, label: jax.Array, weight: jax.Array | float = 1.0
) -> jax.Array:
    """Weighted mean over the labels that are not -1; 0 where there are none."""
    weight = weight * (label >= 0)
    each = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(label, 0))
    return (each * weight).sum() / jnp.maximum(weight.sum(), 1e-6)


def in_front(order: jax.Array, batch: Batch) -> jax.Array:
    """Logistic loss of who is in front, a mean over pairs of objects whose boxes meet.

    Args:
      order: [B, G, G], higher is nearer.
      batch: boxes, box_mask, box_attributes.
    """
    grid = order.shape[1]
    low, size = batch["boxes"][..., :2], batch["boxes"][..., 2:]
    cell = jnp.clip(jnp.floor((low + size / 2) * grid), 0, grid - 1).astype(jnp.int32)
    own = jnp.take_along_axis(order.reshape(len(order), -1), cell[..., 1] * grid + cell[..., 0], 1)
    high = low + size
    edge = jnp.minimum(high[:, :, None], high[:, None]) - jnp.maximum(low[:, :, None], low[:, None])
    place = batch["box_attributes"][..., BOX_ATTRIBUTES.index("order")]
    nearer = place[:, :, None] > place[:, None]
    both = batch["box_mask"][:, :, None] & batch["box_mask"][:, None]
    pairs = ((edge > 0).all(-1) & nearer & both).astype(jnp.float32)
    each = jax.nn.softplus(own[:, None] - own[:, :, None])
    return (each * pairs).sum() / jnp.maximum(pairs.sum(), 1.0)


# --- Reading the grid --------------------------------------------------------------------------


def split(x: jax.Array, values: tuple[int, ...]) -> list[jax.Array]:
    """The logits of each attribute."""
    ends = [sum(values[: n + 1]) for n in range(len(values) - 1)]
    return jnp.split(x, ends, -1)


def readings(out: dict[str, jax.Array], model: Model) -> dict[str, jax.Array]:
    """What the network saw, in the keys of a batch.

    Args:
      out: of `Recogniser`.
      model: its settings.

    Returns:
      box_label, box_mask [B, N], boxes [B, N, 4], box_attributes [B, N, K], setting [B, 2], the
      surest objects first, N twice the most that are seen; and sure [B, N], 0 to 1, features
      [B, F].
    """
    heat = jax.nn.sigmoid(out["heat"])
    b, g = heat.shape[:2]
    sure, cell = jax.lax.top_k(heat.reshape(b, -1), 2 * model.objects)

    def take(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x.reshape(b, g * g, -1), cell[..., None], 1)

    box = take(out["box"])
    corner = jnp.stack([cell % g, cell // g], -1)
    size = jnp.exp(box[..., 2:])
    centre = (corner + box[..., :2]) / g
    boxes = jnp.concatenate([centre - size / 2, size], -1)
    mask = kept(boxes, sure > model.least)
    mask = mask & (jnp.cumsum(mask, 1) <= model.objects)
    attributes = [x.argmax(-1) for x in split(take(out["attributes"]), model.values)]
    order = take(out["order"])[..., 0]
    rank = (order[:, :, None] > order[:, None]).sum(-1)
    seen = {
        "box_label": take(out["class"]).argmax(-1),
        "box_mask": mask,
        "boxes": boxes,
        "box_attributes": jnp.stack([*attributes, rank], -1).astype(jnp.int32),
    }
    setting = jnp.stack([out["place"].argmax(-1), out["backdrop"].argmax(-1)], -1)
    return seen | {
        "sure": sure,
        "setting": setting.astype(jnp.int32),
        "features": out["features"],
    }


def kept(boxes: jax.Array, sure: jax.Array) -> jax.Array:
    """Which boxes are objects of their own: those that no surer one covers.

    Args:
      boxes: [B, N, 4], the surest first.
      sure: bool [B, N].
    """
    same = overlap(boxes, boxes) > _SAME
    n = boxes.shape[1]

    def turn(i, keep):
        earlier = jnp.arange(n) < i
        return keep.at[:, i].set(keep[:, i] & ~(keep & same[:, i] & earlier).any(-1))

    return jax.lax.fori_loop(1, n, turn, sure)


@dataclasses.dataclass(frozen=True)
class Losses:
    """The loss and the score, over a network named "eye"."""

    model: Model

    def loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """What the grid says against what was drawn."""
        m = self.model
        image = unit_range(batch["image"])
        if m.noise:
            keys = jax.random.split(ctx.rng("noise"))
            strength = m.noise * jnp.square(jax.random.uniform(keys[0], (len(image), 1, 1, 1)))
            image = image + strength * jax.random.normal(keys[1], image.shape)
        out = ctx("eye", image, train=True)
        want = targets(batch, m.grid)
        weight = want["weight"]
        distance = jnp.abs(out["box"] - want["box"]).sum(-1)
        parts = {
            "heat": focal(out["heat"], want["heat"]) / jnp.maximum(batch["box_mask"].sum(), 1),
            "box": (distance * weight).sum() / jnp.maximum(weight.sum(), 1e-6),
            "class": cross_entropy(out["class"], want["class"], weight),
            "order": in_front(out["order"], batch),
        }
        for n, logits in enumerate(split(out["attributes"], m.values)):
            label = want["attributes"][..., n]
            parts[BOX_ATTRIBUTES[n]] = cross_entropy(logits, label, weight)
        for n, name in enumerate(("place", "backdrop")):
            parts[name] = cross_entropy(out[name], batch["setting"][:, n])
        return sum(_WEIGHTS.get(name, 1.0) * part for name, part in parts.items()), parts

    def read(self, ctx: Ctx, batch: Batch) -> dict[str, jax.Array]:
        """Readings of the pictures of a batch."""
        return readings(ctx("eye", unit_range(batch["image"])), self.model)

    def score(self, ctx: Ctx, batch: Batch) -> dict[str, jax.Array]:
        """Accuracies on held-out pictures."""
        return found(self.read(ctx, batch), batch)


def build(cfg) -> Method:
    """The method of a config: `cfg.model` holds `Model`, `cfg.optim` holds `Optim`."""
    model = fields(Model, cfg.model, "config.model")
    if cfg.data.resolution % (2 * model.grid):
        raise ConfigError(
            f"config.data.resolution={cfg.data.resolution} is not divisible by twice "
            f"config.model.grid={model.grid}"
        )
    dtype = compute_dtype(cfg.precision, jax.default_backend())
    network = Recogniser(
        classes=model.classes,
        values=tuple(model.values),
        places=model.places,
        width=model.width,
        grid=model.grid,
        depth=model.depth,
        dtype=dtype,
    )
    losses = Losses(model)
    optim = fields(Optim, cfg.optim, "config.optim")
    return Method(
        nets={"eye": network},
        players=(Player("eye", ("eye",), losses.loss, optim.tx()),),
        init=lambda key, batch: {"eye": network.init(key, unit_range(batch["image"][:1]))},
        needs=("image", "boxes", "box_label", "box_mask", "box_attributes", "setting"),
        score=losses.score,
        better=dict.fromkeys(("class", "colour", "size", "count", "place", "all"), "higher"),
        mixes=("batch norm takes its statistics from a micro-batch",),
    )
