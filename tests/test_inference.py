"""Inference: the same masks in every arithmetic and whatever the batch; series that do not fit a network."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from pydicom import dcmread

from cohort.agreement.overlap import dice
from cohort.anatomy.orientation import cropped
from cohort.errors import ConfigurationError, RefusedError
from cohort.geometry import StackGeometry
from cohort.stacks import ImageStack, Plane
from cohort.terms import MUSCLE_LABELS, MUSCLES, SACRAL_BODY, SIDES, VERTEBRAL_BODY
from models.forward import Arithmetic, logits, usable_arithmetic
from models.inference import (
    GRID_PX,
    Network,
    Piece,
    Segmentation,
    launch,
    network_size,
    normalised_slices,
    segment_stack,
)
from models.phantom.exam import ExamPlan, make_exam, stack_image, t1_contrast
from models.phantom.sampling import cut
from models.registry import NetworkContract, load_network, read_contract
from models.training.annotated import DISC, bodies_in_front_of_canal, read_png, read_spacings
from models.vnet import VNet, VNetConfig
from pipelines.validation.real_scans import MUSCLE_IDS

FASTER = [one for one in usable_arithmetic("cpu") if one != "fp32"]
"""What this machine can use besides single precision; on one without bfloat16 and OpenVINO there is nothing to
compare."""


def _network(name: str) -> tuple[VNet, NetworkContract]:
    contract = read_contract(name)
    return load_network(name, contract.weights_sha256, "cpu"), contract


def _stack(plane: Plane, image: npt.NDArray[np.uint16], spacing_mm: tuple[float, float] = (1.15, 1.15)) -> ImageStack:
    """Slices in standing order."""
    n = len(image)
    positions = np.zeros((n, 3))
    positions[:, 0 if plane == "sagittal" else 2] = 4.0 * np.arange(n)
    rows, columns = {
        "sagittal": (np.array([0.0, 0, -1]), np.array([0.0, 1, 0])),
        "axial": (np.array([0.0, 1, 0]), np.array([1.0, 0, 0])),
    }[plane]
    geometry = StackGeometry(positions, columns, rows, spacing_mm, image.shape[1:], 4.0)
    return ImageStack(plane, 0, image, geometry, None)


def _segmented(name: str, stack: ImageStack, arithmetic: Arithmetic) -> dict[str, npt.NDArray[np.bool_]]:
    network, contract = _network(name)
    found = segment_stack(
        network, contract, stack, batch_slices=4, device="cpu", arithmetic=arithmetic, with_masks=True
    )
    assert found.masks is not None
    return dict(zip(contract.classes, found.masks, strict=True))


@pytest.fixture(scope="module")
def phantom() -> dict[Plane, tuple[ImageStack, dict[str, npt.NDArray[np.bool_]]]]:
    """Three sagittal slices and the middle slice of each disc's axial stack of one subject, and their true masks."""
    exam = make_exam(ExamPlan(503, "F", 40, 1.68, 64.0, "per_disc", 3))
    axial = tuple(cut(exam.subject, grid, 2) for grid in exam.axial)
    image, muscles = stack_image(exam, axial, t1_contrast(exam)), np.stack([one.muscle for one in axial])
    sagittal, _ = make_exam(dataclasses.replace(exam.plan, axial="none")).labelled()
    bodies = sagittal.labels["vertebral_body"]
    truth = {muscle: np.isin(muscles, [MUSCLE_LABELS[muscle, side] for side in SIDES]) for muscle in MUSCLES}
    classes = {"vertebral_body": bodies == VERTEBRAL_BODY, "sacral_body": bodies == SACRAL_BODY}
    return {
        "sagittal": (sagittal.stack, {**classes, "disc": sagittal.labels["disc"] > 0}),
        "axial": (_stack("axial", image, (0.9, 0.9)), truth),
    }


@pytest.mark.parametrize("arithmetic", FASTER)
@pytest.mark.parametrize("name", ["vertebral_body", "disc", "muscle"])
def test_every_arithmetic_finds_what_single_precision_finds(
    phantom: dict[Plane, tuple[ImageStack, dict[str, npt.NDArray[np.bool_]]]], name: str, arithmetic: Arithmetic
) -> None:
    stack, truth = phantom[read_contract(name).plane]  # type: ignore[index]
    exact, found = (_segmented(name, stack, one) for one in ("fp32", arithmetic))
    for structure, mask in exact.items():
        assert dice(found[structure], truth[structure]) == pytest.approx(dice(mask, truth[structure]), abs=0.005)
        assert dice(found[structure], mask) > 0.98


Real = tuple[str, ImageStack, dict[str, npt.NDArray[np.bool_]]]
"""Network, stack of one slice, and class -> human mask."""


def _without_masks(folder: Path) -> list[Real]:
    """T1 slices, stored head down."""
    spacings = read_spacings(folder)
    paths = sorted((folder / "images").glob("*.png"))[::12]
    stacks = [_stack("sagittal", read_png(path)[None, ::-1].astype(np.uint16), spacings[path.stem]) for path in paths]
    return [(name, stack, {}) for stack in stacks for name in ("vertebral_body", "disc")]


