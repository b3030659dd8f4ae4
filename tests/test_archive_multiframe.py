"""Frame headers of Enhanced MR: real files of three vendors, and made-up ones for what those do not show."""

from __future__ import annotations

import gzip
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from cohort.archive.header import quiet_pydicom
from cohort.archive.multiframe import FrameHeader, frame_headers, is_multiframe
from cohort.errors import RefusedError


def read(path: Path) -> Dataset:
    opened = gzip.open(path) if path.suffix == ".gz" else path.open("rb")
    with opened as stream, quiet_pydicom():
        return dcmread(stream, force=True, stop_before_pixels=True)


def frames_of(path: Path) -> list[FrameHeader]:
    with quiet_pydicom():
        data_set = read(path)
        assert is_multiframe(data_set)
        return frame_headers(data_set)


def item(**attributes: object) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def enhanced(frames: list[Dataset], shared: Dataset | None = None, **attributes: object) -> Dataset:
    """Header as it comes from a file: written without value conversion of what is read back, implicit VR."""
    made = item(NumberOfFrames=len(frames), PerFrameFunctionalGroupsSequence=frames)
    if shared is not None:
        made.SharedFunctionalGroupsSequence = [shared]
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    written = BytesIO()
    dcmwrite(written, made, implicit_vr=True, little_endian=True)
    written.seek(0)
    return dcmread(written, force=True)


def at(x: float, **groups: object) -> Dataset:
    return item(PlanePositionSequence=[item(ImagePositionPatient=[x, 0, 0])], **groups)


def test_siemens_frames_have_their_own_places_and_share_the_rest(real_data: Path) -> None:
    frames = frames_of(real_data / "dicom_corpus" / "dcm_qa_enh" / "Siemens" / "XA10" / "6_2.dcm")
    assert [round(frame.position[2], 3) for frame in frames] == [-5.404, -3.004, -0.604, 1.796, 4.196, 6.596]
    assert {frame.spacing for frame in frames} == {(3.375, 3.375)}
    (first, *_) = frames
    assert (first.thickness_mm, first.repetition_time_ms, first.echo_time_ms) == (2.4, 500, 30)
    assert (first.flip_angle_deg, first.temporal_position) == (52, 2)
    assert (first.scanning_sequence, first.fat_suppressed) == ("GR+EP", True)


def test_philips_magnitude_and_field_map_of_one_file_are_told_apart(real_data: Path) -> None:
    frames = frames_of(real_data / "dicom_corpus" / "dcm_qa_enh" / "Philips" / "IM_0027_fMAP.dcm")
    assert len(frames) == 64
    kinds = {(frame.frame_type, frame.echo_time_ms, frame.rescale_intercept) for frame in frames}
    assert kinds == {
        ("ORIGINAL\\PRIMARY\\T1\\M", 1.52, 0.0),
        ("ORIGINAL\\PRIMARY\\T1\\FIELD_MAP\\REAL", None, -500.0),
    }
    assert len({frame.position for frame in frames}) == 32


def test_philips_echoes_and_phases_of_one_compressed_file_are_told_apart(real_data: Path) -> None:
    folder = real_data / "dicom_corpus" / "dcm_qa_philips_enh" / "enh"
    frames = frames_of(folder / "2001_WIP_fcMRI_Field_Mapping_e2_phMag.dcm.gz")
    assert len(frames) == 212
    kinds = {(frame.frame_type.split("\\")[-1], frame.echo_time_ms) for frame in frames}
    assert kinds == {("M", 2.3), ("M", 4.6), ("PHASE", 2.3), ("PHASE", 4.6)}
    assert {frame.temporal_position for frame in frames_of(folder / "1903_WIP_SOURCE_-_3DpCASL.dcm.gz")} == {1, 2, 3}


def test_inversion_time_of_hyperfine_is_found_under_its_single_frame_name(real_data: Path) -> None:
    folder = real_data / "dicom_corpus" / "dicom2nifti" / "hyperfine" / "anatomical" / "001"
    frames = frames_of(folder / "001.dcm")
    assert {(frame.inversion_time_ms, frame.scanning_sequence) for frame in frames} == {(1400.0, "SE+IR")}
    assert len({frame.position for frame in frames}) == 8


