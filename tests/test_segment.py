"""The stage segment: labels that do not depend on the batch, one exam's error, memory, and a GPU that is lost."""

from __future__ import annotations

import dataclasses
import gc
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_networks import (
    LosesItsGpu,
    Memory,
    RaisesOnPoison,
    Slow,
    poisoned_exam,
    random_exam,
    random_stack,
    segment_and_lose_gpu,
    small_networks,
    work_item,
)

from cluster.local import local_cluster
from cohort.agreement.overlap import dice
from cohort.anatomy.sides import split_sides
from cohort.store.exam import read_exam
from cohort.store.layout import label_store_path
from models.forward import is_device_lost
from models.inference import Network, Piece, launch, segment_stack
from models.phantom.exam import ExamPlan, make_exam
from models.registry import load_network, read_contract
from pipelines.config import SegmentConfig
from pipelines.outcome import Outcome, WorkItem
from pipelines.segment import (
    BATCHES_READ_AHEAD,
    BATCHES_WAITING,
    SegmentTask,
    check_networks,
    segment_batch,
    segment_exams,
)
from pipelines.window import DaskExecutor, Stage, run_window

Labels = dict[str, np.ndarray]
EXAMS = [f"{letter * 4}" for letter in "abcdefg"]


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[WorkItem]:
    """Exams of different shapes, orientations and numbers of stacks."""
    store = tmp_path_factory.mktemp("exams")
    return [work_item(store, exam_id, random_exam(k)) for k, exam_id in enumerate(EXAMS)]


@pytest.fixture(scope="module")
def networks() -> dict[str, Network]:
    return small_networks()


@pytest.fixture(scope="module")
def alone(items: list[WorkItem], networks: dict[str, Network]) -> dict[str, Labels]:
    """Exam -> label arrays, stack by stack and network by network."""
    return {item.exam_id: _labels_alone(item, networks) for item in items}


def _labels_alone(item: WorkItem, networks: dict[str, Network]) -> Labels:
    found = {}
    for stack in read_exam(item.task.store / item.task.exam_path).stacks:
        for label, network in networks.items():
            if network.contract.plane == stack.plane:
                one = segment_stack(
                    network.module, network.contract, stack, batch_slices=3, device="cpu", arithmetic="fp32"
                )
                values = split_sides(one.winner, stack.geometry) if label == "muscle" else one.winner
                found[f"{stack.plane}/{stack.index}/{label}"] = values
    return found


def _stored(outcome: Outcome, store: Path) -> Labels:
    assert outcome.status == "ok", outcome
    root = zarr.open_group(store / str(outcome.path), mode="r")
    return {
        f"{plane}/{k}/{name}": np.asarray(array[...])
        for plane, stacks in root.groups()
        for k, stack in stacks.groups()
        for name, array in stack.arrays()
    }


def _segmented(networks: dict[str, Network], items: Sequence[WorkItem], *, batch_slices: int = 4) -> dict[str, Outcome]:
    """Outcomes of a batch whose label stores are not there yet."""
    for item in items:
        shutil.rmtree(label_store_path(item.task.store, item.exam_id, item.fingerprint), ignore_errors=True)
    again = [dataclasses.replace(i, task=dataclasses.replace(i.task, batch_slices=batch_slices)) for i in items]
    outcomes = segment_exams(networks, again)
    assert [outcome.exam_id for outcome in outcomes] == [item.exam_id for item in items]
    return {outcome.exam_id: outcome for outcome in outcomes}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(len(EXAMS))), n=st.integers(1, len(EXAMS)), batch_slices=st.integers(1, 12))
def test_labels_do_not_depend_on_batch_order_or_other_exams(
    items: list[WorkItem],
    networks: dict[str, Network],
    alone: dict[str, Labels],
    order: list[int],
    n: int,
    batch_slices: int,
) -> None:
    chosen = [items[k] for k in order[:n]]
    for exam_id, outcome in _segmented(networks, chosen, batch_slices=batch_slices).items():
        found = _stored(outcome, items[0].task.store)
        assert found.keys() == alone[exam_id].keys()
        for name, label in found.items():
            assert np.array_equal(label, alone[exam_id][name]), (exam_id, name)


