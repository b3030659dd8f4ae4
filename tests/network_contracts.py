"""A small contract of a network, for tests to change."""

from __future__ import annotations

from models.registry import NetworkContract

SMALL_CONTRACT = NetworkContract(
    name="own",
    plane="sagittal",
    classes=("disc",),
    spacing_mm=1.5,
    max_side_px=256,
    levels=2,
    base_channels=2,
    activation="prelu",
    normalisation="p95",
    weights_sha256="",
    training_data="none",
    trained_on="nothing",
)
