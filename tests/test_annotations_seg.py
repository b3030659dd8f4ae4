"""DICOM SEG in both directions: what is written opens in highdicom and comes back bit for bit; what does not fit is a
row with its reason."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import highdicom as hd
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid
from seg_stacks import ARRAYS, AXIS_ORDERS, EXAM, SUBJECT, annotation_of, make_stack, random_masks, turn

from cohort.annotations.dicom_seg import SegMasks, SegPlace, read_seg
from cohort.annotations.seg_classes import SEGMENT_CLASSES, Target, classes_of, target_of
from cohort.annotations.seg_writer import pseudonymous_source, segmentations
from cohort.annotations.store import LEVEL_NAMES, Annotation
from cohort.archive.pseudonym import Pseudonyms
from cohort.errors import RefusedError
from cohort.stacks import ImageStack, LabelledStack
from cohort.terms import MUSCLE_LABELS

SAGITTAL = np.array([[-1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
AXIAL = np.eye(3)[::-1]
NETWORKS = {"vertebral_body": "ab" * 32, "disc": "cd" * 32, "muscle": "ef" * 32}
pseudonymous = partial(pseudonymous_source, EXAM, SUBJECT)


def write(annotation: Annotation, weights: dict[str, str] | None = None) -> list[bytes]:
    files = []
    for segmentation in segmentations(annotation, pseudonymous, weights):
        stream = io.BytesIO()
        segmentation.save_as(stream)
        files.append(stream.getvalue())
    return files


def read(file: bytes, stacks: list[ImageStack], **values: object) -> SegMasks:
    return read_seg(io.BytesIO(file), SegPlace(EXAM, stacks, None), reader="r2", **values)


def changed(file: bytes, change: Callable[[pydicom.Dataset], object]) -> bytes:
    """The file with something else in its header."""
    data = pydicom.dcmread(io.BytesIO(file))
    change(data)
    stream = io.BytesIO()
    data.save_as(stream)
    return stream.getvalue()


def require_same(found: SegMasks, given: LabelledStack) -> None:
    assert found.problems == []
    [one] = found.annotation.labelled
    assert one.stack is given.stack
    assert set(one.labels) == set(given.labels)
    for name, mask in given.labels.items():
        assert np.array_equal(one.labels[name], mask), name


@pytest.mark.parametrize("plane", ["sagittal", "axial"])
@pytest.mark.parametrize("order", range(len(AXIS_ORDERS)))
def test_every_axis_order_comes_back_bit_for_bit(plane: str, order: int) -> None:
    oblique = AXIS_ORDERS[order] @ turn(17.0, 0).T @ turn(-8.0, 2).T
    stack = make_stack(plane, axes=oblique)
    given = random_masks(stack, order)
    [file] = write(annotation_of([given]))
    require_same(read(file, [stack]), given)
    segmentation = hd.seg.segread(io.BytesIO(file))
    volume = segmentation.get_volume()
    at = np.rint(volume.map_reference_to_indices(stack.geometry.position_mm)).astype(int)
    assert sorted(at[:, 0]) == list(range(stack.geometry.n_slices))
    assert not at[:, 1:].any()
    for number, one in enumerate((c for name in ARRAYS[plane][::1] for c in classes_of(name)), start=1):
        assert segmentation.get_segment_description(number).segment_label == one.label
        assert np.array_equal(volume.array[at[:, 0], ..., number - 1], given.labels[one.array] == one.value)


@pytest.mark.parametrize("order", range(len(AXIS_ORDERS)))
def test_a_grid_stored_in_any_other_direction_is_found_again(order: int) -> None:
    """Another program may turn pictures and say so: rows down or up, rows and columns exchanged, slices backwards."""
    stack = make_stack("axial", axes=AXIAL, shape=(6, 6))
    given = random_masks(stack)
    axes = AXIS_ORDERS[order]
    if not axes[0, 2]:
        return  # pictures across the slices: refused, as the next test shows
    swap, backwards = bool(axes[1, 0]), axes[0, 2] < 0
    down, across = (0, 1) if swap else (1, 0)
    origin = stack.geometry.to_lps(
        [0, 5 if axes[1 if not swap else 2, 1] < 0 else 0, 5 if axes[2 if not swap else 1, 0] < 0 else 0]
    )
    spacing = (stack.geometry.spacing_mm[1], stack.geometry.spacing_mm[0]) if swap else stack.geometry.spacing_mm
    positions = origin + stack.geometry.position_mm - stack.geometry.position_mm[0]
    turned = stack.geometry.__class__(
        positions[::-1] if backwards else positions, axes[2], axes[1], spacing, (6, 6), 3.6
    )
    mask = given.labels["muscle"][::-1] if backwards else given.labels["muscle"]
    if swap:
        mask = mask.transpose(0, 2, 1)
    mask = mask[:, :: int(axes[1, down]), :: int(axes[2, across])]
    other = ImageStack("axial", 0, np.zeros(mask.shape, np.uint16), turned, stack.frame_of_reference_id)
    [file] = write(annotation_of([LabelledStack(other, {"muscle": np.ascontiguousarray(mask)}, {})]))
    require_same(read(file, [stack]), given)


@settings(max_examples=25, deadline=None)
@given(
    gaps=st.lists(st.sampled_from([3.3, 4.0, 4.4, 8.0, 13.7]), min_size=0, max_size=5),
    shape=st.tuples(st.integers(3, 11), st.integers(3, 11)),
    tilt=st.floats(-35, 35),
    seed=st.integers(0, 2**16),
)
def test_uneven_slices_and_odd_sizes_come_back(
    gaps: list[float], shape: tuple[int, int], tilt: float, seed: int
) -> None:
    """Sizes that are no multiple of eight bits, one slice alone, gaps that differ."""
    stack = make_stack("axial", axes=AXIAL @ turn(tilt, 0), gaps=gaps, shape=shape)
    given = random_masks(stack, seed)
    [file] = write(annotation_of([given]))
    require_same(read(file, [stack]), given)


def test_several_oblique_blocks_are_objects_of_one_series() -> None:
    stacks = [
        make_stack("axial", k, axes=AXIAL @ turn(tilt, 0), origin=(0, 0, -35.0 * k), gaps=(4.0, 4.0 + k))
        for k, tilt in enumerate((-12.0, 0.0, 9.0))
    ]
    given = [random_masks(stack, k) for k, stack in enumerate(stacks)]
    files = write(annotation_of(given))
    headers = [pydicom.dcmread(io.BytesIO(file)) for file in files]
    assert len({header.SeriesInstanceUID for header in headers}) == 1
    assert len({header.SOPInstanceUID for header in headers}) == 3
    assert [header.InstanceNumber for header in headers] == [1, 2, 3]
    for file, one in zip(files, given, strict=True):
        require_same(read(file, stacks), one)


def test_slices_that_nobody_looked_at_stay_unknown() -> None:
    stack = make_stack("sagittal", axes=SAGITTAL, gaps=[4.0] * 6)
    given = random_masks(stack)
    looked_at = {("sagittal", 0, "vertebral_body"): (2, 3, 5), ("sagittal", 0, "disc"): (3,)}
    for (_, _, name), slices in looked_at.items():
        mask = given.labels[name]
        mask[[k for k in range(7) if k not in slices]] = 0
        mask[3] = 0  # looked at, and nothing there
    files = write(annotation_of([given], slices=looked_at))
    assert len(files) == 2
    found = [read(file, [stack]).annotation for file in files]
    assert {key: slices for one in found for key, slices in one.slices.items()} == looked_at
    assert np.array_equal(found[0].labelled[0].labels["vertebral_body"], given.labels["vertebral_body"])


def test_a_label_map_is_read_like_binary_segments() -> None:
    stack = make_stack("axial", axes=AXIAL @ turn(11, 0), gaps=(4.0, 9.0))
    given = random_masks(stack)
    [binary] = segmentations(annotation_of([given]), pseudonymous)
    headers = pseudonymous_headers(stack)
    labelmap = hd.seg.Segmentation(
        source_images=headers,
        pixel_array=given.labels["muscle"],
        segmentation_type="LABELMAP",
        segment_descriptions=list(binary.SegmentSequence),
        **equipment(),
    )
    stream = io.BytesIO()
    labelmap.save_as(stream)
    require_same(read(stream.getvalue(), [stack]), given)


def equipment() -> dict[str, object]:
    return {
        "series_instance_uid": generate_uid(),
        "series_number": 1,
        "sop_instance_uid": generate_uid(),
        "instance_number": 1,
        "manufacturer": "Dr. Geheimrat",
        "manufacturer_model_name": "3D Slicer",
        "software_versions": "5",
        "device_serial_number": "1",
        "content_creator_name": "Geheimrat^Anna",
    }


def pseudonymous_headers(stack: ImageStack) -> list[pydicom.Dataset]:
    from cohort.annotations.seg_writer import _stand_ins

    return _stand_ins(stack, tuple(range(stack.geometry.n_slices)), pseudonymous(stack))


def test_fractional_segmentations_are_refused() -> None:
    stack = make_stack("axial", axes=AXIAL)
    [binary] = segmentations(annotation_of([random_masks(stack)]), pseudonymous)
    fractional = hd.seg.Segmentation(
        source_images=pseudonymous_headers(stack),
        pixel_array=np.random.default_rng(0).random((4, 7, 9, 8)),
        segmentation_type="FRACTIONAL",
        segment_descriptions=list(binary.SegmentSequence),
        **equipment(),
    )
    stream = io.BytesIO()
    fractional.save_as(stream)
    with pytest.raises(RefusedError, match="FRACTIONAL") as refused:
        read(stream.getvalue(), [stack])
    assert refused.value.reason == "mask_not_whole_numbers"


def test_the_same_masks_give_the_same_file() -> None:
    given = annotation_of([random_masks(make_stack("sagittal", axes=SAGITTAL))])
    assert write(given, NETWORKS) == write(given, NETWORKS)
    other = annotation_of([random_masks(make_stack("sagittal", axes=SAGITTAL), seed=1)])
    uids = [pydicom.dcmread(io.BytesIO(write(one)[0])).SOPInstanceUID for one in (given, other)]
    assert uids[0] != uids[1]


def test_segments_name_their_class_and_the_network_that_drew_them() -> None:
    stacks = [make_stack("sagittal", axes=SAGITTAL), make_stack("axial", axes=AXIAL)]
    files = write(annotation_of([random_masks(stack) for stack in stacks], reader="automatic"), NETWORKS)
    found = []
    for file in files:
        segmentation = hd.seg.segread(io.BytesIO(file))
        for number in segmentation.segment_numbers:
            segment = segmentation.get_segment_description(number)
            array = next(one.array for one in SEGMENT_CLASSES if one.label == segment.segment_label)
            assert segment.algorithm_type == hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC
            assert segment.algorithm_identification.parameters == {"weights_sha256": NETWORKS[array]}
            found.append(segment.segment_label)
    assert found == [one.label for one in SEGMENT_CLASSES]
    drawn = hd.seg.segread(io.BytesIO(write(annotation_of([random_masks(stacks[0])]))[0]))
    assert drawn.get_segment_description(1).algorithm_type == hd.seg.SegmentAlgorithmTypeValues.MANUAL


def test_codes_are_those_of_the_dictionary_or_private() -> None:
    for one in SEGMENT_CLASSES:
        code = one.property_type
        known = code.scheme_designator == "99LUMBARCOHORT" or code in (
            codes.SCT.ErectorSpinaeMuscle, codes.MDC.MusculiMultifidiiLeft, codes.MDC.MusculiMultifidiiRight,
            codes.MDC.MusculusQuadratusLumborumLeft, codes.MDC.MusculusQuadratusLumborumRight,
        )  # fmt: skip
        assert known, one
    assert {one.value for one in classes_of("muscle")} == set(MUSCLE_LABELS.values())


def test_segments_are_known_by_table_label_or_code() -> None:
    nothing = ("99X", "1")
    assert target_of("Vertebral Body", nothing, None) == Target("vertebral_body", 1)
    assert target_of("Segment_1", ("SCT", "44947003"), "24028007") == Target("muscle", 4)
    assert target_of("Segment_1", ("SCT", "44947003"), None) is None
    assert target_of("LWK 4", nothing, None, {"lwk-4": Target("vertebral_body", 1, "L4")}).level == "L4"
    assert target_of("x", ("SCT", "84020006"), None) == Target("disc", 1, "L4-L5")
    assert target_of("x", ("SCT", codes.SCT.L4Vertebra.value), None) is None


def test_named_levels_are_kept() -> None:
    stack = make_stack("sagittal", axes=SAGITTAL)
    given = random_masks(stack)
    [file] = write(annotation_of([given]))
    found = read(file, [stack], table={"disc": Target("disc", 1, "L4-L5")}).annotation
    levels = found.levels["sagittal", 0, "disc"]
    assert np.array_equal(levels, np.where(given.labels["disc"], 1 + LEVEL_NAMES.index("L4-L5"), 0))
    assert ("sagittal", 0, "vertebral_body") not in found.levels


# -- what does not fit ---------------------------------------------------------------------------------------------


def moved(data: pydicom.Dataset, offset: tuple[float, float, float]) -> None:
    for frame in data.PerFrameFunctionalGroupsSequence:
        position = frame.PlanePositionSequence[0]
        position.ImagePositionPatient = [a + b for a, b in zip(position.ImagePositionPatient, offset, strict=True)]


def mirrored(data: pydicom.Dataset) -> None:
    for frame in data.PerFrameFunctionalGroupsSequence:
        position = frame.PlanePositionSequence[0]
        x, y, z = position.ImagePositionPatient
        position.ImagePositionPatient = [-x, y, z]
    orientation = data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    orientation.ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]


def other_spacing(data: pydicom.Dataset) -> None:
    data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [0.8, 0.8]


def tilted(data: pydicom.Dataset) -> None:
    axes = AXIAL @ turn(40, 0)
    orientation = data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    orientation.ImageOrientationPatient = [f"{value:.9f}" for value in (*axes[2], *axes[1])]


@pytest.mark.parametrize(
    ("change", "reason", "numbers"),
    [
        (partial(moved, offset=(1.0, 0.0, 0.0)), "mask_shifted", "+1.00 mm along columns"),
        (partial(moved, offset=(0.0, 0.0, 2.0)), "mask_shifted", "2.00 mm along slices"),
        (mirrored, "mask_mirrored", "x of LPS"),
        (other_spacing, "mask_grid_differs", "0.8"),
        (tilted, "mask_grid_differs", "degrees"),
    ],
)
def test_frames_that_fit_no_slice_are_rows_with_numbers(
    change: Callable[[pydicom.Dataset], None], reason: str, numbers: str
) -> None:
    stacks = [make_stack("axial", axes=AXIAL), make_stack("sagittal", axes=SAGITTAL)]
    [file] = write(annotation_of([random_masks(stacks[0])]))
    found = read(changed(file, change), stacks)
    *frames, last = found.problems
    assert {problem.reason for problem in frames} == {reason}
    assert len(frames) == 4 * 8
    assert all(numbers in problem.detail for problem in frames), frames[0]
    assert [problem.frame for problem in frames] == list(range(1, 33))
    assert last.reason == "annotation_empty"
    assert found.annotation.labelled == []


def test_one_frame_that_is_off_leaves_the_others() -> None:
    stack = make_stack("axial", axes=AXIAL)
    given = random_masks(stack)
    [file] = write(annotation_of([given]))

    def move_first(data: pydicom.Dataset) -> None:
        data.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient = [500, 0, 0]

    found = read(changed(file, move_first), [stack])
    [problem] = found.problems
    assert (problem.reason, problem.frame, problem.segment) == ("mask_shifted", 1, 1)
    mask = found.annotation.labelled[0].labels["muscle"]
    assert np.array_equal(mask > 1, given.labels["muscle"] > 1)


def test_a_frame_that_names_another_image_than_it_lies_on_is_refused() -> None:
    stack = make_stack("axial", axes=AXIAL)
    [file] = write(annotation_of([random_masks(stack)]))
    key = Pseudonyms(bytes(32))
    uids = [image.sop_instance_uid for image in pseudonymous(stack).images]
    right = {(key.instance_id(uid), None): ("axial", 0, k) for k, uid in enumerate(uids)}
    wrong = {name: ("axial", 0, 3 - k) for k, name in enumerate(right)}
    for images, n_problems in ((right, 0), (wrong, 4 * 8 + 1)):
        place = SegPlace(EXAM, [stack], key, images=images)
        assert len(read_seg(io.BytesIO(file), place, reader="r2").problems) == n_problems


def test_frames_without_a_position_lie_on_the_image_that_they_name() -> None:
    stack = make_stack("axial", axes=AXIAL)
    given = random_masks(stack)
    [file] = write(annotation_of([given]))

    def drop(data: pydicom.Dataset) -> None:
        for frame in data.PerFrameFunctionalGroupsSequence:
            del frame.PlanePositionSequence
        del data.FrameOfReferenceUID, data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence

    file = changed(file, drop)
    key = Pseudonyms(bytes(32))
    images = {(key.instance_id(one.sop_instance_uid), None): ("axial", 0, k)
              for k, one in enumerate(pseudonymous(stack).images)}  # fmt: skip
    require_same(read_seg(io.BytesIO(file), SegPlace(EXAM, [stack], key, images), reader="r2"), given)
    assert {problem.reason for problem in read(file, [stack]).problems} == {"slice_unknown", "annotation_empty"}


def test_unknown_labels_and_labels_of_the_other_plane_are_rows() -> None:
    stack = make_stack("axial", axes=AXIAL)
    [file] = write(annotation_of([random_masks(stack)]))

    def rename(data: pydicom.Dataset) -> None:
        data.SegmentSequence[0].SegmentLabel = "Geheimrat"
        data.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeValue = "0"
        data.SegmentSequence[1].SegmentLabel = "disc"

    problems = read(changed(file, rename), [stack]).problems
    assert [one.segment for one in problems if one.reason == "label_unknown"] == [1]
    assert [one.segment for one in problems if one.reason == "label_other_plane"] == [2] * 4
    assert "Geheimrat" not in repr(problems)


def test_two_labels_on_one_pixel_are_counted_and_the_later_segment_has_it() -> None:
    stack = make_stack("axial", axes=AXIAL, gaps=())
    given = random_masks(stack)
    [file] = write(annotation_of([given]))
    table = {"multifidus_right": Target("muscle", 7)}

    def overlap(data: pydicom.Dataset) -> None:
        frames = np.unpackbits(np.frombuffer(data.PixelData, np.uint8), bitorder="little")[: 8 * 63].reshape(8, 63)
        frames = frames.copy()
        frames[6] |= frames[0]
        data.PixelData = np.packbits(frames.ravel(), bitorder="little").tobytes() + b"\0" * (63 % 2)

    found = read(changed(file, overlap), [stack], table=table)
    [problem] = found.problems
    n_overlapping = int(np.sum(given.labels["muscle"] == 1))
    assert (problem.reason, problem.value, problem.segment) == ("labels_overlap", n_overlapping, 7)
    assert not np.any(found.annotation.labelled[0].labels["muscle"] == 1)


def test_files_of_other_exams_or_frames_of_reference_and_no_segmentations_are_refused() -> None:
    stack = make_stack("axial", axes=AXIAL)
    given = random_masks(stack)
    [file] = write(annotation_of([given]))
    elsewhere = replace(stack, frame_of_reference_id="otherframe")

    def reason_of(file: bytes, stacks: list[ImageStack]) -> str:
        with pytest.raises(RefusedError) as refused:
            read(file, stacks)
        return refused.value.reason

    def rename_study(data: pydicom.Dataset) -> None:
        data.StudyInstanceUID = "1.2.3"

    assert reason_of(changed(file, rename_study), [stack]) == "study_unknown"
    assert reason_of(file, [elsewhere]) == "frame_of_reference_differs"
    assert reason_of(b"not DICOM", [stack]) == "mask_unreadable"
    assert reason_of(file[:-100], [stack]) == "mask_unreadable"
    copy = changed(file, rename_study)
    place = SegPlace(EXAM, [elsewhere], None, named_by_table=True)
    found = read_seg(io.BytesIO(copy), place, reader="r2").annotation
    assert np.array_equal(found.labelled[0].labels["muscle"], given.labels["muscle"])


def test_no_name_in_a_file_becomes_a_reader_or_a_tool() -> None:
    stack = make_stack("axial", axes=AXIAL)
    [binary] = segmentations(annotation_of([random_masks(stack)]), pseudonymous)
    drawn = hd.seg.Segmentation(
        source_images=pseudonymous_headers(stack),
        pixel_array=random_masks(stack).labels["muscle"],
        segmentation_type="BINARY",
        segment_descriptions=list(binary.SegmentSequence),
        content_date="20250314",
        content_time="101112",
        **equipment(),
    )
    stream = io.BytesIO()
    drawn.save_as(stream)
    found = read(stream.getvalue(), [stack]).annotation
    assert (found.reader, found.tool, found.drawn_at) == ("r2", "dicom-seg slicer", "2025-03-14T10:11:12")


def test_values_that_are_no_class_are_not_written() -> None:
    stack = make_stack("sagittal", axes=SAGITTAL)
    given = LabelledStack(stack, {"disc": np.full(stack.image.shape, 3, np.uint8)}, {})
    with pytest.raises(ValueError, match=r"disc holds \[3\]"):
        segmentations(annotation_of([given]), pseudonymous)