def test_small_networks_find_something(alone: dict[str, Labels]) -> None:
    """Else the comparisons above would compare nothing."""
    share = [(label > 0).mean() for labels in alone.values() for label in labels.values()]
    assert 0.05 < np.mean(share) < 0.95
    assert all(set(np.unique(labels["sagittal/0/vertebral_body"])) == {0, 1, 2} for labels in alone.values())


def test_seconds_of_exams_are_their_share(items: list[WorkItem], networks: dict[str, Network]) -> None:
    outcomes = _segmented(networks, items, batch_slices=50)
    assert all(outcome.seconds > 0 for outcome in outcomes.values())


def test_one_exams_error_is_its_own(tmp_path: Path, alone: dict[str, Labels], items: list[WorkItem]) -> None:
    store = tmp_path
    good = [work_item(store, exam_id, random_exam(k)) for k, exam_id in enumerate(EXAMS[:3])]
    unreadable = work_item(store, "unreadable", random_exam(8))
    (store / "stores/unreadable/sagittal/0/image/zarr.json").unlink()
    vast = work_item(store, "vast", [random_stack("sagittal", 0, (2, 300, 300), 2.9, 1)])
    coarse = work_item(store, "coarse", [*random_exam(1)[:1], random_stack("axial", 0, (2, 40, 40), 4.0, 1)])
    poisoned = work_item(store, "poisoned", poisoned_exam())
    unwritable = work_item(store, "unwritable", random_exam(9))
    target = label_store_path(store, "unwritable", "0" * 64).parent
    target.parent.mkdir(parents=True)
    target.touch()
    batch = [good[0], unreadable, vast, good[1], coarse, poisoned, unwritable, good[2]]

    found = _segmented(small_networks(RaisesOnPoison), batch, batch_slices=16)

    assert {exam_id: (one.status, one.reason) for exam_id, one in found.items() if one.status != "ok"} == {
        "unreadable": ("failed", "internal_error"),
        "vast": ("refused", "inconsistent_series"),
        "coarse": ("refused", "network_misfit"),
        "poisoned": ("failed", "internal_error"),
        "unwritable": ("failed", "internal_error"),
    }
    assert found["unreadable"].error_type == "StoreError"
    assert found["poisoned"].error_type == "RuntimeError"
    for item in good:
        for name, label in _stored(found[item.exam_id], store).items():
            assert np.array_equal(label, alone[item.exam_id][name])


def test_errors_are_logged_without_their_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _segmented(small_networks(RaisesOnPoison), [work_item(tmp_path, "poisoned", poisoned_exam())])
    assert "segment of poisoned failed: RuntimeError at small_networks" in caplog.text
    assert "Sizes" not in caplog.text


def test_an_exam_without_stacks_has_an_empty_label_store(tmp_path: Path, networks: dict[str, Network]) -> None:
    assert _stored(_segmented(networks, [work_item(tmp_path, "empty", [])])["empty"], tmp_path) == {}


def test_networks_that_cannot_be_opened_fail_every_exam(items: list[WorkItem]) -> None:
    task = dataclasses.replace(items[0].task, networks={"disc": ("disc", "0" * 64)})
    outcomes = segment_batch([dataclasses.replace(item, task=task) for item in items])
    assert [(one.exam_id, one.error_type) for one in outcomes] == [(exam_id, "ConfigurationError") for exam_id in EXAMS]


# -- memory ------------------------------------------------------------------------------------------------------------


def _with_memory(limit: int) -> dict[str, Network]:
    networks = small_networks(Memory)
    for network in networks.values():
        network.module.limit = limit
    return networks


