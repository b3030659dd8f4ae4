"""Real slices as training data: what is known of them, who may be seen, and their new contrast."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from test_training import SMALL

from cohort.errors import ConfigurationError
from models.losses import dice_and_cross_entropy
from models.training.annotated import (
    BODY,
    CANAL,
    DISC,
    VERTEBRA,
    Annotated,
    bodies_in_front_of_canal,
    part_of_patient,
    read_annotated,
)
from models.training.augment import recolour
from models.training.loop import train
from models.training.pool import PoolPlan, make_pool
from pipelines.cli import main

N_PATIENTS = 30


def _label() -> np.ndarray:
    """Three bodies with discs below them, canal behind, spinous processes, no sacrum."""
    label = np.zeros((200, 160), np.uint8)
    for k in range(3):
        top = 40 + 40 * k
        label[top : top + 28, 50:90] = VERTEBRA
        label[top + 30 : top + 38, 52:88] = DISC
        label[top + 5 : top + 15, 104:130] = VERTEBRA
    label[30:170, 92:102] = CANAL
    return label


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("slices")
    (root / "images").mkdir()
    (root / "labels").mkdir()
    random, lines = np.random.default_rng(0), ["new_file_name,PixelSpacing"]
    for patient in range(N_PATIENTS):
        label = _label()
        image = np.choose(label, [60, 90, 30, 250]) + random.normal(0, 5, label.shape)
        name = f"{patient}_series_slice7.png"
        cv2.imwrite(str(root / "images" / name), image.clip(0, 255).astype(np.uint8))
        cv2.imwrite(str(root / "labels" / name), label)
        lines.append(f'{patient}_series,"[1.0, 1.0]"')
    (root / "series.csv").write_text("\n".join(lines) + "\n")
    return root


def test_only_what_lies_in_front_of_the_canal_is_a_body() -> None:
    label = _label()
    bodies = bodies_in_front_of_canal(label)
    assert bodies is not None
    assert bodies.sum() == 3 * 28 * 40
    label[90:][label[90:] == CANAL] = 0  # canal out of the slice: bodies cannot be told from posterior elements
    assert bodies_in_front_of_canal(label) is None


def test_every_patient_is_in_one_part_for_ever(folder: Path) -> None:
    parts = {str(patient): part_of_patient(str(patient)) for patient in range(N_PATIENTS)}
    assert set(parts.values()) == {"training", "validation", "test"}
    for part in ("training", "validation", "test"):
        found = read_annotated(folder, part, size=256, spacing_mm=1.0)
        assert set(found.patients) == {patient for patient, its in parts.items() if its == part}
    assert [part_of_patient(patient) for patient in ("107", "110", "142")] == ["training", "validation", "test"]


def test_the_grid_keeps_sizes_in_millimetres(folder: Path) -> None:
    fine = read_annotated(folder, "test", size=512, spacing_mm=0.5)
    assert abs(int((fine.regions[0] == BODY).sum()) * 0.25 - 3 * 28 * 40) < 100
    cut = read_annotated(folder, "test", size=64, spacing_mm=1.0)
    assert cut.images.shape[1:] == (64, 64)


def test_nothing_is_claimed_where_nobody_drew(folder: Path) -> None:
    slices = read_annotated(folder, "test", size=256, spacing_mm=1.0)
    masks, known = slices.targets(("vertebral_body", "sacral_body", "disc"))
    bodies, sacrum, discs = masks[0]
    assert np.array_equal(bodies, slices.regions[0] == BODY)
    assert np.array_equal(discs, slices.regions[0] == DISC)
    assert not sacrum.any()
    top, bottom = np.flatnonzero(bodies.any(axis=1))[0], np.flatnonzero(discs.any(axis=1))[-1]
    assert not known[0, :, :top][[0, 2]].any()
    assert known[0, 0, bottom + 1 :].all()
    assert not known[0, 2, bottom + 1 :].any()
    assert np.array_equal(known[0, 1], slices.regions[0] > 0)
    with pytest.raises(ConfigurationError, match="psoas"):
        slices.targets(("psoas",))


def test_unknown_pixels_do_not_change_the_loss() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 8, 8, generator=random)
    target = (torch.rand(2, 1, 8, 8, generator=random) > 0.5).float()
    known = torch.ones_like(target)
    known[..., :4] = 0
    changed = torch.where(known > 0, target, 1 - target)
    first, second = (dice_and_cross_entropy(logits, one, known=known) for one in (target, changed))
    assert float(first) == float(second)
    everything = dice_and_cross_entropy(logits, target, known=torch.ones_like(target))
    assert float(everything) == pytest.approx(float(dice_and_cross_entropy(logits, target)))


def test_recolouring_changes_labelled_regions_alone() -> None:
    regions = torch.from_numpy(_label())[None, None].repeat(12, 1, 1, 1)
    images = torch.full(regions.shape, 0.5)
    generator = torch.Generator().manual_seed(3)
    found = recolour(images, regions, generator)
    far = torch.nn.functional.max_pool2d((regions > 0).float(), 3, 1, 1) == 0
    assert torch.equal(found[far], images[far])
    disc, canal = regions == DISC, regions == CANAL
    assert float((found[disc] - 0.5).abs().mean()) > 0.05
    assert float(found[canal].mean()) < float(found[disc].mean())


def test_a_training_with_real_slices_is_repeatable_and_uses_them(folder: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    make_pool(pool, PoolPlan("sagittal", 2, first_seed=1), processes=1, report=lambda _: None)
    config = dataclasses.replace(SMALL, annotated_share=0.5, annotated_credit="a test")
    parts = [read_annotated(folder, part, size=256, spacing_mm=1.0) for part in ("training", "validation")]
    real = Annotated(*parts)

    def weights(name: str, **options: object) -> torch.Tensor:
        trained = train(config, pool, tmp_path / name, device="cpu", report=lambda _: None, **options)
        assert bool(trained.annotated_dice) == bool(options)
        return torch.cat([value.flatten().float() for value in trained.weights.values()])

    first = weights("a", annotated=real)
    assert torch.equal(first, weights("b", annotated=real))
    assert not torch.equal(first, weights("c"))


def test_a_configuration_that_wants_slices_says_so(tmp_path: Path) -> None:
    config = tmp_path / "own.toml"
    config.write_text(
        'name = "own"\nplane = "sagittal"\nclasses = ["disc"]\nspacing_mm = 1.0\n'
        "iterations = 1\nannotated_share = 0.5\n"
    )
    result = CliRunner().invoke(main, ["train", str(config), "--folder", str(tmp_path)])
    assert result.exit_code == 2
    assert "--slices" in result.output
