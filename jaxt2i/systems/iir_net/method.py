"""IIR-Net: edits of pictures by text, after information of the picture was removed.

Zhang, Zheng, Fang, Plummer, WACV 2024 (arXiv 2305.17489). A ControlNet beside a locked Stable
Diffusion reads the picture without the colours of a region, under noise, and its edges; trained to
draw the whole picture again from that and its caption, it takes from the caption what was removed.
No code is public: what the paper does not say is a setting, with its ground.
"""

import dataclasses
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxt2i.config import ConfigError, fields, nearest
from jaxt2i.data.schema import height_and_width, unit_range
from jaxt2i.data.sources import latents
from jaxt2i.encoders import perception
from jaxt2i.encoders.diffusion.control import ControlNet, from_unet
from jaxt2i.encoders.diffusion.unet import UNet
from jaxt2i.encoders.diffusion.vae import VAE
from jaxt2i.encoders.pretrained import Weights, kept_in, published
from jaxt2i.encoders.text import PADDINGS, padded
from jaxt2i.engine.method import DTYPES, Batch, Control, Ctx, Method, Player, Sampler, cast
from jaxt2i.nn import diffusion, edges
from jaxt2i.nn.initial import initialise
from jaxt2i.nn.optim import Adam
from jaxt2i.nn.precision import compute_dtype, perception_dtype
from jaxt2i.systems.iir_net import removal

# Pictures need not be squares.
ANY_SHAPE = True
SPACES = ("latent", "pixels")
# What training's regions are made of, and the rows that they need.
REGIONS: dict[str, tuple[str, ...]] = {
    "objects": ("shape_masks", "box_mask"),
    "segmentation": ("segmentation",),
    "image": (),
}
BASES = ("files", "run", "random")
STARTS = ("canny", "unet")
# Where the published networks are found.
STABLE, CANNY = "stable-diffusion-v1-5/stable-diffusion-v1-5", "lllyasviel/sd-controlnet-canny"
TEXT = ("tokens", "token_mask", "negative_tokens", "negative_token_mask")


@dataclasses.dataclass(frozen=True)
class Model:
    """Settings of the system; the defaults are Stable Diffusion 1.5's and ControlNet's.

    Attributes:
      perception: where texts come from: "clip_l14" (Stable Diffusion's), "mini" (ships with
        jaxt2i); see jaxt2i.encoders.perception.
      text_weights: file or folder to read the perception from; "" = its usual place.
      padding: what the U-Net reads behind a caption's end: "end" (ends all the way, as Stable
        Diffusion) or "tokenizer" (what the tokenizer puts there).
      base: where the locked networks come from: "files" (`base_weights`), "run" (the run that
        config.init_from names) or "random", to measure speed.
      base_weights: a folder of diffusers, a single file, or what python -m jaxt2i.convert wrote; ""
        = Stable Diffusion 1.5 at its usual place. The paper says Stable Diffusion, not which.
      start: what training starts from: "canny" (a ControlNet for edges, which the first step then
        is) or "unet" (the U-Net's first half, adding nothing). Not published.
      control_weights: of "canny": as base_weights; "" = ControlNet 1.0's at its usual place.
      frozen_dtype: in which locked networks are kept: "float32", or "bfloat16" for half the memory;
        those of a run stay as they were trained.
      space: "latent": noise and networks work on the autoencoder's latents; "pixels": on small
        pictures themselves.
      channels, layers, heads, groups, attention: of the U-Net and the ControlNet; see `UNet`.
      vae_channels, vae_layers, vae_groups, vae_tile: see `VAE`.
      embedding: channels of the convolutions that read the condition.
      schedule: "scaled_linear" (Stable Diffusion's), or "linear".
      prediction: what the U-Net predicts: "epsilon", or "v_prediction".
      regions: what training's regions are made of: "objects" (some of a picture's things, by their
        masks: COCO), "segmentation" (all that is segmented: the bird of CUB) or "image" (the whole
        picture: Outdoor Scenes). Not published.
      whole, empty: shares of pictures whose region is the whole picture, or nothing, in training.
        Not published; a grey region must mean "colour it by the text" at any size.
      drop_text: share of captions that are empty in training, for guidance. Not published: Stable
        Diffusion's 0.1; ControlNet's own training took 0.5.
      clean: share of pictures without noise in training. Not published: one network for all levels.
      noise_region: where noise is added: "image" (the figures' captions: to the input image), or
        "roi", which leaves the outside clean.
      tau_zero_clean: a level of 0 adds no noise at all; False: the schedule's first trace. Not
        published.
      edge_low, edge_high: thresholds of the edges. Not published: ControlNet's annotator.
      edge_sees: what edges are found in: "colour" (the steepest of three, as that annotator gives
        OpenCV the picture) or "grey".
      guidance, steps, hold: defaults of the sampler.
    """

    perception: str = "clip_l14"
    text_weights: str = ""
    padding: str = "end"
    base: str = "files"
    base_weights: str = ""
    start: str = "canny"
    control_weights: str = ""
    frozen_dtype: str = "float32"
    space: str = "latent"
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers: int = 2
    heads: int = 8
    groups: int = 32
    attention: tuple[bool, ...] = (True, True, True, False)
    vae_channels: tuple[int, ...] = (128, 256, 512, 512)
    vae_layers: int = 2
    vae_groups: int = 32
    vae_tile: int = 0
    embedding: tuple[int, ...] = (16, 32, 96, 256)
    schedule: str = "scaled_linear"
    prediction: str = "epsilon"
    regions: str = "objects"
    whole: float = 0.1
    empty: float = 0.1
    drop_text: float = 0.1
    clean: float = 0.1
    noise_region: str = "image"
    tau_zero_clean: bool = True
    edge_low: int = 100
    edge_high: int = 200
    edge_sees: str = "colour"
    guidance: float = 7.5
    steps: int = 50
    hold: bool = False