def test_out_of_memory_halves_the_batch_and_is_remembered(
    tmp_path: Path, networks: dict[str, Network], caplog: pytest.LogCaptureFixture
) -> None:
    exam = [random_stack("sagittal", 0, (20, 60, 60), 1.5, 1), random_stack("axial", 0, (3, 48, 48), 1.2, 2)]
    item = work_item(tmp_path, "large", exam)
    expected = _labels_alone(item, networks)
    scarce = _with_memory(5)
    disc: Memory = scarce["disc"].module

    found = _stored(_segmented(scarce, [item], batch_slices=16)["large"], tmp_path)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert disc.batches == [16, 8, 4, 4, 4, 4, 4]
    assert [record.message for record in caplog.records if "disc" in record.message] == [
        "disc: 16 slices of 60x60 fill the memory of cpu; 8 from now on",
        "disc: 8 slices of 60x60 fill the memory of cpu; 4 from now on",
    ]
    disc.batches.clear()
    _segmented(scarce, [item], batch_slices=16)
    assert disc.batches == [4, 4, 4, 4, 4]
    assert scarce["muscle"].module.batches == [3, 3]

    other = work_item(tmp_path, "other", [random_stack("sagittal", 0, (16, 75, 52), 1.5, 1)])
    disc.batches.clear()
    _segmented(scarce, [other], batch_slices=16)
    assert disc.batches == [16, 8, 4, 4, 4, 4]  # another shape


def test_memory_for_not_one_slice_is_the_exams_error(tmp_path: Path) -> None:
    networks = _with_memory(1000)
    networks["disc"].module.limit = 0
    axial = work_item(tmp_path, "axial", [random_stack("axial", 0, (3, 48, 48), 1.2, 2)])
    found = _segmented(networks, [work_item(tmp_path, "sagittal", random_exam(2)[:1]), axial])
    assert (found["sagittal"].status, found["sagittal"].error_type) == ("failed", "OutOfMemoryError")
    assert found["axial"].status == "ok"


