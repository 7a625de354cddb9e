"""Published numbers stand beside a score only where it was measured alike."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

from jaxt2i.encoders import features
from jaxt2i.evaluation import scores
from jaxt2i.metrics import protocols, published, retrieval
from jaxt2i.metrics.inception_score import ORDERS
from jaxt2i.metrics.score import MetricError
from jaxt2i.nn import pixels

PARTS = tuple(dict.fromkeys(protocols.PARTS.values()))


def models(protocol, metric):
    return {x.model: x.value for x in published.beside(protocol, metric)}


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_protocols_name_what_exists(name):
    protocol = protocols.get(name)
    assert protocol.name == name
    assert any(getattr(protocol, part) for part in PARTS)
    assert protocol.samples.captions in protocols.CAPTIONS
    assert protocol.samples.quantise in (*pixels.RULES, protocols.ANY)
    if protocol.inception:
        assert protocol.inception.order in ORDERS
    if protocol.clip:
        assert protocol.clip.scale in retrieval.SCALES
    told = protocols.settings(protocol)
    assert json.loads(json.dumps(told)) == told
    assert told["samples.count"] == protocol.samples.count


@functools.cache
def prepared(network, input, resolution):
    """(size that the network is fed, sizes that it takes)."""
    nets = features.make(network)
    net = nets.get("image") or nets["features"]
    pixels = jax.ShapeDtypeStruct((1, resolution, resolution, 3), np.uint8)
    fed = jax.eval_shape(net.inputs[input], pixels)
    assert fed.shape[:1] + fed.shape[3:] == (1, 3)
    # DINOv2 takes whatever its patches fill.
    whole = range(0, 1000, net.module.patch) if network.startswith("dinov2") else ()
    return fed.shape[1], whole or (net.module.example()[0].shape[1],)


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_every_protocol_can_be_measured(name):
    """Its networks and what they are fed exist, and fit."""
    protocol = protocols.get(name)
    metrics = [m for m, part in scores.METRICS.items() if getattr(protocol, part)]
    for metric, look in scores.looks_of(protocol, metrics).items():
        if look.network == "damsm":  # that of a run
            continue
        fed, taken = prepared(look.network, look.input, protocol.samples.resolution)
        assert fed in taken, look
        if metric in scores.NEEDS_TEXT:
            assert "text" in features.make(look.network)
    if protocol.perceptual:
        assert f"lpips_{protocol.perceptual.network}" in features.NETWORKS
    if protocol.inception:
        classes = features.make(protocol.inception.network)["features"].module.classes
        # The classes of the test split, or the 1008 of the graph.
        used = {"cub": 50, "oxford102": 20}.get(protocol.samples.dataset, 1008)
        assert classes - protocol.inception.first == used


def test_published_numbers_belong_to_protocols_that_measure_them():
    seen = set()
    for number in published.PUBLISHED:
        protocol = protocols.get(number.protocol)
        assert getattr(protocol, protocols.part(number.metric)) is not None, number
        assert number.value > 0
        key = (number.protocol, number.model, number.metric, number.source)
        assert key not in seen, number
        seen.add(key)
        assert number in published.beside(protocol, number.metric)


def test_two_fids_of_the_same_images_are_kept_apart():
    cub, tf = protocols.get("dmgan_cub"), protocols.get("dmgan_cub_tf")
    assert models(cub, "fid")["DM-GAN, released"] == 15.34
    assert models(tf, "fid") == {"AttnGAN": 14.01, "DM-GAN, released": 11.91}
    assert protocols.difference(cub, tf) == (
        "dmgan_cub and dmgan_cub_tf differ in fid.network (inception_torchvision against "
        "inception_2015), fid.input (dmgan against tf1) and fid.whole_batches (64 against 1)."
    )


def test_a_changed_field_takes_the_published_number_away():
    galip = protocols.get("galip_coco")
    assert models(galip, "clip_score") == {"GALIP, paper": 0.3338, "GALIP, released": 0.3379}
    fewer = dataclasses.replace(galip, samples=dataclasses.replace(galip.samples, count=1000))
    assert models(fewer, "clip_score") == {}
    assert list(protocols.differences(fewer, galip)) == ["samples.count"]
    usual = dataclasses.replace(galip, clip=protocols.Clip())
    assert models(usual, "clip_score") == {}
    # FID does not depend on which CLIP there is, and a name is only a name.
    renamed = dataclasses.replace(usual, name="mine", note="of today")
    assert models(renamed, "fid") == models(galip, "fid")
    assert (
        protocols.difference(renamed, galip, "fid") == "mine and galip_coco measure alike in fid."
    )


def test_what_only_one_measures():
    a, b = protocols.get("attngan_cub"), protocols.get("dmgan_cub")
    assert protocols.difference(a, b) == (
        "attngan_cub and dmgan_cub differ in retrieval.dropped (0 against 1)."
    )
    assert protocols.differences(a, b, "fid") == {"fid": ("not measured", "measured")}
    assert published.beside(a, "fid") == ()
    # The same Inception Score, so DM-GAN's may stand beside it.
    assert models(a, "inception_score")["AttnGAN"] == 4.36
    assert models(a, "inception_score")["DM-GAN, released"] == 4.71


def test_resolution_and_reference_of_stylegan_t():
    small, large = (protocols.get(f"stylegan_t_coco{r}") for r in (64, 256))
    assert models(small, "fid")["StyleGAN-T"] == 7.30
    assert models(large, "fid") == {"StyleGAN-T": 13.90}
    assert small.fid.ddof == 0
    apart = {"samples.resolution", "samples.drawn", "reference.then"}
    assert apart == set(protocols.differences(small, large))


def test_numbers_that_were_not_read_say_so():
    doubtful = {x.model for x in published.PUBLISHED if x.doubt}
    assert {"KT-GAN", "IIR-Net", "Imagen"} <= doubtful
    assert all(not x.doubt for x in published.beside(protocols.get("dmgan_cub_tf"), "fid"))


def test_unknown_names():
    with pytest.raises(MetricError, match="no protocol 'dmgan_cup'; did you mean 'dmgan_cub'"):
        protocols.get("dmgan_cup")
    with pytest.raises(MetricError, match="no protocol speaks of 'psnr'; known: fid"):
        protocols.differences(protocols.get("clean"), protocols.get("tf2015"), "psnr")
    with pytest.raises(MetricError, match="no protocol speaks of 'psnr'"):
        published.beside(protocols.get("clean"), "psnr")
