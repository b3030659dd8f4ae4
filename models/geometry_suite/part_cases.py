"""Cases of several images at one place, and of many images in one file.

Each function writes one case of its name; its docstring is the description in `truth.json`.
"""

from __future__ import annotations

from typing import Any, Final

from models.geometry_suite.classic import MarkedSlice
from models.geometry_suite.encoding import COMPRESSED
from models.geometry_suite.geometry_cases import DISC_DISTANCE_MM, DISC_TILTS_DEG, CaseWriter
from models.geometry_suite.plane import AXIAL, SAGITTAL, stack
from models.geometry_suite.study import Study

ECHOES: Final[tuple[dict[str, Any], ...]] = (
    {"EchoTime": "11", "EchoNumbers": "1"},
    {"EchoTime": "88", "EchoNumbers": "2"},
)
DIXON: Final[tuple[dict[str, Any], ...]] = tuple(
    {"ImageType": ["DERIVED", "PRIMARY", "DIXON", word]} for word in ("IN_PHASE", "OUT_PHASE", "WATER", "FAT")
)
TIMES: Final[tuple[dict[str, Any], ...]] = tuple(
    {"TemporalPositionIdentifier": str(k), "AcquisitionNumber": str(k)} for k in (1, 2, 3)
)
SLOPES: Final = (1, 2, 4, 1, 4, 2, 2)
"""Rescale slopes from slice to slice."""


def _parts(study: Study, parts: tuple[dict[str, Any], ...]) -> list[list[MarkedSlice]]:
    """The same five planes once for each part."""
    return [study.mark(stack(SAGITTAL, n=5), **part) for part in parts]


def _rescaled(study: Study) -> list[MarkedSlice]:
    """Slices each of its own rescale; their background is 0 after it."""
    planes = stack(SAGITTAL)
    return [
        one
        for plane, slope in zip(planes, SLOPES, strict=True)
        for one in study.mark([plane], slope=slope, intercept=-10 * slope, stored_survives=False)
    ]


# -- single-frame files ------------------------------------------------------------------------------------------------


def echoes(study: Study) -> None:
    """Two echoes in one series."""
    study.classic(*_parts(study, ECHOES))


def echoes_interleaved(study: Study) -> None:
    """Two echoes in one series, numbered slice by slice."""
    study.classic(*_parts(study, ECHOES), numbers=[1, 3, 5, 7, 9, 2, 4, 6, 8, 10])


def dixon(study: Study) -> None:
    """In-phase, opposed-phase, water and fat images in one series."""
    study.classic(*_parts(study, DIXON))


def magnitude_and_phase(study: Study) -> None:
    """Magnitude and phase images in one series."""
    types = [{"ImageType": ["ORIGINAL", "PRIMARY", word, "ND"]} for word in ("M", "P")]
    study.classic(*_parts(study, tuple(types)))


def temporal_positions(study: Study) -> None:
    """Three volumes of one series, told apart by TemporalPositionIdentifier."""
    study.classic(*_parts(study, TIMES))


def acquisition_numbers(study: Study) -> None:
    """Two volumes of one series, told apart by AcquisitionNumber alone."""
    study.classic(*_parts(study, tuple({"AcquisitionNumber": str(k)} for k in (1, 2))))


def acquisitions_interleaved(study: Study) -> None:
    """One stack acquired in two passes: odd slices have AcquisitionNumber 1, even ones 2."""
    planes = stack(SAGITTAL)
    study.classic(
        [one for k, plane in enumerate(planes) for one in study.mark([plane], AcquisitionNumber=str(k % 2 + 1))]
    )


def echo_times_vary(study: Study) -> None:
    """One stack whose slices were given slightly different echo times: nothing lies at one place."""
    planes = stack(SAGITTAL)
    study.classic(
        [one for k, plane in enumerate(planes) for one in study.mark([plane], EchoTime=f"{11 + 0.4 * (k % 3):.1f}")]
    )