def test_slices_in_memory_do_not_grow_with_the_batch(tmp_path: Path) -> None:
    """The networks are slow here, so that everything before them would pile up."""
    alive: list[int] = []
    slice_bytes = 4 * 48 * 96

    class Watching(Slow):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            images = [one.image for one in gc.get_objects() if type(one) is Piece]
            held = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in images}
            alive.append(sum(held.values()) // slice_bytes)
            return super().forward(x)

    sides = [(48, 96), (96, 48), (64, 72), (72, 64), (144, 32)]  # each leaves half a batch that waits for its like
    shapes = [(10, *sides[k % 5]) for k in range(8)]
    exams = [
        work_item(tmp_path, letter * 4, [random_stack("sagittal", 0, shape, 1.5, 1)])
        for letter, shape in zip("abcdefgh", shapes, strict=True)
    ]
    networks = {name: one for name, one in small_networks(Watching).items() if name == "disc"}
    outcomes = _segmented(networks, exams, batch_slices=4)
    assert all(outcome.status == "ok" for outcome in outcomes.values())
    assert 4 < max(alive) <= 4 * (BATCHES_READ_AHEAD + BATCHES_WAITING + 3) < 8 * 10 / 2


# -- configuration -----------------------------------------------------------------------------------------------------


def test_a_task_has_several_exams() -> None:
    assert SegmentConfig().exams_per_task("cpu") > 1
    assert SegmentConfig().exams_per_task("cuda") > SegmentConfig().exams_per_task("cpu")
    assert SegmentConfig(batch_exams=3).exams_per_task("cuda") == 3


# -- the GPU -----------------------------------------------------------------------------------------------------------


def test_which_errors_cost_the_gpu() -> None:
    assert is_device_lost(RuntimeError("CUDA error: device-side assert triggered"))
    assert is_device_lost(RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"))
    assert not is_device_lost(torch.OutOfMemoryError("CUDA out of memory."))
    assert not is_device_lost(RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"))
    assert not is_device_lost(ValueError("CUDA error: not from torch"))
    if hasattr(torch, "AcceleratorError"):
        assert is_device_lost(torch.AcceleratorError("an illegal memory access was encountered"))


def _lose_a_worker(tmp_path: Path, device: str) -> dict[str, Outcome]:
    batch = [work_item(tmp_path, exam_id, random_exam(k)) for k, exam_id in enumerate(EXAMS[:2])]
    batch.insert(1, work_item(tmp_path, "poisoned", poisoned_exam()))
    outcomes: dict[str, Outcome] = {}

    def collect(outcome: Outcome) -> list[WorkItem]:
        outcomes[outcome.exam_id] = outcome
        return []

    stage = Stage("segment", "GPU", partial(segment_and_lose_gpu, device=device), batch_size=3)
    with local_cluster(1, device=device, memory_limit="4GiB") as client:
        run_window(batch, [stage], executor=DaskExecutor(client), on_outcome=collect)
    return outcomes


@pytest.mark.slow
def test_a_lost_gpu_ends_the_worker_and_only_the_guilty_exam_fails(tmp_path: Path) -> None:
    outcomes = _lose_a_worker(tmp_path, "cpu")
    assert (outcomes["poisoned"].status, outcomes["poisoned"].reason) == ("failed", "worker_killed")
    assert [outcomes[exam_id].status for exam_id in EXAMS[:2]] == ["ok", "ok"]


def test_outside_a_worker_a_lost_gpu_is_an_error(tmp_path: Path) -> None:
    found = _segmented(small_networks(LosesItsGpu), [work_item(tmp_path, "poisoned", poisoned_exam())])
    assert found["poisoned"].status == "failed"


@pytest.mark.gpu
def test_an_illegal_access_on_a_gpu_ends_the_worker(tmp_path: Path) -> None:
    _need_gpu()
    assert _lose_a_worker(tmp_path, "cuda")["poisoned"].reason == "worker_killed"


@pytest.mark.gpu
def test_memory_of_a_gpu_halves_the_batch(caplog: pytest.LogCaptureFixture) -> None:
    _need_gpu()
    contract = read_contract("disc")
    module = load_network("disc", contract.weights_sha256, "cuda")
    network = Network(module, contract, "cuda", "bf16")
    pieces = [Piece((0,), 0, torch.rand(256, 384, 384), (384, 384))]
    plenty = launch(network, pieces, batch_slices=4).wait()
    torch.cuda.empty_cache()
    reserved = torch.cuda.memory_reserved() + 2**31
    torch.cuda.set_per_process_memory_fraction(reserved / torch.cuda.get_device_properties(0).total_memory)
    try:
        scarce = launch(network, pieces, batch_slices=256).wait()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "256 slices of 384x384 fill the memory of cuda" in caplog.text
    winners = [torch.cat([found.winner for _, found in one]).numpy() > 0 for one in (plenty, scarce)]
    assert dice(*winners) > 0.99


@pytest.mark.gpu
def test_a_gpu_gives_an_exam_the_labels_of_a_cpu(tmp_path: Path) -> None:
    _need_gpu()
    sagittal, axial = make_exam(ExamPlan(504, "M", 50, 1.75, 80.0, "per_disc", 5)).labelled()
    networks = check_networks({name: name for name in ("disc", "vertebral_body", "muscle")})
    stored = {}
    for device in ("cpu", "cuda"):
        item = work_item(tmp_path / device, "exam", [sagittal.stack, *(one.stack for one in axial)])
        task = SegmentTask(item.task.store, item.task.exam_path, networks, 16, device)
        (outcome,) = segment_batch([dataclasses.replace(item, task=task)])
        stored[device] = _stored(outcome, item.task.store)
    for name, label in stored["cpu"].items():
        for value in np.unique(label[label > 0]):
            if (label == value).sum() > 500:
                assert dice(stored["cuda"][name] == value, label == value) > 0.98, (name, value)


def _need_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
