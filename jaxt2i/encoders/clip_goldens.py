"""CLIP towers against transformers, open_clip and OpenAI's code, and OpenAI's preprocessing.

Images are NCHW in the folders, NHWC here.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping

import instant_clip_tokenizer
import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.data.tokenize import ClipTokenizer
from jaxt2i.encoders import clip
from jaxt2i.losses.text import l2_normalize
from jaxt2i.systems.galip.method import clip_input
from jaxt2i.verify.arrays import Arrays, nchw, nhwc, norm
from jaxt2i.verify.compute import compiled
from jaxt2i.verify.encoders import clip_tower
from jaxt2i.verify.golden import Case, Golden

SERVES = ("clip_hf/*", "galip/clip_*", "galip/text_encoder", "galip/image_encoder")


def text_stages(golden: Golden, name: str, tokens: np.ndarray) -> dict[str, jax.Array]:
    """Stages of the text tower, its sentence vector among them."""
    module, variables = clip_tower(golden, name, "text")
    tokens = jnp.asarray(tokens, jnp.int32)

    @compiled
    def run(variables, tokens):
        stages = module.apply(variables, tokens, method="stages")
        return stages | {"sentence": module.apply(variables, tokens).sentence}

    return run(variables, tokens)


def image_stages(golden: Golden, name: str, image: jax.Array) -> dict[str, jax.Array]:
    """Stages of the image tower, its embedding among them; `image` is normalised, NHWC."""
    module, variables = clip_tower(golden, name, "image")

    @compiled
    def run(variables, image):
        stages = module.apply(variables, image, method="stages")
        return stages | {"embedding": module.apply(variables, image)[0]}

    return run(variables, image)


def temperature(golden: Golden, name: str) -> np.ndarray:
    """exp(logit_scale)."""
    return np.exp(golden.weights(name, "logit_scale")["logit_scale"])


def unit(x) -> np.ndarray:
    """Rows of length 1."""
    return np.asarray(compiled(l2_normalize)(x))


# --- transformers ------------------------------------------------------------------------------


def _hf(stages: Mapping, kind: str, states: str) -> Arrays:
    hidden = [stages["embedded"], *stages["blocks"]]
    vector = stages["sentence" if kind == "text" else "embedding"]
    return {
        f"out_{kind}_features": np.asarray(vector),
        f"out_{kind}_embeds": unit(vector),
        f"out_{kind}_pooled": np.asarray(stages["pooled"]),
        f"out_{kind}_last_hidden": np.asarray(stages[states] if kind == "text" else hidden[-1]),
        **{f"out_{kind}_hidden{k}": np.asarray(x) for k, x in enumerate(hidden)},
    }


def hf_text_image(golden: Golden, case: Case) -> Arrays:
    """Both towers, every hidden state, logits."""
    (name,) = case.info["weights"]
    text = _hf(text_stages(golden, name, case.inputs["in_input_ids"]), "text", "words")
    image = image_stages(golden, name, nhwc(case.inputs["in_pixel_values"]))
    image = _hf(image, "image", "embedded")
    logits = temperature(golden, name) * text["out_text_embeds"] @ image["out_image_embeds"].T
    return text | image | {"out_logits_per_text": logits}


def hf_text_masked(golden: Golden, case: Case) -> Arrays:
    """The text tower where padding is masked: states of padding are zeroed, nothing else moves."""
    (name,) = case.info["weights"]
    text = _hf(text_stages(golden, name, case.inputs["in_input_ids"]), "text", "words")
    mask = case.inputs["in_attention_mask"][..., None]
    out = {k: x * mask if "hidden" in k else x for k, x in text.items()}
    pixels = golden.case("text_image").inputs["in_pixel_values"]
    image = unit(image_stages(golden, name, nhwc(pixels))["embedding"])
    logits = temperature(golden, name) * text["out_text_embeds"] @ image.T
    return out | {"out_logits_per_text": logits}


def hf_interpolated(golden: Golden, case: Case) -> Arrays:
    """The image tower on another image size."""
    (name,) = case.info["weights"]
    stages = image_stages(golden, name, nhwc(case.inputs["in_pixel_values"]))
    return {
        "out_image_features": np.asarray(stages["embedding"]),
        "out_image_last_hidden": np.asarray(stages["blocks"][-1]),
    }


def hf_gradient(golden: Golden, case: Case) -> Arrays:
    """Cosine of images and texts, differentiated with respect to the pixels."""
    (name,) = case.info["weights"]
    text = unit(text_stages(golden, name, case.inputs["in_input_ids"])["sentence"])
    module, variables = clip_tower(golden, name, "image")

    def mean_cosine(x, variables, text):
        cosine = (l2_normalize(module.apply(variables, x)[0]) * text).sum(-1)
        return cosine.mean(), cosine

    step = compiled(jax.value_and_grad(mean_cosine, has_aux=True))
    (_, cosine), grad = step(nhwc(case.inputs["in_pixel_values"]), variables, text)
    return {
        "out_cosine": np.asarray(cosine),
        "out_grad_pixel": nchw(grad),
        "out_grad_norm": norm(grad),
    }


# --- open_clip ---------------------------------------------------------------------------------


def openclip_text_image(golden: Golden, case: Case) -> Arrays:
    """Both towers and their blocks under open_clip's names."""
    (name,) = case.info["weights"]
    text = text_stages(golden, name, case.inputs["in_text"])
    image = image_stages(golden, name, nhwc(case.inputs["in_images"]))
    return {
        "out_image": np.asarray(image["embedding"]),
        "out_text": np.asarray(text["sentence"]),
        "out_image_normalized": unit(image["embedding"]),
        "out_text_normalized": unit(text["sentence"]),
        "out_scale": temperature(golden, name),
        **{f"out_visual_block{k}": np.asarray(x) for k, x in enumerate(image["blocks"])},
        **{f"out_text_block{k}": np.asarray(x) for k, x in enumerate(text["blocks"])},
    }


