import numpy as np
import pytest

from jaxt2i.metrics import pixels


def noise(seed, count=8, side=16):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_saturated_counts_both_ends():
    images = np.full((1, 2, 2, 3), 128, np.uint8)
    assert pixels.saturated(images) == 0
    images[0, 0, 0] = 255, 1, 2
    assert pixels.saturated(images) == pytest.approx(2 / 12)


def test_colours_tell_red_from_blue_and_not_where_they_are():
    red, blue = np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 4, 3), np.uint8)
    red[..., 0] = blue[..., 2] = 255
    half = red.copy()
    half[:, :2] = blue[:, :2]
    one, two, mixed = map(pixels.colours, (red, blue, half))
    assert one.sum() == two.sum() == 1
    assert pixels.colour_distance(one, two) == 1
    assert pixels.colour_distance(one, mixed) == 0.5
    assert pixels.colour_distance(mixed, pixels.colours(half[:, ::-1])) == 0


def test_spectrum_finds_the_frequency_of_stripes_and_their_power():
    x = np.arange(32)
    wave = 127.5 + 127.5 * np.sin(2 * np.pi * 4 * x / 32)
    images = np.broadcast_to(wave[None, None, :, None], (3, 32, 32, 3)).astype(np.uint8)
    power = pixels.spectrum(images)
    assert power.shape == (16,)
    assert power.argmax() == 3  # four waves a picture
    assert power[3] - np.delete(power, 3).max() > 2
    # By hand: a sine of amplitude a has a quarter of a ** 2 in each of two places.
    per_place = (0.5**2 / 4) * 32 * 32
    places = np.rint(np.hypot(*np.meshgrid(*[np.fft.fftfreq(32) * 32] * 2))) == 4
    assert power[3] == pytest.approx(np.log10(2 * per_place / places.sum()), abs=0.02)


def test_noise_is_far_from_smooth_pictures_and_near_other_noise():
    smooth = np.repeat(np.repeat(noise(0, 8, 4), 4, 1), 4, 2)
    near = pixels.spectrum_distance(pixels.spectrum(noise(1)), pixels.spectrum(noise(2)))
    far = pixels.spectrum_distance(pixels.spectrum(noise(1)), pixels.spectrum(smooth))
    assert near < 0.15 < 0.3 < far


def test_spread_and_difference():
    images = noise(3)
    assert pixels.spread(np.repeat(images[:1], 5, 0)) == 0
    assert pixels.spread(images) > 50
    assert pixels.difference(images, images) == 0
    assert pixels.difference(np.zeros_like(images), np.full_like(images, 9)) == 9