def _sagittal_with_masks(folder: Path) -> Iterator[Real]:
    """T2 slices near the midline of test patients."""
    spacings = read_spacings(folder)
    for name in ("5_t2_SPACE_slice59.png", "57_t2_SPACE_slice61.png", "142_t2_SPACE_slice61.png"):
        label = read_png(folder / "labels" / name)
        stack = _stack("sagittal", read_png(folder / "images" / name)[None], spacings[name.rsplit("_slice", 1)[0]])
        bodies = bodies_in_front_of_canal(label)
        assert bodies is not None
        yield "vertebral_body", stack, {"vertebral_body": bodies}
        yield "disc", stack, {"disc": label == DISC}


def _axial_with_masks(folder: Path) -> Iterator[Real]:
    """In-phase slices through the middle of the scan."""
    for k in (9, 13, 17):
        header = dcmread(folder / "dicom" / "axial_inphase" / f"IM{k + 1:04d}.dcm")
        assert header.InstanceNumber == k + 1
        human = read_png(folder / "masks" / f"axial_es_mf_{k:02d}.png")
        rows, columns = map(float, header.PixelSpacing)
        stack = _stack("axial", header.pixel_array[None].astype(np.uint16), (rows, columns))
        yield "muscle", stack, {muscle: np.isin(human, ids) for muscle, ids in MUSCLE_IDS.items()}


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", FASTER)
def test_every_arithmetic_finds_on_real_slices_what_single_precision_finds(
    real_data: Path, arithmetic: Arithmetic
) -> None:
    compared = []
    for name, stack, _ in _without_masks(real_data / "spider_t1_midsagittal"):
        exact, found = (_segmented(name, stack, one) for one in ("fp32", arithmetic))
        compared += [dice(found[structure], mask) for structure, mask in exact.items() if mask.sum() > 500]
    assert len(compared) >= 16
    assert min(compared) > 0.97


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", FASTER)
def test_every_arithmetic_agrees_with_people_as_single_precision_does(real_data: Path, arithmetic: Arithmetic) -> None:
    slices = [*_sagittal_with_masks(real_data / "spider_t2space"), *_axial_with_masks(real_data / "real_exam")]
    differences = {}
    for k, (name, stack, human) in enumerate(slices):
        exact, found = (_segmented(name, stack, one) for one in ("fp32", arithmetic))
        for structure, mask in human.items():
            assert mask.sum() > 100
            differences[k, structure] = abs(dice(found[structure][0], mask) - dice(exact[structure][0], mask))
    assert len(differences) == 12
    assert max(differences.values()) < 0.005, differences


@pytest.mark.parametrize("arithmetic", usable_arithmetic("cpu"))
def test_labels_do_not_depend_on_the_batch(
    phantom: dict[Plane, tuple[ImageStack, dict[str, npt.NDArray[np.bool_]]]], arithmetic: Arithmetic
) -> None:
    stack, _ = phantom["axial"]
    network, contract = _network("muscle")

    def run(part: ImageStack, batch_slices: int) -> Segmentation:
        return segment_stack(
            network, contract, part, batch_slices=batch_slices, device="cpu", arithmetic=arithmetic, with_masks=True
        )

    whole = run(stack, 8)
    for batch_slices in (1, 3):
        again = run(stack, batch_slices)
        assert again.masks is not None
        assert np.array_equal(again.masks, whole.masks)
        assert np.array_equal(again.winner, whole.winner)
        assert again.entropy == whole.entropy
    alone = _stack("axial", stack.image[3:4], (0.9, 0.9))
    assert np.array_equal(run(alone, 8).winner[0], whole.winner[3])


def test_the_fastest_arithmetic_is_the_default(
    phantom: dict[Plane, tuple[ImageStack, dict[str, npt.NDArray[np.bool_]]]],
) -> None:
    stack = _stack("sagittal", phantom["sagittal"][0].image[:1])
    network, contract = _network("disc")
    default = segment_stack(network, contract, stack, batch_slices=1, device="cpu")
    named = segment_stack(
        network, contract, stack, batch_slices=1, device="cpu", arithmetic=usable_arithmetic("cpu")[0]
    )
    assert np.array_equal(default.winner, named.winner)
    assert default.masks is None
    assert default.entropy == named.entropy


@pytest.mark.parametrize("config", [VNetConfig(2, 3, 4), VNetConfig(1, 2, 2, activation="relu"), VNetConfig(4, 1, 3)])
def test_openvino_is_the_same_network(config: VNetConfig) -> None:
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    network = VNet(config)
    with torch.no_grad():
        network(torch.rand(4, 1, 32, 32))  # running means that are not zero
    network.eval()
    for size in ((2, 1, 32, 48), (1, 1, 64, 16)):
        batch = torch.rand(size)
        exact = logits(network, batch, "fp32")
        assert torch.allclose(logits(network, batch, "openvino"), exact, atol=0.05 * float(exact.abs().max()))


