"""Imaging of tissue in batches: geometry of the coil, noise, chemical shift, saturation, determinism."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from models.phantom.acquisition import acquire, acquire_slices, depth_plane, tissue_batch
from models.phantom.anatomy import draw_anatomy
from models.phantom.mri import DEMO_SCANNER, Contrast, Scanner, draw_contrast, draw_scanner
from models.phantom.sampling import cut, draw_subject, plane
from models.phantom.tissues import N_TISSUES, Tissue
from models.preprocessing import normalise, normalise_batch

SIZE = 96
QUIET = replace(DEMO_SCANNER, snr=1e9, bias=0.0, roll_off=0.0, coil_floor=1.0, blur_px=0.0, shift_px=0.0)


def _contrast(water: dict[Tissue, float], fat: dict[Tissue, float]) -> Contrast:
    signals = [np.zeros(N_TISSUES, np.float32) for _ in range(2)]
    for signal, values in zip(signals, (water, fat), strict=True):
        for tissue, value in values.items():
            signal[tissue] = value
    return Contrast(signals[0], signals[1], 1.5, 500.0, 10.0)


def _block(tissue: Tissue) -> Tensor:
    picture = torch.zeros(1, 4, SIZE, SIZE, dtype=torch.uint8)
    picture[:, :, 32:64, 32:64] = int(tissue)
    return picture


def _image(tissue: Tensor, contrast: Contrast, scanner: Scanner, seed: int = 0) -> Tensor:
    batch = tissue_batch(tissue, torch.tensor([[40.0, 0.0, -1.0]]).repeat(len(tissue), 1))
    n = len(tissue)
    return acquire(batch, [contrast] * n, [scanner] * n, torch.Generator().manual_seed(seed))


def test_the_same_seed_gives_the_same_image_and_another_does_not() -> None:
    rng = np.random.default_rng(0)
    contrast, scanner = draw_contrast(rng, "t1"), draw_scanner(rng)
    first, same, other = (_image(_block(Tissue.MUSCLE), contrast, scanner, seed) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_depth_below_the_back_is_that_of_every_pixel() -> None:
    subject = draw_subject(draw_anatomy(3))
    geometry = plane((4, 10, 60), (0.9, 0.1, 0.2), (0, 0.8, -0.6), size=32, spacing_mm=4.0, thickness_mm=4)
    slice_ = cut(subject, geometry, 0)
    planes = torch.tensor([depth_plane(slice_, 85.0)])
    batch = tissue_batch(torch.from_numpy(slice_.tissue)[None], planes)
    np.testing.assert_allclose(batch.depth_mm[0].numpy(), 85.0 - slice_.points_mm[..., 1], atol=1e-3)


@pytest.mark.parametrize("snr", [10.0, 40.0])
def test_noise_in_air_is_rayleigh_of_the_wanted_strength(snr: float) -> None:
    scanner = replace(QUIET, snr=snr, resolution=(1.3, 1.0), apodised=False)
    contrast = _contrast({Tissue.MUSCLE: 0.8}, {})
    image = _image(_block(Tissue.MUSCLE), contrast, scanner)[0]
    air = image[72:, :]
    sigma = float(air.mean()) / np.sqrt(np.pi / 2)
    assert sigma == pytest.approx(0.8 / snr, rel=0.15)


def test_fat_moves_along_the_frequency_axis_and_water_does_not() -> None:
    centre = torch.arange(SIZE, dtype=torch.float32)
    for axis in (0, 1):
        scanner = replace(QUIET, shift_px=1.6, frequency_axis=axis)
        water = _image(_block(Tissue.MUSCLE), _contrast({Tissue.MUSCLE: 1.0}, {}), scanner)[0]
        fat = _image(_block(Tissue.MUSCLE), _contrast({}, {Tissue.MUSCLE: 1.0}), scanner)[0]
        for along in (0, 1):
            places = [float((image.sum(1 - along) * centre).sum() / image.sum()) for image in (water, fat)]
            assert places[1] - places[0] == pytest.approx(1.6 if along == axis else 0.0, abs=0.4)


def test_a_saturation_band_darkens_what_lies_in_front() -> None:
    scanner = replace(QUIET, saturation=0.9, saturation_edge_mm=-50.0, saturation_width_mm=3.0)
    picture = torch.full((1, 4, SIZE, SIZE), int(Tissue.MUSCLE), dtype=torch.uint8)
    batch = tissue_batch(picture, torch.tensor([[0.0, 0.0, 1.0]]))  # deeper, that is more anterior, to the right
    image = acquire(batch, [_contrast({Tissue.MUSCLE: 1.0}, {})], [scanner], torch.Generator().manual_seed(0))[0]
    assert float(image[:, 70:].mean()) < 0.25 * float(image[:, :30].mean())


def test_a_batch_is_normalised_like_a_slice() -> None:
    images = np.random.default_rng(0).gamma(2.0, 100.0, (3, 40, 50)).astype(np.float32)
    images[2] = 0
    expected = np.stack([normalise(image) for image in images])
    np.testing.assert_allclose(normalise_batch(torch.from_numpy(images)).numpy(), expected, atol=1e-5)


def test_a_stack_is_one_acquisition() -> None:
    subject = draw_subject(draw_anatomy(1))
    geometry = plane((0, 10, 60), (0, 1, 0), (0, 0, -1), size=64, spacing_mm=3.0, thickness_mm=4)
    slices = [cut(subject, geometry, 0)] * 2
    contrast = draw_contrast(np.random.default_rng(0), "t1")
    first, again = (acquire_slices(slices, contrast, DEMO_SCANNER, seed=[1, 2], back_y_mm=90.0) for _ in range(2))
    assert first.shape == (2, 64, 64)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])  # noise and fields differ from slice to slice
