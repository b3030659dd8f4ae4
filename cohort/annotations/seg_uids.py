"""UIDs of de-identified DICOM SEG objects, which follow from pseudonyms."""

from __future__ import annotations

import uuid
from typing import Final

from cohort.stacks import ImageStack

DERIVED_ROOT: Final = "2.25."
"""Of UIDs that are UUIDs (PS3.5 B.2)."""
NAMESPACE: Final = uuid.UUID("5b0f6c3e-8a37-4b46-9d0e-2f6d6c0f7a51")
"""Of the UIDs that are derived here; made once at random."""


def derived_uid(*parts: object) -> str:
    """UID of the form 2.25.<UUID> (PS3.5 B.2) that follows from texts or numbers: version 5, RFC 9562."""
    return f"{DERIVED_ROOT}{uuid.uuid5(NAMESPACE, chr(0).join(map(str, parts))).int}"


def frame_of_reference_uid(exam_id: str, stack: ImageStack) -> str:
    """UID of a de-identified object for a stack's frame of reference; a stack without one has its own."""
    if stack.frame_of_reference_id is None:
        return derived_uid("frame-of-reference", exam_id, stack.plane, stack.index)
    return derived_uid("frame-of-reference", stack.frame_of_reference_id)


def study_uid(exam_id: str) -> str:
    """StudyInstanceUID of de-identified objects of an exam."""
    return derived_uid("study", exam_id)
