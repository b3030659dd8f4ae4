"""Real slices as training data: what is known of them, who may be seen, and their new contrast."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from test_training import SMALL

from cohort.errors import ConfigurationError
from cohort.terms import MUSCLES
from models.losses import dice_and_cross_entropy
from models.training.annotated import (
    BODY,
    CANAL,
    DISC,
    UNSURE,
    VERTEBRA,
    Annotated,
    bodies_in_front_of_canal,
    divide_vertebrae,
    part_of_patient,
    read_annotated,
)
from models.training.augment import augment, recolour
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


def test_where_the_canal_is_not_seen_discs_show_the_posterior_wall() -> None:
    label = _label()
    divided = divide_vertebrae(label, (1.0, 1.0))
    assert divided is not None
    bodies = bodies_in_front_of_canal(label)
    assert np.array_equal(divided == BODY, bodies)
    assert not (divided == UNSURE).any()
    label[label == CANAL] = 0
    from_discs = divide_vertebrae(label, (1.0, 1.0))
    assert from_discs is not None
    assert not ((from_discs == VERTEBRA) & bodies).any()
    assert not ((from_discs == BODY) & ~bodies).any()
    assert (from_discs[80:108, 50:83] == BODY).all()  # between two discs
    assert (from_discs[80:108, 85:90] == UNSURE).all()  # too near the line between them
    assert (from_discs[40:68, 50:90] == UNSURE).all()  # above the topmost disc
    label[label == DISC] = 0
    assert divide_vertebrae(label, (1.0, 1.0)) is None


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
    assert known[0, 2, bottom + 1 :].all()  # the lowest disc is always labelled: what is dark below it is none
    assert np.array_equal(known[0, 1], slices.regions[0] > 0)
    with pytest.raises(ConfigurationError, match="liver"):
        slices.targets(("liver",))


def test_muscles_are_read_from_axial_slices_and_those_not_drawn_are_unknown(tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    patient = next(str(n) for n in range(100) if part_of_patient(str(n)) == "training")
    label = np.zeros((100, 120), np.uint8)
    label[60:80, 40:80], label[40:58, 20:40] = 2, 3
    for k, part in enumerate((label, np.zeros_like(label))):
        cv2.imwrite(str(tmp_path / "images" / f"{patient}_t1_slice{k}.png"), part * 40 + 30)
        cv2.imwrite(str(tmp_path / "labels" / f"{patient}_t1_slice{k}.png"), part)
    (tmp_path / "series.csv").write_text(f'new_file_name,PixelSpacing\n{patient}_t1,"[2.0, 1.0]"\n')
    slices = read_annotated(tmp_path, "training", size=256, spacing_mm=1.0, plane="axial")
    assert len(slices.images) == 1  # the one without a muscle is left out
    masks, known = slices.targets(MUSCLES)
    area = masks[0].sum(axis=(1, 2))
    assert area.tolist() == [0, 20 * 40 * 2, 18 * 20 * 2, 0]
    assert known[0].mean(axis=(1, 2)).tolist() == [0, 1, 1, 0]
    image = torch.from_numpy(slices.images.astype(np.float32))[:, None]
    regions = torch.from_numpy(slices.regions)[:, None]
    assert torch.equal(recolour(image, regions, np.random.default_rng(0)), image)  # no contrast is invented
    cv2.imwrite(str(tmp_path / "labels" / f"{patient}_t1_slice0.png"), label + 2)
    with pytest.raises(ConfigurationError, match="sagittal labels are 0 to 3"):
        read_annotated(tmp_path, "training", size=256, spacing_mm=1.0)


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
    found = recolour(images, regions, np.random.default_rng(3))
    far = torch.nn.functional.max_pool2d((regions > 0).float(), 3, 1, 1) == 0
    assert torch.equal(found[far], images[far])
    disc, canal = regions == DISC, regions == CANAL
    assert float((found[disc] - 0.5).abs().mean()) > 0.05
    assert float(found[canal].mean()) < float(found[disc].mean())


def test_a_training_with_real_slices_is_repeatable_and_uses_them(folder: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    make_pool(pool, PoolPlan("sagittal", 2), processes=1, report=lambda _: None)
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
        "iterations = 1\nannotated_share = 0.5\nannotated_credit = 'a test'\n"
    )
    result = CliRunner().invoke(main, ["train", str(config), "--folder", str(tmp_path)])
    assert result.exit_code == 2
    assert "--slices" in result.output


TRAINED = next(str(n) for n in range(100) if part_of_patient(str(n)) == "training")


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """A folder of one training slice without fault."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    _write(tmp_path, "images", (_label() * 60).astype(np.uint8))
    _write(tmp_path, "labels", _label())
    (tmp_path / "series.csv").write_text(f'new_file_name,PixelSpacing\n{TRAINED}_t2,"[1.0, 1.0]"\n')
    return tmp_path


