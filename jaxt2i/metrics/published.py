"""Numbers that papers and README files print, each with the protocol it was measured under."""

from typing import NamedTuple

from jaxt2i.metrics.protocols import PROTOCOLS, Protocol, differences, part


class Published(NamedTuple):
    """One printed number.

    Attributes:
      protocol: key of `jaxt2i.metrics.protocols.PROTOCOLS`.
      model: whose images.
      metric: key of `jaxt2i.metrics.protocols.PARTS`.
      value: in the metric's unit: R-precision in percent, CLIP scores on the protocol's scale.
      source: where it is printed.
      spread: the "+-" beside it.
      doubt: why it should be looked up before it is quoted; "" for numbers that were read.
    """

    protocol: str
    model: str
    metric: str
    value: float
    source: str
    spread: float | None = None
    doubt: str = ""


RECALLED = "from memory, not read again"
CODE = "the paper's own evaluation code was not read"
DMGAN, GALIP, DFGAN = "README of DM-GAN", "README of GALIP", "README of DF-GAN"
OBJGAN, STYLEGAN_T = "README of Obj-GAN", "StyleGAN-T, arXiv 2301.09515, tables 2 and 3"
GIGAGAN = "README of GigaGAN's evaluation"
OPGAN = "Hinz et al., arXiv 1910.13321"


def _table(protocol: str, source: str, rows: dict[str, dict], doubt: str = "") -> list[Published]:
    """Rows {model: {metric: value or (value, spread)}} of one source."""
    out = []
    for model, numbers in rows.items():
        for metric, number in numbers.items():
            value, spread = number if isinstance(number, tuple) else (number, None)
            out.append(Published(protocol, model, metric, value, source, spread, doubt))
    return out


def _scores(r: tuple, score: tuple, fid: float) -> dict:
    return {"r_precision": r, "inception_score": score, "fid": fid}


def _attngan() -> list[Published]:
    paper = "AttnGAN, arXiv 1711.10485; repeated in DM-GAN's README"
    cub = {"inception_score": (4.36, 0.03), "r_precision": (67.82, 4.43)}
    coco = {"inception_score": (25.89, 0.47), "r_precision": (85.47, 3.69)}
    return [
        *_table("attngan_cub", paper, {"AttnGAN": cub}),
        *_table("attngan_coco", paper, {"AttnGAN": coco}),
    ]


def _dmgan() -> list[Published]:
    cub = {
        "AttnGAN": {"fid": 23.98},
        "DM-GAN, paper": _scores((72.31, 0.91), (4.75, 0.07), 16.09),
        "DM-GAN, released": _scores((76.58, 0.53), (4.71, 0.06), 15.34),
    }
    coco = {
        "AttnGAN": {"fid": 35.49},
        "DM-GAN, paper": _scores((88.56, 0.28), (30.49, 0.57), 32.64),
        "DM-GAN, released": _scores((92.23, 0.37), (32.43, 0.58), 26.55),
    }
    tf = {
        "cub": {"AttnGAN": {"fid": 14.01}, "DM-GAN, released": {"fid": 11.91}},
        "coco": {"AttnGAN": {"fid": 29.53}, "DM-GAN, released": {"fid": 24.24}},
    }
    kt = {
        "cub": {"KT-GAN": {"fid": 17.32, "inception_score": (4.85, 0.04)}},
        "coco": {"KT-GAN": {"fid": 30.73, "inception_score": (31.67, 0.36)}},
    }
    return [
        *_table("dmgan_cub", DMGAN, cub),
        *_table("dmgan_coco", DMGAN, coco),
        *(x for name, rows in tf.items() for x in _table(f"dmgan_{name}_tf", DMGAN, rows)),
        *(
            x
            for name, rows in kt.items()
            for x in _table(f"dmgan_{name}", "KT-GAN", rows, f"{RECALLED}; protocol assumed")
        ),
    ]


def _single_stage() -> list[Published]:
    return [
        *_table("dfgan_cub", DFGAN, {"DF-GAN, released": {"fid": 12.10}}),
        *_table("dfgan_coco", DFGAN, {"DF-GAN, released": {"fid": 15.41}}),
        *_table(
            "dfgan_cub", DFGAN, {"DF-GAN, paper": {"fid": 14.81, "inception_score": 5.10}}, CODE
        ),
        *_table("dfgan_coco", DFGAN, {"DF-GAN, paper": {"fid": 19.32}}, CODE),
        *_table("souza_cub", "paper page", {"Souza et al.": {"fid": 11.17}}),
        *_table("souza_oxford102", "paper page", {"Souza et al.": {"fid": 16.47}}),
        *_table(
            "souza_cub_is", "paper", {"Souza et al.": {"inception_score": (4.23, 0.05)}}, RECALLED
        ),
        *_table(
            "souza_oxford102_is",
            "paper",
            {"Souza et al.": {"inception_score": (3.71, 0.06)}},
            RECALLED,
        ),
        *_table(
            "galip_coco",
            GALIP,
            {
                "GALIP, paper": {"fid": 5.85, "clip_score": 0.3338},
                "GALIP, released": {"fid": 5.01, "clip_score": 0.3379},
            },
        ),
        *_table("galip_coco_zero_shot", GALIP, {"GALIP on CC12M": {"fid": 12.54}}),
        *_table(
            "galip_cub",
            "Papers with Code, and an independent README",
            {"GALIP, paper": {"fid": 10.08, "clip_score": 0.3164}},
        ),
    ]