def test_frames_without_functional_groups_are_not_multiframe(real_data: Path) -> None:
    for path in sorted((real_data / "dicom_corpus" / "pydicom_data").glob("emri*.dcm")):
        with quiet_pydicom():
            assert not is_multiframe(read(path))
    assert not is_multiframe(item(ImagePositionPatient=[0, 0, 0], Rows=2))


def test_the_frame_counts_before_what_is_shared_and_that_before_the_image() -> None:
    own = at(1, MREchoSequence=[item(EffectiveEchoTime=12.5)])
    shared = item(
        MREchoSequence=[item(EffectiveEchoTime=99.0)],
        MRTimingAndRelatedParametersSequence=[item(RepetitionTime="600", RFEchoTrainLength=7)],
    )
    header = enhanced([own, at(2)], shared, RepetitionTime="1", PixelSpacing=["0.5", "0.6"], EchoTime="3")
    first, second = frame_headers(header)
    assert (first.echo_time_ms, second.echo_time_ms) == (12.5, 99.0)
    assert (first.repetition_time_ms, first.echo_train_length, first.spacing) == (600.0, 7, (0.5, 0.6))
    assert (first.position, second.position) == ((1, 0, 0), (2, 0, 0))


def test_a_frame_without_place_is_not_put_where_the_image_is() -> None:
    several = enhanced([at(1), Dataset()], ImagePositionPatient=["7", "8", "9"])
    assert [frame.position for frame in frame_headers(several)] == [(1, 0, 0), ()]
    single = enhanced([Dataset()], ImagePositionPatient=["7", "8", "9"])
    assert [frame.position for frame in frame_headers(single)] == [(7, 8, 9)]


def test_converted_images_keep_their_times_in_unassigned_attributes() -> None:
    own = at(1, UnassignedPerFrameConvertedAttributesSequence=[item(EchoTime="11")])
    shared = item(UnassignedSharedConvertedAttributesSequence=[item(RepetitionTime="500", InversionTime="150")])
    (frame,) = frame_headers(enhanced([own], shared))
    assert (frame.echo_time_ms, frame.repetition_time_ms, frame.inversion_time_ms) == (11, 500, 150)


def test_contrast_agent_and_fat_suppression_of_a_frame() -> None:
    before = at(1, ContrastBolusUsageSequence=[item(ContrastBolusAgentAdministered="NO")])
    after = at(2, ContrastBolusUsageSequence=[item(ContrastBolusAgentAdministered="YES")])
    agent = [item(ContrastBolusAgentNumber=1)]
    frames = frame_headers(enhanced([before, after, at(3)], ContrastBolusAgentSequence=agent))
    assert [frame.contrast_given for frame in frames] == [False, True, True]
    water = item(MRModifierSequence=[item(SpectrallySelectedExcitation="WATER", InversionRecovery="YES")])
    (frame,) = frame_headers(enhanced([at(1)], water, EchoPulseSequence="SPIN"))
    assert (frame.fat_suppressed, frame.scanning_sequence) == (True, "SE+IR")


def raw(tag: int, value: bytes) -> Dataset:
    made = Dataset()
    made[tag] = RawDataElement(BaseTag(tag), "UN", len(value), value, 0, False, True)
    return made


def test_values_of_hostile_types_are_missing_values() -> None:
    own = item(
        PlanePositionSequence=[item(ImagePositionPatient=["1", "2", "3"])],
        PixelMeasuresSequence=[raw(0x00280030, b"neither\xff number")],
        MREchoSequence=[raw(0x00189082, b"\x00\x00\x00\x00\x00\x00\xf8\x7f")],  # NaN
        FrameContentSequence=[raw(0x00209128, b"\x01")],  # too short for UL
    )
    own.update(raw(0x00189112, b"no sequence at all"))
    with quiet_pydicom():
        frames = frame_headers(item(NumberOfFrames=1, PerFrameFunctionalGroupsSequence=[own]))
    assert frames == [FrameHeader(position=(1.0, 2.0, 3.0))]


def test_other_number_of_frames_than_groups_is_a_damaged_header() -> None:
    with pytest.raises(RefusedError) as caught:
        frame_headers(enhanced([at(1), at(2)], NumberOfFrames=3))
    assert caught.value.reason == "damaged_header"
