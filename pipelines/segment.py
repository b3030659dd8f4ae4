"""Stage segment: exam store -> label store, by the networks for discs, vertebral bodies and muscles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cohort.anatomy.sides import split_sides
from cohort.errors import ConfigurationError
from cohort.stacks import ImageStack, LabelledStack
from cohort.store.exam import read_exam
from cohort.store.labels import write_labels
from cohort.store.layout import label_store_path
from cohort.terms import DISC, MUSCLES, SACRAL_BODY, VERTEBRAL_BODY
from models.forward import usable_arithmetic
from models.inference import Segmentation, segment_stack
from models.registry import NetworkContract, load_network, read_contract
from pipelines.outcome import Result, WorkItem

NETWORK_CLASSES = {
    "vertebral_body": ("sagittal", ("vertebral_body", "sacral_body")),
    "disc": ("sagittal", ("disc",)),
    "muscle": ("axial", MUSCLES),
}
"""Label array -> plane, and the classes that its network must have, in this order."""


@dataclass(frozen=True)
class SegmentTask:
    """Which exam, which networks, how."""

    store: Path
    exam_path: str
    """Exam store relative to STORE."""
    networks: Mapping[str, tuple[str, str]]
    """Label array -> (name, path or URL of the network, sha256 of its weights)."""
    batch_slices: int
    device: str


def check_networks(networks: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Read the contracts of all networks before a run starts; label array -> (name, sha256 of the weights).

    Raises
    ------
    ConfigurationError
        if a network is missing, or its plane or classes are not those of the label array it is meant for
    """
    checked = {}
    for label, (plane, classes) in NETWORK_CLASSES.items():
        contract = read_contract(networks[label])
        if (contract.plane, contract.classes) != (plane, classes):
            raise ConfigurationError(
                f"network {contract.name!r} gives {', '.join(contract.classes)} on {contract.plane} slices; as {label} "
                f"network this version takes {', '.join(classes)}, in this order, on {plane} slices"
            )
        checked[label] = (networks[label], contract.weights_sha256)
    return checked


def segment(item: WorkItem) -> Result:
    """Publish the label store of one exam."""
    task: SegmentTask = item.task
    exam = read_exam(task.store / task.exam_path)
    contracts = {label: read_contract(name) for label, (name, _) in task.networks.items()}
    labelled = [_segment_stack(stack, task, contracts) for stack in exam.stacks]
    target = label_store_path(task.store, item.exam_id, item.fingerprint)
    weights = {label: sha256 for label, (_, sha256) in task.networks.items()}
    about = {"weights_sha256": weights, "arithmetic": usable_arithmetic(task.device)[0]}
    write_labels(target, labelled, {"exam_id": item.exam_id, "fingerprint": item.fingerprint, **about})
    return Result(path=str(target.relative_to(task.store)))


def _segment_stack(stack: ImageStack, task: SegmentTask, contracts: Mapping[str, NetworkContract]) -> LabelledStack:
    labels: dict[str, npt.NDArray[np.uint8]] = {}
    uncertainty: dict[str, float] = {}
    for label, (plane, _) in NETWORK_CLASSES.items():
        if plane != stack.plane:
            continue
        name, sha256 = task.networks[label]
        network, contract = load_network(name, sha256, task.device), contracts[label]
        found = segment_stack(network, contract, stack, batch_slices=task.batch_slices, device=task.device)
        labels[label] = _label_array(label, found, contract, stack)
        uncertainty |= found.entropy
    return LabelledStack(stack, labels, uncertainty)


def _label_array(
    label: str, found: Segmentation, contract: NetworkContract, stack: ImageStack
) -> npt.NDArray[np.uint8]:
    """Values of `cohort.terms` from the classes of the network."""
    if label == "muscle":
        return split_sides(found.winner, stack.geometry)
    values = {"vertebral_body": VERTEBRAL_BODY, "sacral_body": SACRAL_BODY, "disc": DISC}
    table = np.array([0, *(values[name] for name in contract.classes)], np.uint8)
    return table[found.winner]
