"""A parametric lumbar body in three dimensions, sampled along any plane as MRI, with exact labels.

The phantom teaches the default networks, feeds the demo and gives tests a known truth. Numbers obtained on it are
phantom numbers: they say that the software does what it claims, not how well it does on patients.

`anatomy` draws a subject (`pathology` what is wrong with it, `chain` its bodies and discs, `marrow` what is in them);
`vertebral_column`, `posterior`, `soft_tissue` and `pelvis` say which tissue is at a point, `sampling` cuts planes,
`mri` turns tissue into signal, `slices` makes training samples, `exam` makes whole exams with truth, `dicom` writes
them.
"""

from typing import Final

PHANTOM_VERSION: Final = 5
"""Raised by hand whenever the same seed gives another picture; pools and model cards carry it (docs/phantom.md)."""