def _zero_shot() -> list[Published]:
    quoted = "quoted there from its own paper, whose code may differ"
    small = {"LAFITE": 14.80, "GLIDE": 7.40, "LDM": 7.59, "eDiff-I": 7.60, "Stable Diffusion": 8.40}
    large = {
        "LAFITE": 26.94,
        "GLIDE": 12.24,
        "LDM": 12.63,
        "eDiff-I": 6.95,
        "Stable Diffusion": 8.59,
        "Imagen": 7.27,
        "Parti-3B": 8.10,
        "DALL-E 2": 10.39,
        "Make-A-Scene": 11.84,
    }
    released = {"fid": 9.06, "clip_score": 0.33}
    return [
        *_table("stylegan_t_coco64", STYLEGAN_T, {"StyleGAN-T": {"fid": 7.30}}),
        *_table("stylegan_t_coco256", STYLEGAN_T, {"StyleGAN-T": {"fid": 13.90}}),
        *_table("gigagan_coco256", GIGAGAN, {"GigaGAN, paper": {"fid": 9.09}}),
        *_table("gigagan_coco256", GIGAGAN, {"GigaGAN, released images": released}),
        *_table("stylegan_t_coco64", STYLEGAN_T, {m: {"fid": v} for m, v in small.items()}, quoted),
        *_table("coco30k", STYLEGAN_T, {m: {"fid": v} for m, v in large.items()}, quoted),
    ]


def _layouts() -> list[Published]:
    def one(score: tuple, fid: float, r: tuple) -> dict:
        return {"inception_score": score, "fid": fid, "pool_precision": r}

    released = {
        "Obj-GAN, released": one((27.32, 0.40), 24.70, (91.91, 2.37)),
        "Obj-GAN, released, true boxes": one((28.22, 0.35), 22.67, (93.00, 2.15)),
        "Obj-GAN, released, true boxes and shapes": one((31.01, 0.27), 17.03, (94.42, 2.03)),
    }
    paper = {
        "Obj-GAN, paper": {"inception_score": 27.37, "pool_precision": 86.20},
        "Obj-GAN, paper, true boxes": {
            "inception_score": 27.96,
            "fid": 24.19,
            "pool_precision": 88.36,
        },
        "Obj-GAN, paper, true boxes and shapes": {
            "inception_score": 29.89,
            "pool_precision": 89.59,
        },
    }
    seen = {
        "Obj-GAN, paper": {"fid": 25.85},
        "Obj-GAN, paper, true boxes and shapes": {"fid": 20.75},
    }
    confirmed = {
        "real images": {"fid": 6.09},
        "Obj-GAN": {"fid": 36.52},
        "DM-GAN": {"fid": 27.34},
        "OP-GAN": {"fid": 24.70, "inception_score": 27.88},
    }
    recalled = {
        "real images": {"inception_score": 34.88, "r_precision": 68.58},
        "AttnGAN": {"inception_score": 23.61, "fid": 33.10, "r_precision": 83.80},
        "Obj-GAN": {"inception_score": 24.09, "r_precision": 87.84},
        "DM-GAN": {"inception_score": 32.32, "r_precision": 91.87},
        "OP-GAN": {"r_precision": 89.01},
    }
    board, unseen = "read on leaderboards, not in the paper", "evaluation settings were not read"
    source = "Li et al., arXiv 1902.10740"
    return [
        *_table("objgan_coco", OBJGAN, released),
        *_table("objgan_coco", source, paper, RECALLED),
        *_table("objgan_coco", source, seen, board),
        *_table("opgan_coco", OPGAN, confirmed, f"{board}; {unseen}"),
        *_table("opgan_coco", OPGAN, recalled, f"{RECALLED}; {unseen}"),
    ]


def _editing() -> list[Published]:
    rows = {
        "IIR-Net": {"lpips": 0.301, "clip_score": 24.30},
        "Imagic": {"lpips": 0.567, "clip_score": 21.53},
    }
    return _table("iir_net_coco", "IIR-Net", rows, "settings inferred: no code was published")


PUBLISHED: tuple[Published, ...] = tuple(
    x for part in (_attngan, _dmgan, _single_stage, _zero_shot, _layouts, _editing) for x in part()
)


def beside(measured: Protocol, metric: str) -> tuple[Published, ...]:
    """The published numbers that may stand beside a score.

    Args:
      measured: how the score was measured; its name does not matter, its fields do.
      metric: key of `jaxt2i.metrics.protocols.PARTS`.

    Returns:
      Those of every protocol that measures this metric in the same way on samples of the same kind.

    Raises:
      MetricError: for a metric that no protocol speaks of.
    """
    if getattr(measured, part(metric)) is None:
        return ()
    return tuple(
        x
        for x in PUBLISHED
        if x.metric == metric and not differences(measured, PROTOCOLS[x.protocol], metric)
    )