def test_openvino_sends_no_usage_statistics(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    (tmp_path / "openvino_telemetry").mkdir()
    (tmp_path / "openvino_telemetry" / "__init__.py").write_text("raise SystemExit('statistics are on')")
    root = Path(__file__).parents[1]
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(root)!r}]; import models.openvino_vnet"
    subprocess.run([sys.executable, "-c", code], check=True)
    plain = code.replace("models.openvino_vnet", "openvino")
    with pytest.raises(subprocess.CalledProcessError):  # without our care it is imported
        subprocess.run([sys.executable, "-c", plain], check=True, capture_output=True)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux ties threads to cores here")
def test_openvino_leaves_the_choice_of_cores_to_the_system() -> None:
    pytest.importorskip("openvino")
    network, batch = VNet(VNetConfig(1, 3, 8)).eval(), torch.rand(4, 1, 128, 128)
    logits(network, batch, "openvino")
    thread, allowed, done = threading.get_native_id(), os.sched_getaffinity(0), threading.Event()
    seen = []

    def watch() -> None:
        while not done.is_set():
            seen.append(os.sched_getaffinity(thread))
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(5):
        logits(network, batch, "openvino")
    done.set()
    watcher.join()
    assert seen
    assert all(one == allowed for one in seen)


def test_openvino_sees_new_weights() -> None:
    pytest.importorskip("openvino")
    network, batch = VNet(VNetConfig(1, 1, 2)).eval(), torch.rand(1, 1, 16, 16)
    before = logits(network, batch, "openvino")
    with torch.no_grad():
        network.head.bias.add_(3.0)
    assert torch.allclose(logits(network, batch, "openvino"), before + 3.0, atol=0.1)


class OnGpuGrid(Network):
    """On a CPU, padded as on a GPU."""

    @property
    def step_px(self) -> int:
        return GRID_PX


@pytest.mark.parametrize("name", ["vertebral_body", "disc"])
def test_padding_to_the_grid_of_a_gpu_moves_next_to_no_label(
    phantom: dict[Plane, tuple[ImageStack, dict[str, npt.NDArray[np.bool_]]]], name: str
) -> None:
    """The one difference between the devices, besides rounding, that can be seen without a GPU."""
    whole, box = phantom["sagittal"][0], (slice(0, 250), slice(20, 225))
    stack = dataclasses.replace(whole, image=whole.image[:, *box], geometry=cropped(whole.geometry, box))
    module, contract = _network(name)
    size = network_size(stack, contract)
    ((_, image),) = normalised_slices(stack, 3, pinned=False)
    shapes, winners = [], []
    for kind in (Network, OnGpuGrid):
        network = kind(module, contract, "cpu", "fp32")
        ((_, found),) = launch(network, [Piece((0,), 0, image, size)], batch_slices=3).wait()
        shapes.append(network.input_shape(size))
        winners.append(found.winner.numpy())
    assert shapes == [(208, 160), (224, 160)]
    assert dice(winners[0] > 0, winners[1] > 0) > 0.995


def test_a_batch_has_one_shape() -> None:
    network = Network(*_network("muscle"), "cpu", "fp32")
    pieces = [Piece((0,), 0, torch.zeros(1, side, side), (side, side)) for side in (32, 64)]
    with pytest.raises(ValueError, match=r"a batch has one shape, not \[\(32, 32\), \(64, 64\)\]"):
        launch(network, pieces, batch_slices=2)


@pytest.mark.gpu
def test_a_gpu_finds_what_single_precision_finds(
    phantom: dict[Plane, tuple[ImageStack, dict[str, npt.NDArray[np.bool_]]]],
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    stack, truth = phantom["sagittal"]
    contract = read_contract("vertebral_body")
    network = load_network("vertebral_body", contract.weights_sha256, "cuda")
    exact = _segmented("vertebral_body", stack, "fp32")
    for arithmetic in usable_arithmetic("cuda"):
        found = segment_stack(
            network, contract, stack, batch_slices=3, device="cuda", arithmetic=arithmetic, with_masks=True
        )
        assert found.masks is not None
        for structure, mask in zip(contract.classes, found.masks, strict=True):
            assert dice(mask, truth[structure]) == pytest.approx(dice(exact[structure], truth[structure]), abs=0.005)


def test_a_network_of_the_other_plane_is_refused() -> None:
    network, contract = _network("muscle")
    stack = _stack("sagittal", np.zeros((1, 64, 64), np.uint16))
    with pytest.raises(ConfigurationError, match="is for axial slices, not sagittal ones"):
        segment_stack(network, contract, stack, batch_slices=1, device="cpu")


@pytest.mark.parametrize(
    ("spacing_mm", "side", "reason"),
    [(2.5, 100, "network_misfit"), (1.2, 460, "network_misfit"), (1.2, 700, "inconsistent_series")],
)
def test_a_series_that_does_not_fit_is_refused(spacing_mm: float, side: int, reason: str) -> None:
    network, contract = _network("muscle")  # 1 mm, 256 pixels: at twice that, 512 mm
    stack = _stack("axial", np.zeros((1, side, side), np.uint16), (spacing_mm, spacing_mm))
    with pytest.raises(RefusedError, match=reason):
        segment_stack(network, contract, stack, batch_slices=1, device="cpu")