def _write(folder: Path, part: str, picture: np.ndarray) -> None:
    cv2.imwrite(str(folder / part / f"{TRAINED}_t2_slice0.png"), picture)


def _row(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "series.csv").write_text(text)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda folder: _write(folder, "images", _label().astype(np.uint16) * 300), "image .*has 16 bit, 1 channels"),
        (lambda folder: _write(folder, "labels", _label().astype(np.uint16) + 256), "label .*has 16 bit, 1 channels"),
        (lambda folder: _write(folder, "images", np.dstack([_label()] * 3)), "image .*has 8 bit, 3 channels"),
        (lambda folder: _write(folder, "labels", _label()[::2]), r"label .*has \(100, 160\) pixels, its image"),
        (lambda folder: (folder / "labels" / f"{TRAINED}_t2_slice0.png").unlink(), "label .*missing or cannot be read"),
        (
            lambda folder: (folder / "images" / f"{TRAINED}_t2_slice0.png").write_bytes(b"x"),
            "image .*missing or cannot",
        ),
        (lambda folder: (folder / "images").rename(folder / "pictures"), "has no folder images"),
        (_row("new_file_name\n1_t2\n"), "has no column PixelSpacing"),
        (_row(""), "has no column PixelSpacing and no column new_file_name"),
        (_row('new_file_name,PixelSpacing\nother,"[1, 1]"\n'), f"has no row {TRAINED}_t2"),
        (_row(f"new_file_name,PixelSpacing\n{TRAINED}_t2,1.0\n"), f"row {TRAINED}_t2: PixelSpacing '1.0' is not"),
        (_row(f"new_file_name,PixelSpacing\n{TRAINED}_t2\n"), f"row {TRAINED}_t2: PixelSpacing '' is not"),
        (_row(f'new_file_name,PixelSpacing\n{TRAINED}_t2,"[0, 0]"\n'), "both above 0"),
        (_row(f'new_file_name,PixelSpacing\n{TRAINED}_t2,"[nan, 1]"\n'), "both above 0"),
        (lambda folder: (folder / "series.csv").write_bytes(b"\xff\xfe\x00"), "is not a CSV file in UTF-8"),
    ],
)
def test_faults_of_a_folder_are_refused_in_words(fault: Callable[[Path], object], words: str, one: Path) -> None:
    fault(one)
    with pytest.raises(ConfigurationError, match=words) as error:
        read_annotated(one, "training", size=256, spacing_mm=1.0)
    assert str(one) not in str(error.value)


def test_what_computers_leave_in_folders_does_no_harm(one: Path) -> None:
    (one / "images" / ".DS_Store").write_bytes(b"x")
    (one / "images" / "Thumbs.db").write_bytes(b"x")
    text = (one / "series.csv").read_text()
    (one / "series.csv").write_text(text, encoding="utf-8-sig")
    assert read_annotated(one, "training", size=256, spacing_mm=1.0).patients == (TRAINED,)


def test_augmentation_draws_geometry_from_the_cpu_and_noise_alone_from_the_device() -> None:
    masks = (torch.from_numpy(_label())[None, None].repeat(4, 1, 1, 1) > 0).float()
    images = masks * 0.8 + 0.1

    def augmented(seed: int, noise: int) -> tuple[torch.Tensor, torch.Tensor]:
        return augment(images, masks, 96, np.random.default_rng(seed), torch.Generator().manual_seed(noise))

    for seed in range(12):
        (first, its_masks), (second, other_masks) = augmented(seed, 0), augmented(seed, 1)
        assert first.shape == its_masks.shape == (4, 1, 96, 96)
        assert set(its_masks.unique().tolist()) <= {0.0, 1.0}
        assert torch.equal(its_masks, other_masks)
        assert 0 < float((first - second).abs().mean()) < 0.1
        assert all(torch.equal(*pair) for pair in zip((first, its_masks), augmented(seed, 0), strict=True))