def image_types_vary(study: Study) -> None:
    """One stack; every other slice carries one more word in ImageType."""
    words = (["ORIGINAL", "PRIMARY", "M", "ND"], ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"])
    planes = stack(SAGITTAL)
    study.classic([one for k, plane in enumerate(planes) for one in study.mark([plane], ImageType=words[k % 2])])


def rescale_common(study: Study) -> None:
    """One rescale slope and intercept for all slices."""
    study.classic(study.mark(stack(SAGITTAL), slope=3, intercept=-30))


def rescale_per_slice(study: Study) -> None:
    """A rescale slope and intercept of its own for each slice: stored values alone mean nothing."""
    study.classic(_rescaled(study))


# -- multi-frame files -------------------------------------------------------------------------------------------------


def enhanced(study: Study) -> None:
    """Enhanced MR: one stack in one file."""
    study.multiframe(study.mark(stack(SAGITTAL)))


def enhanced_per_frame(study: Study) -> None:
    """Enhanced MR: all functional groups per frame, none shared."""
    study.multiframe(study.mark(stack(SAGITTAL)), shared=False)


def enhanced_shuffled(study: Study) -> None:
    """Enhanced MR: frames are stored in no spatial order."""
    study.multiframe(study.mark(stack(SAGITTAL)), order=[4, 0, 6, 2, 5, 1, 3])


def enhanced_against_normal(study: Study) -> None:
    """Enhanced MR: frames are stored against the normal."""
    study.multiframe(study.mark(stack(SAGITTAL)), order=range(6, -1, -1))


def enhanced_stacks(study: Study) -> None:
    """Enhanced MR: five oblique axial stacks, one per disc, in one file."""
    planes = [
        stack(AXIAL.turned(tilt), n=4, centre_mm=(3.0, 12.0, 70.0 - DISC_DISTANCE_MM * k))
        for k, tilt in enumerate(DISC_TILTS_DEG)
    ]
    study.multiframe(*[study.mark(one) for one in planes], SeriesDescription="T1 TSE TRA")
    study.multiframe(study.mark(stack(SAGITTAL)), series=9, SeriesDescription="T1 TSE SAG")


def enhanced_rescale_per_frame(study: Study) -> None:
    """Enhanced MR: a rescale of its own for each frame."""
    study.multiframe(_rescaled(study))


def enhanced_echoes(study: Study) -> None:
    """Enhanced MR: two echoes at equal places in one file, stored slice by slice."""
    study.multiframe(*_parts(study, ECHOES), order=[0, 5, 1, 6, 2, 7, 3, 8, 4, 9])


def enhanced_dixon(study: Study) -> None:
    """Enhanced MR: in-phase, opposed-phase, water and fat frames in one file."""
    study.multiframe(*_parts(study, DIXON))


def enhanced_temporal(study: Study) -> None:
    """Enhanced MR: three volumes of one file, told apart by TemporalPositionIndex."""
    study.multiframe(*_parts(study, TIMES))


def enhanced_magnitude_and_phase(study: Study) -> None:
    """Enhanced MR: magnitude and phase frames, told apart by ComplexImageComponent alone."""
    components = [{"ComplexImageComponent": word} for word in ("MAGNITUDE", "PHASE")]
    study.multiframe(*_parts(study, tuple(components)))


def enhanced_missing_frame(study: Study) -> None:
    """Enhanced MR: an inner slice is not there."""
    planes = stack(SAGITTAL, n=8)
    study.missing.append(planes[3].position_mm)
    study.multiframe(study.mark([plane for k, plane in enumerate(planes) if k != 3]))


def enhanced_split(study: Study) -> None:
    """Enhanced MR: one stack in two files of one series."""
    study.multiframe_files(study.mark(stack(SAGITTAL)), frames_per_file=4)


def enhanced_one_frame_each(study: Study) -> None:
    """Enhanced MR: one frame per file."""
    study.multiframe_files(study.mark(stack(SAGITTAL)), frames_per_file=1)


def enhanced_duplicates(study: Study) -> None:
    """Enhanced MR: the file is there twice."""
    study.copy(study.multiframe(study.mark(stack(SAGITTAL))))


def legacy_converted(study: Study) -> None:
    """Legacy Converted Enhanced MR: times and types in unassigned attributes."""
    study.multiframe(study.mark(stack(SAGITTAL)), legacy=True)


def _enhanced_compressed(name: str) -> CaseWriter:
    def write(study: Study) -> None:
        study.multiframe(study.mark(stack(SAGITTAL)), syntax=COMPRESSED[name])

    return write


def enhanced_encodings() -> dict[str, tuple[str, CaseWriter]]:
    """Enhanced MR in the compressed transfer syntaxes: name -> (description, writer)."""
    return {
        f"enhanced_{name}": (f"Enhanced MR: frames compressed, {syntax.name}.", _enhanced_compressed(name))
        for name, syntax in COMPRESSED.items()
        if name != "jpeg_lossless_sv1"
    }


PART_CASES: Final[tuple[CaseWriter, ...]] = (
    echoes,
    echoes_interleaved,
    dixon,
    magnitude_and_phase,
    temporal_positions,
    acquisition_numbers,
    acquisitions_interleaved,
    echo_times_vary,
    image_types_vary,
    rescale_common,
    rescale_per_slice,
    enhanced,
    enhanced_per_frame,
    enhanced_shuffled,
    enhanced_against_normal,
    enhanced_stacks,
    enhanced_rescale_per_frame,
    enhanced_echoes,
    enhanced_dixon,
    enhanced_temporal,
    enhanced_magnitude_and_phase,
    enhanced_missing_frame,
    enhanced_split,
    enhanced_one_frame_each,
    enhanced_duplicates,
    legacy_converted,
)
