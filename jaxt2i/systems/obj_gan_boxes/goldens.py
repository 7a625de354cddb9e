"""Obj-GAN's box generator against its official code's numbers."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.nn.mixture import Mixture, read
from jaxt2i.systems.obj_gan_boxes import layouts, mixtures, names
from jaxt2i.systems.obj_gan_boxes import method as boxes
from jaxt2i.systems.obj_gan_boxes.networks import Decoder
from jaxt2i.verify.arrays import Arrays
from jaxt2i.verify.compute import compiled
from jaxt2i.verify.encoders import damsm_text
from jaxt2i.verify.networks import convert_net
from jaxt2i.verify.step import Networks

SERVES = ("obj_gan/box_*",)
MODEL = boxes.Model()
# Deviations and correlations as the published code has them, without bounds.
UNBOUND = {"log_sigma": (-np.inf, np.inf), "rho": 1.0}
TEMPERATURE = 0.4


def parameters(of: Mixture) -> jax.Array:
    """A mixture [..., K] as the folder stores it: [..., 6, K]."""
    mu, sigma = (jnp.moveaxis(x, -1, 0) for x in (of.mu, jnp.exp(of.log_sigma)))
    return jnp.stack([jnp.exp(of.log_pi), *mu, *sigma, of.rho], -2)


def statistics(case) -> layouts.Statistics:
    """Statistics of which the first input alone is read."""
    classes = MODEL.classes
    mean = tuple(np.asarray(case.inputs["in_first_input_means"]).tolist())
    same = (1.0,) * classes
    return layouts.Statistics(mean, (1.0,) * 4, same, 1.0, same, same)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given(boxes.Losses):
    """The method's own losses of a given sequence.

    Attributes:
      shown: how often each label is shown.
    """

    shown: jax.Array

    def sequence(self, batch) -> tuple[jax.Array, jax.Array]:
        """As the case has it."""
        return batch["labels"], batch["places"].at[:, 0].set(self.first)

    @property
    def counts(self) -> jax.Array:
        """As the case has them."""
        return self.shown


def networks(golden, case) -> tuple[Networks, Decoder]:
    """The encoder and the decoder of a case, and its captions."""
    encoder, net = case.info["weights"]
    text = damsm_text(golden, encoder)
    module = Decoder(**names.infer("decoder", golden.weights(net)))
    variables = convert_net(golden, net, names.DECODER, module)
    tokens = jnp.asarray(case.inputs["in_captions"], jnp.int32)
    batch = {"tokens": tokens, "token_mask": jnp.ones(tokens.shape, bool)}
    made = {"text": text, "decoder": (module, variables)}
    return Networks(made, {"decoder": names.DECODER}, batch), module


def train(golden, case) -> Arrays:
    """A known sequence: what is said at every step, both losses, their gradients."""
    at, _ = networks(golden, case)
    given = {k: jnp.asarray(case.inputs[f"in_{k}"]) for k in ("x", "y", "w", "r")}
    at.batch |= {
        "labels": jnp.asarray(case.inputs["in_labels"], jnp.int32),
        "places": jnp.stack(list(given.values()), -1),
    }
    counts = jnp.asarray(case.inputs["in_label_counts"])
    losses = Given(MODEL, statistics(case), steps=1, shown=counts)

    def seen(ctx, batch):
        text = losses.text(ctx, batch)
        told, *_ = losses.follow(ctx, batch)
        return (), (text, told)

    played = at.play(loss=(losses.loss, ("decoder",)), seen=(seen, ()))
    turn, (text, told) = played["loss"], played["seen"].logs
    halves = [np.split(np.asarray(text[k]), 2, -1) for k in ("sentence", "cell")]
    order = golden.order(case.info["entries"]["out_grad_norms"])
    out = {
        "out_enc_out": np.asarray(text["words"])[:, :, ::4],
        "out_enc_h": np.stack(halves[0]),
        "out_enc_c": np.stack(halves[1]),
        "out_label_probs": told.labels,
        "out_xy_gmm": parameters(told.xy),
        "out_wh_gmm": parameters(told.wh),
        "out_dec_h": told.state.h[None],
        "out_dec_c": told.state.c[None],
        "out_label_loss": turn.logs["label"],
        "out_box_loss": turn.logs["box"],
        "out_total": turn.value,
        "out_grad_norms": at.norms(turn.gradients, order),
    }
    if told.attention is not None:
        out["out_attention"] = told.attention[:, :, None]
    return out


def sample(golden, case) -> Arrays:
    """Free running with given components and normal numbers."""
    at, _ = networks(golden, case)
    picks, normal = (jnp.asarray(case.inputs[f"in_{k}"]) for k in ("pi_idx", "eps"))
    losses = boxes.Losses(MODEL, statistics(case), len(picks))

    def pick(number, name, of):
        which = ("xy", "wh").index(name)
        of = mixtures.tempered(of, TEMPERATURE)
        return mixtures.point(of, picks[number, which][None], normal[number, which][None])

    def run(ctx, batch):
        text = losses.text(ctx, batch)
        choose = lambda _, told: told.argmax(-1)  # noqa: E731
        return losses.decode(ctx, text, batch["token_mask"], choose, pick)

    told, labels, places, both = at.run(run)
    weights = [np.exp(np.asarray(mixtures.tempered(of, TEMPERATURE).log_pi)) for of in both]
    return {
        "out_label_probs": np.moveaxis(np.asarray(told), 0, 1),
        "out_labels": labels[:, 0],
        "out_xy": places[:, 0, :2],
        "out_wh": places[:, 0, 2:],
        "out_pi_tempered": np.stack(weights, 1)[:, :, 0],
    }


def gmm(golden, case) -> Arrays:
    """Parameters and densities of mixtures, the loss, its gradients."""
    get = {k.removeprefix("in_"): jnp.asarray(v) for k, v in case.inputs.items()}
    labels = jnp.asarray(get["labels"], jnp.int32)[None]
    places = jnp.stack([get[k] for k in ("x", "y", "w", "h")], -1)

    @compiled
    def program(raw_xy, raw_wh, places):
        def loss(raw_xy, raw_wh):
            of = [read(raw[None], **UNBOUND) for raw in (raw_xy, raw_wh)]
            return boxes.box_loss(*of, places[None], labels)[0]

        value, gradients = jax.value_and_grad(loss, (0, 1))(raw_xy, raw_wh)
        xy = read(raw_xy, **UNBOUND)
        return value, gradients, parameters(xy), mixtures.log_density(xy, places[:, :2])

    value, (by_xy, by_wh), told, density = program(get["raw_xy"], get["raw_wh"], places)
    return {
        "out_xy_params": told,
        "out_xy_logpdf": density,
        "out_loss": value,
        "out_norm_term": np.float32((np.asarray(labels) != layouts.PAD).sum()),
        "out_grad_raw_xy": by_xy,
        "out_grad_raw_wh": by_wh,
    }


def postprocess(golden, case) -> Arrays:
    """The boxes and classes that a decoded sequence stands for."""
    get = case.inputs
    classes = len(get["in_class_count_mu"])
    mean, deviation = (tuple(row.tolist()) for row in np.asarray(get["in_mean_std"], np.float64).T)
    same = (1.0,) * classes
    stats = layouts.Statistics(mean, deviation, same, 1.0, same, same)
    most = jnp.asarray(get["in_class_count_mu"]) + get["in_threshold_offset"]

    @compiled
    def program(places, labels, most):
        return layouts.layout(places, labels, most, stats, whole_pixels=False)

    places = jnp.asarray(np.concatenate([get["in_xy"], get["in_wh"]], -1))
    labels = jnp.asarray(get["in_labels"], jnp.int32)
    found, there = (np.asarray(x) for x in program(places, labels, most))
    return {
        "out_boxes": np.round(found[there] * layouts.SIZE, 2),
        # Stored classes count from 1.
        "out_category_id": get["in_labels"][there] - layouts.SPECIAL + 1,
    }


CASES: dict[str, Callable[..., Arrays]] = {
    "box_train*": train,
    "box_sample*": sample,
    "box_gmm*": gmm,
    "box_postprocess*": postprocess,
}
