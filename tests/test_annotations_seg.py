"""DICOM SEG in both directions: what is written opens in highdicom and comes back bit for bit; what does not fit is a
row with its reason."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
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

from cohort.annotations.assemble import Sheet, assemble
from cohort.annotations.classes import ClassTable, Meaning
from cohort.annotations.dicom_seg import SegPart, read_seg
from cohort.annotations.matching import ExamImages
from cohort.annotations.rows import AnnotationRow
from cohort.annotations.seg_classes import SEGMENT_CLASSES, classes_of, segment_meaning
from cohort.annotations.seg_writer import pseudonymous_source, segmentations
from cohort.annotations.store import LEVEL_NAMES, Annotation
from cohort.archive.pseudonym import Pseudonyms
from cohort.errors import RefusedError
from cohort.rows import FileRow
from cohort.stacks import ImageStack, LabelledStack
from cohort.store.exam import StoredExam
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


@dataclass(frozen=True)
class Read:
    """What an import of one file gives."""

    annotation: Annotation
    rows: list[AnnotationRow]


def read(
    file: bytes,
    stacks: list[ImageStack],
    *,
    table: dict[str, Meaning] | None = None,
    pseudonyms: Pseudonyms | None = None,
    images: list[FileRow] | None = None,
    named_by_table: bool = False,
) -> Read:
    exam = StoredExam({}, stacks)
    sheet = Sheet(EXAM, "r2", tool="", source="")
    part = SegPart(read_seg(io.BytesIO(file)), ClassTable(table or {}), pseudonyms, named_by_table)
    part.add(ExamImages.of(exam, images or [], ["chosen"]), sheet)
    return Read(assemble(exam, sheet), sheet.rows)


def changed(file: bytes, change: Callable[[pydicom.Dataset], object]) -> bytes:
    """The file with something else in its header."""
    data = pydicom.dcmread(io.BytesIO(file))
    change(data)
    stream = io.BytesIO()
    data.save_as(stream)
    return stream.getvalue()


def require_same(found: Read, given: LabelledStack) -> None:
    assert found.rows == []
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
    nothing, usual = ("99X", "1"), ClassTable()
    for one in SEGMENT_CLASSES:
        code = (one.property_type.scheme_designator, one.property_type.value)
        side = one.laterality.value if one.laterality else None
        assert segment_meaning(one.label, nothing, None, usual) == Meaning(one.array, one.value)
        assert segment_meaning("Segment_1", code, side, usual) == Meaning(one.array, one.value)
    assert segment_meaning("Segment_1", ("SCT", "44947003"), None, usual) is None
    assert segment_meaning("Psoas", nothing, "24028007", usual) == Meaning("muscle", MUSCLE_LABELS["psoas", "right"])
    own = ClassTable({"LWK 4": Meaning("vertebral_body", 1, "L4")})
    assert segment_meaning("LWK 4", nothing, None, own) == Meaning("vertebral_body", 1, "L4")
    assert segment_meaning("x", ("SCT", "84020006"), None, usual) == Meaning("disc", 1, "L4-L5")
    assert segment_meaning("x", ("SCT", codes.SCT.L4Vertebra.value), None, usual) is None


def test_named_levels_are_kept() -> None:
    stack = make_stack("sagittal", axes=SAGITTAL)
    given = random_masks(stack)
    [file] = write(annotation_of([given]))
    found = read(file, [stack], table={"disc": Meaning("disc", 1, "L4-L5")}).annotation
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
    *frames, last = found.rows
    assert {problem.reason for problem in frames} == {reason}
    assert len(frames) == 4 * 8
    assert all(numbers in problem.detail for problem in frames), frames[0]
    assert [problem.detail.split(",")[0] for problem in frames] == [f"frame {k}" for k in range(1, 33)]
    assert last.reason == "annotation_empty"
    assert found.annotation.labelled == []


def test_one_frame_that_is_off_leaves_the_others() -> None:
    stack = make_stack("axial", axes=AXIAL)
    given = random_masks(stack)
    [file] = write(annotation_of([given]))

    def move_first(data: pydicom.Dataset) -> None:
        data.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient = [500, 0, 0]

    found = read(changed(file, move_first), [stack])
    [problem] = found.rows
    assert problem.reason == "mask_shifted"
    assert problem.detail.startswith("frame 1, segment 1: ")
    assert problem.value > problem.limit
    mask = found.annotation.labelled[0].labels["muscle"]
    assert np.array_equal(mask > 1, given.labels["muscle"] > 1)
    key = Pseudonyms(bytes(32))
    images = file_rows(stack, key, slice(None))
    told = read(changed(file, move_first), [stack], pseudonyms=key, images=images)
    assert [row.reason for row in told.rows] == ["mask_shifted", "slice_in_doubt"]
    assert len(told.annotation.slices["axial", 0, "muscle"]) == 3


def file_rows(stack: ImageStack, key: Pseudonyms, order: slice, series: str = "chosen") -> list[FileRow]:
    """The images that an object made by `write` names, in the file index."""
    geometry = stack.geometry
    uids = [image.sop_instance_uid for image in pseudonymous(stack).images]
    return [
        FileRow(
            file_id=uid, size_bytes=1, mtime_ns=1, exam_id=EXAM, series_id=series, instance_id=key.instance_id(uid),
            position_mm=position.tolist(), orientation=[*geometry.row_dir, *geometry.col_dir],
            row_spacing_mm=geometry.spacing_mm[0], column_spacing_mm=geometry.spacing_mm[1],
            rows=geometry.shape[0], columns=geometry.shape[1],
        )
        for uid, position in zip(uids, geometry.position_mm[order], strict=True)
    ]  # fmt: skip


def test_a_frame_that_names_another_image_than_it_lies_on_is_refused() -> None:
    stack, key = make_stack("axial", axes=AXIAL), Pseudonyms(bytes(32))
    given = random_masks(stack)
    [file] = write(annotation_of([given]))
    as_it_is, backwards = (file_rows(stack, key, slice(None, None, step)) for step in (1, -1))
    require_same(read(file, [stack], pseudonyms=key, images=as_it_is), given)
    refused = read(file, [stack], pseudonyms=key, images=backwards).rows
    assert [row.reason for row in refused] == ["mask_shifted"] * 32 + ["annotation_empty"]
    assert any(
        "lies on axial stack 0 slice 0, but names the image of axial stack 0 slice 3" in row.detail for row in refused
    )
    other = read(file, [stack], pseudonyms=key, images=file_rows(stack, key, slice(None), "other")).rows
    assert {row.reason for row in other} == {"series_not_chosen", "annotation_empty"}


def test_a_file_without_positions_is_refused() -> None:
    [file] = write(annotation_of([random_masks(make_stack("axial", axes=AXIAL))]))

    def drop(data: pydicom.Dataset) -> None:
        for frame in data.PerFrameFunctionalGroupsSequence:
            del frame.PlanePositionSequence

    with pytest.raises(RefusedError, match="mask_unreadable"):
        read(changed(file, drop), [])


def test_a_frame_of_a_segment_that_the_file_does_not_describe_is_refused() -> None:
    [file] = write(annotation_of([random_masks(make_stack("axial", axes=AXIAL))]))

    def renumber(data: pydicom.Dataset) -> None:
        data.SegmentSequence[0].SegmentNumber = 77

    with pytest.raises(RefusedError, match="mask_unreadable"):
        read(changed(file, renumber), [])


def test_unknown_labels_and_labels_of_the_other_plane_are_rows() -> None:
    stack = make_stack("axial", axes=AXIAL)
    [file] = write(annotation_of([random_masks(stack)]))

    def rename(data: pydicom.Dataset) -> None:
        data.SegmentSequence[0].SegmentLabel = "Geheimrat"
        data.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeValue = "0"
        data.SegmentSequence[1].SegmentLabel = "disc"

    rows = read(changed(file, rename), [stack]).rows
    assert [row.detail[:9] for row in rows if row.reason == "label_unknown"] == ["segment 1"]
    assert sorted(row.slice for row in rows if row.reason == "label_other_plane") == [0, 1, 2, 3]
    assert "Geheimrat" not in repr(rows)


def test_two_labels_on_one_pixel_are_counted() -> None:
    stack = make_stack("axial", axes=AXIAL, gaps=())
    given = random_masks(stack)
    [file] = write(annotation_of([given]))

    def overlap(data: pydicom.Dataset) -> None:
        frames = np.unpackbits(np.frombuffer(data.PixelData, np.uint8), bitorder="little")[: 8 * 63].reshape(8, 63)
        frames[6] |= frames[0]
        data.PixelData = np.packbits(frames.ravel(), bitorder="little").tobytes()

    found = read(changed(file, overlap), [stack])
    [row] = found.rows
    n_overlapping = int(np.sum(given.labels["muscle"] == 1))
    assert (row.reason, row.value) == ("labels_overlap", n_overlapping)
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
    found = read(copy, [elsewhere], named_by_table=True).annotation
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


def test_a_file_that_says_there_is_nothing_is_flagged_and_taken() -> None:
    stack = make_stack("axial", axes=AXIAL)
    nothing = LabelledStack(stack, {"muscle": np.zeros(stack.image.shape, np.uint8)}, {})
    found = read(write(annotation_of([nothing]))[0], [stack])
    assert [(row.status, row.reason) for row in found.rows] == [("flagged", "annotation_empty")]
    assert found.annotation.slices == {("axial", 0, "muscle"): (0, 1, 2, 3)}


def test_values_that_are_no_class_are_not_written() -> None:
    stack = make_stack("sagittal", axes=SAGITTAL)
    given = LabelledStack(stack, {"disc": np.full(stack.image.shape, 3, np.uint8)}, {})
    with pytest.raises(ValueError, match=r"disc holds \[3\]"):
        segmentations(annotation_of([given]), pseudonymous)