HOLD = (
    "every step starts from the source outside the region, so that edits fit it; false: the "
    "ControlNet alone tells of it, as published"
)
CONTROLS = (
    Control(
        "tau",
        400.0,
        0.0,
        999.0,
        help="noise that hides texture, as a step of 1000 or a share below 1 of them (0.4 is 400); "
        "0: none, 200: colour edits",
    ),
    Control("scale", 1.0, 0.0, 2.0, help="weight of the picture; 0: text alone"),
    Control("eta", 0.0, 0.0, 1.0, help="how random the steps are"),
    Control("solver", "ddim", choices=diffusion.SOLVERS, help="how steps go"),
    Control("paste_back", False, help="the source's own pixels outside the region"),
    Control(
        "feather",
        0.0,
        0.0,
        256.0,
        help="of paste_back: pixels inside the region along which the source fades into the edit",
    ),
)


@dataclasses.dataclass(frozen=True)
class Losses:
    """The loss, the sampler and the score, over networks named control, unet, vae, text.

    Attributes:
      model: the settings.
      sees: the frozen perception.
      plan: the noise schedule.
      cached: training reads pictures' latents, which the autoencoder gave once.
    """

    model: Model
    sees: perception.Perception
    plan: diffusion.Schedule
    cached: bool = False

    # --- conditions -----------------------------------------------------------------------------

    def words(self, ctx: Ctx, batch: Batch, prefix: str = "") -> jax.Array:
        """Captions as the U-Net reads them [B, T, E]."""
        tokens, mask = (batch[f"{prefix}{name}"] for name in ("tokens", "token_mask"))
        tokens = padded(tokens, mask, self.sees.text.vocab - 1, self.model.padding)
        return ctx("text", tokens, mask).words.astype(jnp.float32)

    def text(self, ctx: Ctx, rows: Batch) -> dict[str, jax.Array]:
        """What is asked for, and what is not."""
        return {"asked": self.words(ctx, rows), "not": self.words(ctx, rows, "negative_")}

    def level(self, tau: jax.Array, clean: jax.Array | bool = False) -> jax.Array:
        """Share of the picture's variance [B] that noise of the level tau [B] leaves."""
        t = jnp.asarray(tau).astype(jnp.int32)
        if self.model.tau_zero_clean:
            clean |= t == 0
        return jnp.where(clean, 1.0, self.plan.at(t))

    def step(self, tau: jax.Array) -> jax.Array:
        """The step that a person's tau says: itself, or below 1 a share of all steps; [] or [B]."""
        steps = jnp.where(tau < 1, jnp.round(tau * self.plan.length), tau)
        return jnp.minimum(steps, self.plan.length - 1)

    def condition(
        self, image: jax.Array, region: jax.Array, abar: jax.Array, noise: jax.Array
    ) -> jax.Array:
        """What the ControlNet sees [B, H, W, 4] of pictures uint8 [B, H, W, 3].

        Args:
          image: the pictures.
          region: [B, H, W], 1 where colours go.
          abar: [B], see `level`.
          noise: standard normal [B, H, W, 3].
        """
        m = self.model
        left = removal.removed(unit_range(image), region, abar, noise, m.noise_region)
        found = edges.canny(image, m.edge_low, m.edge_high, m.edge_sees)
        return removal.condition(left, found)

    def encode(self, ctx: Ctx, batch: Batch) -> jax.Array:
        """A batch's pictures as the U-Net's latents [B, h, w, C], or in [-1, 1] as they are."""
        image = unit_range(batch["image"])
        if self.model.space == "pixels":
            return image
        factor = factor_of(self.model)
        small = (len(image), image.shape[1] // factor, image.shape[2] // factor, LATENT)
        noise = ctx.draw("latent", lambda key: jax.random.normal(key, small))
        if self.cached:
            kept = batch["latent_mean"], batch["latent_std"]
            return ctx("vae", *kept, noise, method="drawn")
        return ctx("vae", image, noise, method="sample")

    def predict(self, ctx: Ctx, scale: jax.Array | float = 1.0):
        """(x, t, words, condition) -> what the locked U-Net says with the ControlNet's help."""

        def network(x, t, words, condition):
            skips, mid = ctx("control", x, t, words, condition, scale=scale)
            return ctx("unet", x, t, words, skips=skips, mid=mid)

        return network

    # --- training -------------------------------------------------------------------------------

    def region(self, ctx: Ctx, batch: Batch) -> jax.Array:
        """This step's regions [B, H, W], 0 or 1."""
        m, shape = self.model, batch["image"].shape[:3]
        if m.regions == "objects":
            own = some_objects(ctx, batch["shape_masks"], batch["box_mask"], shape)
        elif m.regions == "segmentation":
            own = (batch["segmentation"] > 0).astype(jnp.float32)
        else:
            own = jnp.ones(shape)
        u = ctx.draw("kind", lambda key: jax.random.uniform(key, shape[:1]))[:, None, None]
        return jnp.where(u < m.whole, 1.0, jnp.where(u < m.whole + m.empty, 0.0, own))

    def seen(self, ctx: Ctx, batch: Batch) -> jax.Array:
        """This step's conditions [B, H, W, 4]."""
        m, image = self.model, batch["image"]
        n = (len(image),)
        tau = ctx.draw("tau", lambda key: jax.random.randint(key, n, 0, self.plan.length))
        clean = ctx.draw("clean", lambda key: jax.random.uniform(key, n)) < m.clean
        noise = ctx.draw("removal", lambda key: jax.random.normal(key, image.shape))
        return self.condition(image, self.region(ctx, batch), self.level(tau, clean), noise)

    def error(self, ctx: Ctx, batch: Batch, words: jax.Array) -> jax.Array:
        """Mean square [B] of what the U-Net says wrongly about the noise of pictures."""
        z = self.encode(ctx, batch)
        n = (len(z),)
        t = ctx.draw("t", lambda key: jax.random.randint(key, n, 0, self.plan.length))
        noise = ctx.draw("eps", lambda key: jax.random.normal(key, z.shape))
        x = diffusion.add_noise(self.plan, z, noise, t)
        guess = self.predict(ctx)(x, t, words, self.seen(ctx, batch))
        wanted = diffusion.target(self.plan, z, noise, t)
        return ((guess.astype(jnp.float32) - wanted) ** 2).mean((1, 2, 3))

    def loss(self, ctx: Ctx, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The ControlNet's turn: mean |eps - eps_hat|^2 (paper section 3.1)."""
        texts = self.text(ctx, batch)
        n = (len(batch["image"]), 1, 1)
        drop = ctx.draw("drop", lambda key: jax.random.uniform(key, n)) < self.model.drop_text
        return self.error(ctx, batch, jnp.where(drop, texts["not"], texts["asked"])).mean(), {}

    def score(self, ctx: Ctx, batch: Batch) -> dict[str, jax.Array]:
        """The same error on held-out pictures and their captions."""
        return {"denoising": self.error(ctx, batch, self.words(ctx, batch)).mean()}

    # --- drawing --------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        """How pictures are edited."""
        return Sampler(
            draw=self.draw,
            needs=("image", "edit_region", *TEXT),
            text=self.text,
            controls=(
                Control("steps", self.model.steps, 1, 1000, help="of the sampler"),
                Control("guidance", self.model.guidance, 0.0, 30.0, help="of the text; 1 = none"),
                Control("hold", self.model.hold, help=HOLD),
                *CONTROLS,
            ),
            pixels="save_image",
            multiple=multiple_of(self.model),
        )

    def draw(
        self,
        ctx,
        rows,
        keys,
        *,
        z,
        text,
        tau,
        guidance,
        steps,
        scale,
        eta,
        solver,
        hold,
        paste_back,
        feather,
    ) -> dict[str, jax.Array]:
        """Edits: one picture a row, whose own key draws all its noise."""
        image, region = rows["image"], rows["edit_region"].astype(jnp.float32) / 255
        own = [jax.vmap(jax.random.fold_in, (0, None))(keys, i) for i in range(3)]
        noise = diffusion.fresh_noise(own[0], image.shape[1:])(0)
        abar = jnp.broadcast_to(self.level(self.step(tau)), len(keys))
        seen = self.condition(image, region, abar, noise)
        factor = factor_of(self.model)
        shape = (image.shape[1] // factor, image.shape[2] // factor, self.width)
        predict = diffusion.guided(
            self.predict(ctx, scale), text["not"], text["asked"], guidance, seen
        )
        out = diffusion.sample(
            predict,
            diffusion.fresh_noise(own[1], shape)(0),
            steps,
            schedule=self.plan,
            solver=solver,
            eta=eta,
            noise=diffusion.fresh_noise(own[2], shape),
            known=self.outside(ctx, image, region) if hold else None,
        )
        if self.model.space == "latent":
            out = ctx("vae", out, method="picture")
        source = unit_range(image)
        if paste_back:
            share = removal.feathered(region > 0, feather)[..., None]
            out = share * out + (1 - share) * source
        lines = jnp.broadcast_to(2 * seen[..., 3:] - 1, source.shape)
        return {"image": out, "source": source, "seen": 2 * seen[..., :3] - 1, "edges": lines}

    def outside(
        self, ctx: Ctx, image: jax.Array, region: jax.Array
    ) -> Callable[[jax.Array], jax.Array]:
        """What is denoised [B, h, w, C] -> the same with the sources' own outside of regions.

        A place of latents is outside where none of its pixels is in the region.
        """
        source, factor = unit_range(image), factor_of(self.model)
        height, width = (n // factor for n in region.shape[1:])
        if self.model.space == "latent":
            nothing = jnp.zeros((len(image), height, width, LATENT))
            source = ctx("vae", source, nothing, method="sample")
        inside = region.reshape(len(image), height, factor, width, factor).max((2, 4))[..., None]
        return lambda clean: jnp.where(inside > 0, clean, source)

    @property
    def width(self) -> int:
        """Channels of what is denoised."""
        return 3 if self.model.space == "pixels" else LATENT

    def nets(self, dtype: jnp.dtype, locked: jnp.dtype) -> dict[str, nn.Module]:
        """The networks; the locked ones compute in `locked`."""
        m = self.model
        shared = {
            "channels": tuple(m.channels),
            "layers": m.layers,
            "heads": m.heads,
            "groups": m.groups,
            "attention": tuple(m.attention),
            "context": self.sees.text.width,
        }
        control = ControlNet(
            **shared,
            condition_channels=CONDITION,
            embedding=tuple(m.embedding),
            strided=m.space == "latent",
            dtype=dtype,
        )
        out = {"control": control, "unet": UNet(**shared, out_channels=self.width, dtype=locked)}
        if m.space == "latent":
            out["vae"] = VAE(
                channels=tuple(m.vae_channels),
                layers=m.vae_layers,
                groups=m.vae_groups,
                tile=m.vae_tile,
                dtype=locked,
            )
        return out | {"text": self.sees.text}


# Channels of a latent, and of a condition.
LATENT, CONDITION = 4, 4


def factor_of(model: Model) -> int:
    """Pixels of a picture along one pixel of what is denoised."""
    return 1 if model.space == "pixels" else 2 ** (len(model.vae_channels) - 1)


def multiple_of(model: Model) -> int:
    """What the sides of pictures must be multiples of, so that the U-Net's halves are whole."""
    return factor_of(model) * 2 ** (len(model.channels) - 1)


def kept_dtype(model: Model) -> str:
    """The dtype of the locked networks' arrays."""
    return "float32" if model.base == "run" else model.frozen_dtype


def some_objects(
    ctx: Ctx, masks: jax.Array, there: jax.Array, shape: tuple[int, int, int]
) -> jax.Array:
    """Regions [B, H, W] of some of the pictures' things: one at random, each other one or not.

    Args:
      ctx: draws.
      masks: uint8 [B, N, m, m], each thing on the whole picture.
      there: bool [B, N].
      shape: [B, H, W].
    """
    u, v = ctx.draw("objects", lambda key: jax.random.uniform(key, (2, *there.shape)))
    u = jnp.where(there, u, 2.0)
    some = there & ((u == u.min(1, keepdims=True)) | (v < 0.5))
    union = jnp.where(some[..., None, None], masks, 0).max(1)
    return (jax.image.resize(union, shape, "nearest") > 127).astype(jnp.float32)


def lively(variables: dict, key: jax.Array) -> dict:
    """Random weights without layers of zeros, through which no gradient would pass."""
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(key, len(leaves))

    def drawn(x: jax.Array, key: jax.Array) -> jax.Array:
        if x.ndim < 2:
            return x
        fresh = jax.random.normal(key, x.shape) / math.sqrt(math.prod(x.shape[:-1]))
        return jnp.where((x == 0).all(), fresh, x)

    return jax.tree.unflatten(tree, [drawn(x, k) for x, k in zip(leaves, keys, strict=True)])


def check(model: Model, size: tuple[int, int]) -> None:
    """Refuses settings that do not fit together.

    Raises:
      ConfigError: names the config line and the fix.
    """
    for name, known in (
        ("space", SPACES),
        ("regions", tuple(REGIONS)),
        ("padding", PADDINGS),
        ("base", BASES),
        ("start", STARTS),
        ("noise_region", removal.NOISED),
        ("frozen_dtype", DTYPES),
        ("edge_sees", edges.SEES),
    ):
        if (value := getattr(model, name)) not in known:
            raise ConfigError(f"config.model.{name}={value!r}: {nearest(value, known)}")
    for name in ("drop_text", "clean"):
        if not 0 <= getattr(model, name) <= 1:
            raise ConfigError(f"config.model.{name}={getattr(model, name)}: expected 0 to 1")
    if min(model.whole, model.empty) < 0 or model.whole + model.empty > 1:
        raise ConfigError(
            f"config.model.whole={model.whole} and config.model.empty={model.empty}: two shares of "
            "the pictures; expected 1 at most together"
        )
    if not 0 <= model.edge_low <= model.edge_high:
        raise ConfigError(
            f"config.model.edge_low={model.edge_low} and edge_high={model.edge_high}: expected "
            "0 <= low <= high"
        )
    if model.space == "latent" and len(model.embedding) != len(model.vae_channels):
        raise ConfigError(
            f"config.model.embedding={tuple(model.embedding)}: expected as many levels as "
            f"config.model.vae_channels={tuple(model.vae_channels)}, whose latents it must fit"
        )
    if bad := [side for side in size if side % multiple_of(model)]:
        raise ConfigError(
            f"config.data.resolution: a side of {bad[0]} pixels; expected multiples of "
            f"{multiple_of(model)}"
        )


def build(cfg) -> Method:
    """The method of a config: `cfg.model` holds `Model`, `cfg.optim` one `Adam`."""
    model = fields(Model, cfg.model, "config.model")
    check(model, height_and_width(cfg.data.resolution))
    cached = latents.read(cfg.data, "vae" if model.space == "latent" else "", factor_of(model))
    dtype, locked = compute_dtype(cfg.precision, jax.default_backend()), perception_dtype(cfg)
    sees = perception.make(
        model.perception,
        dtype=locked,
        weights="random" if model.base == "random" else "pretrained",
        clip_weights=model.text_weights,
        real=(
            "on COCO, beside Stable Diffusion 1.5:\n"
            "  python -m jaxt2i.train --config configs/iir_net.py:coco --config.data.path=DIR"
        ),
    )
    plan = diffusion.Schedule(
        curve=model.schedule, prediction=model.prediction, **diffusion.ending(model.space)
    )
    losses = Losses(model, sees, plan, bool(cached))
    nets = losses.nets(dtype, locked)
    tx = fields(Adam, cfg.optim, "config.optim").tx()
    locked_nets = tuple(n for n in ("unet", "vae") if n in nets)
    control = nets["control"]

    def init(key: jax.Array, batch: Batch) -> dict:
        inputs = {"control": control.example(losses.width)}
        out = initialise(nets, key, inputs=inputs)
        if model.base == "random":
            out["unet"] = lively(out["unet"], jax.random.fold_in(key, 1))
        return {n: cast(x, kept_dtype(model)) if n != "control" else x for n, x in out.items()}

    return Method(
        nets=nets,
        players=(Player("control", ("control",), losses.loss, tx),),
        init=init,
        needs=("image", *cached, *REGIONS[model.regions], *TEXT),
        sampler=losses.sampler,
        frozen=(*locked_nets, "text"),
        pretrained=loaders(model, nets, sees),
        borrowed=locked_nets if model.base == "run" else (),
        latents="vae" if "vae" in nets else "",
        starts={"control": ("unet", start)},
        vocab=sees.text.vocab,
        score=losses.score,
        better={"denoising": "lower"},
        guided_by=locked_nets,
        notes=(sees.about,),
    )


def loaders(
    model: Model, nets: dict[str, nn.Module], sees: perception.Perception
) -> dict[str, Weights]:
    """{network: what loads it} of those that come from files."""
    out = {"text": sees.load["text"]} if "text" in sees.load else {}
    if model.base == "files":
        place = model.base_weights or STABLE
        out |= {n: published(place, "diffusion", n, nets[n]) for n in ("unet", "vae") if n in nets}
    out = {n: kept_in(x, kept_dtype(model)) for n, x in out.items()}
    if model.base != "random" and model.start == "canny":
        out["control"] = from_canny(model.control_weights or CANNY, nets["control"])
    return out


def from_canny(place: str, control: ControlNet) -> Weights:
    """The weights of a ControlNet for edges, whose first convolution then reads them once."""
    found = published(place, "diffusion", "control", control.clone(condition_channels=3))

    def read() -> dict:
        flat = flatten_dict(found(), sep="/")
        name = "params/condition/conv_in/kernel"
        return unflatten_dict(flat | {name: removal.first_kernel(flat[name])}, sep="/")

    return dataclasses.replace(found, read=read)


def start(control: dict, unet: dict) -> dict:
    """A ControlNet that begins as the U-Net's first half and adds nothing yet."""
    return {**control, "params": from_unet(control["params"], unet["params"])}