def text_image(golden: Golden, case: Case) -> Arrays:
    """The case of this name, which transformers' and open_clip's folders share."""
    run = hf_text_image if "in_input_ids" in case.inputs else openclip_text_image
    return run(golden, case)


# --- OpenAI's code, as GALIP uses it -----------------------------------------------------------


def openai_tiny(golden: Golden, case: Case) -> Arrays:
    """Both towers, every block, the end of the text at different places."""
    (name,) = case.info["weights"]
    text = text_stages(golden, name, case.inputs["in_tokens"])
    image = image_stages(golden, name, nhwc(case.inputs["in_image"]))
    scale = temperature(golden, name)
    both = unit(image["embedding"]), unit(text["sentence"])
    return {
        "out_image_embed": image["embedding"],
        "out_text_embed": text["sentence"],
        "out_logits_per_image": scale * both[0] @ both[1].T,
        "out_logit_scale_exp": scale,
        "out_conv1": nchw(image["patches"]),
        "out_ln_pre": image["embedded"],
        "out_ln_final": text["words"],
        **{f"out_vision_block{k}": x for k, x in enumerate(image["blocks"])},
        **{f"out_text_block{k}": x for k, x in enumerate(text["blocks"])},
    }


def text_encoder(golden: Golden, case: Case) -> Arrays:
    """The text tower at its published size."""
    (name,) = case.info["weights"]
    text = text_stages(golden, name, case.inputs["in_tokens"])
    blocks = {f"out_block{k}": x for k, x in enumerate(text["blocks"])}
    return {"out_sent": text["sentence"], "out_words": text["words"], **blocks}


def image_encoder(golden: Golden, case: Case) -> Arrays:
    """The image tower at its published size, behind GALIP's input map, for two image sizes."""
    (name,) = case.info["weights"]
    module, variables = clip_tower(golden, name, "image")

    @compiled
    def run(variables, *images):
        out = []
        for image in images:
            seen = clip_input(image, module.resolution, "galip")
            stages = module.apply(variables, seen, method="stages")
            taps = stages["blocks"][np.array([1, 4, 8]), :, 1:]
            out.append((seen, module.apply(variables, seen)[0], taps, stages["patches"]))
        return out

    def features(taps: jax.Array) -> np.ndarray:
        k, b, n, c = taps.shape
        side = round(n**0.5)
        return np.asarray(taps).reshape(k, b, side, side, c).transpose(1, 0, 4, 2, 3)

    pictures = (nhwc(case.inputs[f"in_image{size}"]) for size in ("", "224"))
    (image, embedding, taps, patches), (_, embedding224, taps224, _) = run(variables, *pictures)
    return {
        "out_clip_input": nchw(image)[:, :, 1::7, 2::7],
        "out_patch_embed": nchw(patches),
        "out_feats": features(taps),
        "out_emb": embedding,
        "out_feats224": features(taps224),
        "out_emb224": embedding224,
    }


def clip_preprocess(golden: Golden, case: Case) -> Arrays:
    """Preprocessing of pictures of odd sizes."""

    @compiled
    def run(pictures):
        prepare = clip.INPUTS["pillow_bicubic_crop"]
        seen = {name: prepare(image[None], 224) for name, image in pictures.items()}
        mean, std = np.float32(clip.MEAN), np.float32(clip.STD)
        return {name: (pixels - mean) / std for name, pixels in seen.items()}

    out = {name: nchw(pixels)[0, :, 1::4, 2::4] for name, pixels in run(case.inputs).items()}
    return {name.replace("in_image", "out_pixel"): x for name, x in out.items()}


SPECIAL = re.compile(r"(<\|startoftext\|>|<\|endoftext\|>)")


def clip_tokens(golden: Golden, case: Case) -> Arrays:
    """Token ids of captions, as OpenAI cleans them and, where that differs, as transformers does.

    OpenAI reads the special tokens' names inside a caption as the tokens; our tokenizer takes them
    as text (see `ClipTokenizer`), so they are cut out here.
    """
    tokenizer, merges = ClipTokenizer(), instant_clip_tokenizer.Tokenizer()

    def openai(text: str) -> list[int]:
        tokens, mask = tokenizer([text])
        return tokens[0][mask[0]].tolist()

    def with_specials(text: str) -> list[int]:
        start, end = tokenizer.start, tokenizer.eot
        ids = [start]
        for piece in SPECIAL.split(text):
            known = {"<|startoftext|>": [start], "<|endoftext|>": [end]}
            ids += known.get(piece) or openai(piece)[1:-1]
        return [*ids, end]

    def transformers(text: str) -> list[int]:
        text = " ".join(unicodedata.normalize("NFC", text).split()).lower()
        return [tokenizer.start, *merges.encode(text), tokenizer.eot]

    def ids(item: Mapping) -> dict:
        text = item["text"]
        out = {"text": text, "ids": (with_specials if SPECIAL.search(text) else openai)(text)}
        return out | ({"hf_ids": transformers(text)} if "hf_ids" in item else {})

    return {"*": {"cases": [ids(item) for item in case.data["cases"]]}}


CASES: dict[str, Callable[[Golden, Case], Arrays]] = {
    "text_image": text_image,
    "text_masked": hf_text_masked,
    "image_interpolated*": hf_interpolated,
    "image_gradient": hf_gradient,
    "clip_tiny": openai_tiny,
    "text_encoder": text_encoder,
    "image_encoder": image_encoder,
    "clip_preprocess": clip_preprocess,
    "clip_tokens": clip_tokens,
}
