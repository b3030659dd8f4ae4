"""The rows of every table, as frozen dataclasses: the one place where a column is named, typed, given a unit and
explained.

Arrow schemas (`cohort.tables.schema`) and the data dictionary in the docs are derived from these classes. Units are
part of the names; coordinates are DICOM LPS, mm. `None` means not measured; NaN is never written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def column(text: str) -> Any:
    """Declare a column with the description that ends up in Arrow metadata and in the data dictionary."""
    return field(metadata={"description": text})


def optional(text: str) -> Any:
    """Declare a column that may be missing (`None`)."""
    return field(default=None, metadata={"description": text})


@dataclass(frozen=True, kw_only=True)
class FileRow:
    """One file of the archive, one member of a .zip, or one frame of a multi-frame file."""

    file_id: str = column("keyed hash of the path below the archive root, and of the member's name inside a .zip")
    container_id: str | None = optional("file_id of the .zip that holds this member, else null")
    member: int | None = optional("position of the member in the directory of its .zip, from 0")
    frame: int | None = optional("number of the frame in a multi-frame file, from 0; null in a single-frame file")
    size_bytes: int = column("size of the file on disk; of a member, uncompressed")
    mtime_ns: int = column("modification time of the file or of the .zip that holds it, ns since 1970")
    reason: str | None = optional("reason code if the file is unusable, else null")
    exam_id: str | None = optional("pseudonym of StudyInstanceUID")
    subject_id: str | None = optional("pseudonym of PatientID and its issuer")
    accession_id: str | None = optional("pseudonym of AccessionNumber, to join subject tables")
    series_id: str | None = optional("pseudonym of SeriesInstanceUID")
    instance_id: str | None = optional("pseudonym of SOPInstanceUID")
    frame_of_reference_id: str | None = optional("pseudonym of FrameOfReferenceUID")
    content_sha256: str | None = optional("sha256 of the whole file; only for files of a chosen series")
    position_mm: list[float] | None = optional("ImagePositionPatient, LPS")
    orientation: list[float] | None = optional("ImageOrientationPatient, row then column cosines")
    row_spacing_mm: float | None = optional("PixelSpacing, between rows")
    column_spacing_mm: float | None = optional("PixelSpacing, between columns")
    rows: int | None = optional("Rows")
    columns: int | None = optional("Columns")
    thickness_mm: float | None = optional("SliceThickness")
    repetition_time_ms: float | None = optional("RepetitionTime")
    echo_time_ms: float | None = optional("EchoTime")
    inversion_time_ms: float | None = optional("InversionTime")
    flip_angle_deg: float | None = optional("FlipAngle")
    echo_train_length: int | None = optional("EchoTrainLength")
    acquisition_number: int | None = optional("AcquisitionNumber of a single-frame image")
    temporal_position: int | None = optional("TemporalPositionIdentifier, or TemporalPositionIndex of the frame")
    scanning_sequence: str | None = optional("ScanningSequence codes joined by '+', closed vocabulary SE IR GR EP RM")
    image_type: str | None = optional("ImageType words of a closed vocabulary joined by '+'")
    text_hints: str | None = optional("words of a closed vocabulary found in descriptions, joined by '+'; no free text")
    vendor: str | None = optional("scanner vendor, closed vocabulary")
    field_t: float | None = optional("MagneticFieldStrength")
    sex: str | None = optional("PatientSex: F, M or O")
    age_years: float | None = optional("age at the exam; over 89 is 90")
    height_m: float | None = optional("PatientSize as found")
    weight_kg: float | None = optional("PatientWeight as found")


@dataclass(frozen=True, kw_only=True)
class SeriesRow:
    """One part of a series (slices of one echo, image type and temporal position) and why it was or was not chosen."""

    exam_id: str = column("exam pseudonym")
    series_id: str = column("series pseudonym")
    part: int = column("number of the part within its series, from 0; most series have one")
    plane: str | None = optional("sagittal, axial, coronal, oblique or mixed")
    n_slices: int = column("usable slices, copies counted once")
    n_stacks: int = column("groups of equal orientation and even spacing")
    weighting: str | None = optional("t1 or t2 by the sequence parameters; null if another or unknown")
    kind: str | None = optional(
        "what the weighting rests on: spin_echo, inversion_recovery, gradient_echo, in_phase, or described (text alone)"
    )
    score: float = column("selection score, higher is better; 0 if excluded")
    role: str | None = optional("sagittal_t1, axial_t1 or axial_t2 if chosen")
    reason: str = column("reason code: chosen, or why not")


@dataclass(frozen=True, kw_only=True)
class ExamRow:
    """One exam: who (pseudonymous), what was chosen, and how it ended."""

    exam_id: str = column("pseudonym of StudyInstanceUID")
    subject_id: str = column("pseudonym of PatientID and its issuer")
    status: str = column("ok, flagged, pending (not processed yet), refused, failed or gone: the worst of its stages")
    reason: str | None = optional("reason code of that status")
    sagittal_series_id: str | None = optional("chosen T1 sagittal series")
    sagittal_part: int | None = optional("chosen part of that series")
    sagittal_score: float | None = optional("its selection score")
    sagittal_runner_up_id: str | None = optional("series of the next best sagittal candidate; null if there was none")
    sagittal_runner_up_score: float | None = optional("selection score of the next best sagittal candidate")
    sagittal_reason: str | None = optional("reason code if no sagittal series was chosen")
    axial_series_id: str | None = optional("chosen axial series")
    axial_part: int | None = optional("chosen part of that series")
    axial_weighting: str | None = optional("t1; t2 where the configuration accepts it and T1 is absent")
    axial_score: float | None = optional("its selection score")
    axial_runner_up_id: str | None = optional("series of the next best axial candidate; null if there was none")
    axial_runner_up_score: float | None = optional("selection score of the next best axial candidate")
    axial_reason: str | None = optional("reason code if no axial series was chosen")
    sex: str | None = optional("F or M")
    sex_source: str | None = optional("dicom or subjects")
    age_years: float | None = optional("age at the exam; over 89 is 90")
    age_source: str | None = optional("dicom or subjects")
    lumbar_vertebrae: int | None = optional("number of lumbar vertebrae by the subjects' table")
    thoracic_vertebrae: int | None = optional("number of thoracic vertebrae by the subjects' table")
    height_m: float | None = optional("standing height")
    height_source: str | None = optional("dicom or subjects")
    weight_kg: float | None = optional("body mass")
    weight_source: str | None = optional("dicom or subjects")
    vendor: str | None = optional("scanner vendor")
    field_t: float | None = optional("magnetic field strength")
    n_sagittal_slices: int | None = optional("slices of the chosen sagittal series")
    n_axial_slices: int | None = optional("slices of the chosen axial series, all stacks")
    n_axial_stacks: int | None = optional("stacks of the chosen axial series")
    store_path: str | None = optional("exam store, relative to STORE")


@dataclass(frozen=True, kw_only=True)
class VertebraRow:
    """One vertebral body."""

    exam_id: str = column("exam pseudonym")
    ordinal: int = column("position from the lowest body upward; S1 = 0 when seen, otherwise the lowest body = 1")
    level: str | None = optional("name (T8..T13, L1..L6, S1); null when undecided")
    level_confidence: float = column("probability that the name is right, 0 to 1; from 0.95 usable without a look")
    level_evidence: str = column("what the names of this exam rest on: words with + (supports) or - (speaks against)")
    x_mm: float = column("centroid, LPS x (to the patient's left)")
    y_mm: float = column("centroid, LPS y (posterior)")
    z_mm: float = column("centroid, LPS z (cranial)")
    anterior_height_mm: float | None = optional("height of the anterior wall, on the central slices")
    posterior_height_mm: float | None = optional("height of the posterior wall, on the central slices")
    middle_height_mm: float | None = optional("height at half depth, on the central slices")
    depth_mm: float | None = optional("anterior-posterior length, on the central slices")
    wedge_deg: float | None = optional("angle between endplates, anterior taller positive")
    tilt_deg: float | None = optional(
        "superior endplate against the axial plane in the sagittal plane, anterior lower positive"
    )
    inferior_tilt_deg: float | None = optional("inferior endplate, in the same way")
    compression_ratio: float | None = optional(
        "height left: least of anterior/posterior, middle/mean of both, and mean height/neighbours' (Genant 1993)"
    )
    volume_cm3: float = column("volume: each section times half the way to the next ones, across missing slices too")
    slices_seen: int = column("sagittal slices with this body")
    slices_expected: int = column("slices from the first to the last of them, missing ones included")
    touches_border: bool = column("cut by the image border")
    status: str = column("ok, flagged or refused")
    reasons: str | None = optional("reason codes joined by '+'")


@dataclass(frozen=True, kw_only=True)
class DiscRow:
    """One intervertebral disc."""

    exam_id: str = column("exam pseudonym")
    ordinal: int = column("position from the lowest disc upward, lowest (L5-S1 where named) = 1")
    level: str | None = optional("name, cranial vertebra first (L4-L5); null when undecided")
    level_confidence: float = column("0 to 1")
    height_mm: float | None = optional(
        "shortest side of the minimum-area rectangle of the outline at the most central slice (Hess 2023), its borders "
        "smoothed over that slice and its neighbours"
    )
    outline_height_mm: float | None = optional(
        "the same of the outline of the most central slice alone, as the mask has it"
    )
    width_mm: float | None = optional("anterior-posterior depth on the most central slice")
    area_mm2: float | None = optional("area on the most central slice")
    mean_height_mm: float | None = optional("area / width on the most central slice")
    anterior_height_mm: float | None = optional("height at 15 % of the depth from the front")
    middle_height_mm: float | None = optional("height at half depth")
    posterior_height_mm: float | None = optional("height at 15 % of the depth from the back")
    height_index: float | None = optional(
        "disc height index: mean of anterior, middle and posterior height / middle height of the vertebra above (the "
        "usual index, as in Chen et al. 2022, takes the mean of both neighbours; below L5 there is none)"
    )
    wedge_deg: float | None = optional("angle between its two borders, anterior taller positive")
    endplate_wedge_deg: float | None = optional(
        "inferior endplate of the vertebra above to superior endplate of the one below, anterior taller positive"
    )
    segmental_deg: float | None = optional(
        "superior endplate of the vertebra above to that of the one below, lordosis positive"
    )
    x_mm: float = column("centroid, LPS x (to the patient's left)")
    y_mm: float = column("centroid, LPS y (posterior)")
    z_mm: float = column("centroid, LPS z (cranial)")
    central_slice: int = column("index of the sagittal slice nearest the centroid")
    volume_cm3: float = column("volume: each section times half the way to the next ones, across missing slices too")
    slices_seen: int = column("sagittal slices with this disc")
    slices_expected: int = column("slices from the first to the last of them, missing ones included")
    touches_border: bool = column("cut by the image border")
    status: str = column("ok, flagged or refused")
    reasons: str | None = optional("reason codes joined by '+'")


@dataclass(frozen=True, kw_only=True)
class MuscleRow:
    """One muscle of one side on one axial slice."""

    exam_id: str = column("exam pseudonym")
    stack: int = column("axial stack index in the exam store")
    slice: int = column("slice index in the stack")
    muscle: str = column("multifidus, erector_spinae, psoas or quadratus_lumborum")
    side: str = column("left or right of the patient")
    csa_cm2: float | None = optional(
        "cross-sectional area in the plane of the slice: pixels x pixel area; null if refused"
    )
    lean_fraction: float | None = optional(
        "share of pixels darker than the fat threshold of this stack, corrected for the receive coil; null if muscle "
        "and fat hardly differ"
    )
    row_px: float = column("2D centroid, row index")
    column_px: float = column("2D centroid, column index")
    x_mm: float = column("centroid, LPS x (to the patient's left)")
    y_mm: float = column("centroid, LPS y (posterior)")
    z_mm: float = column("centroid, LPS z (cranial)")
    touches_border: bool = column("cut by the border of the image, or of its part that is not zero")
    status: str = column("ok, flagged or refused")
    reasons: str | None = optional("reason codes joined by '+'")


@dataclass(frozen=True, kw_only=True)
class MuscleLevelRow:
    """One muscle of one side at the mid-plane of one disc."""

    exam_id: str = column("exam pseudonym")
    level: str = column("disc name (L4-L5), or disc ordinal as text (disc-1) when names are undecided")
    muscle: str = column("multifidus, erector_spinae, psoas or quadratus_lumborum")
    side: str = column("left or right of the patient")
    stack: int = column("axial stack used")
    slice: int = column("slice used: the nearest to the disc's mid-plane at its centroid")
    distance_mm: float = column("distance from the disc's centroid to that slice")
    angle_deg: float = column("angle between the slice and the disc's mid-plane")
    csa_cm2: float | None = optional("area in the plane of the slice; null if refused")
    csa_corrected_cm2: float | None = optional("area times the cosine of angle_deg; null if refused")
    side_difference: float | None = optional(
        "(left - right) / mean of the two corrected areas, the same in the rows of both sides; null without a pair"
    )
    lean_fraction: float | None = optional("as in muscles")
    x_mm: float = column("centroid, LPS x (to the patient's left)")
    y_mm: float = column("centroid, LPS y (posterior)")
    z_mm: float = column("centroid, LPS z (cranial)")
    status: str = column("ok, flagged or refused")
    reasons: str | None = optional("reason codes joined by '+'")


@dataclass(frozen=True, kw_only=True)
class CurvatureRow:
    """Sagittal and coronal shape of the lumbar spine of one exam."""

    exam_id: str = column("exam pseudonym")
    lordosis_l1_s1_deg: float | None = optional("superior endplate of L1 to superior endplate of S1, lordosis positive")
    lordosis_l1_l5_deg: float | None = optional("superior endplate of L1 to inferior endplate of L5")
    lordosis_centroid_deg: float | None = optional(
        "angle between the centroid lines L1-L2 and L5-S1, independent of endplates"
    )
    sacral_slope_deg: float | None = optional("superior endplate of S1 against the axial plane")
    coronal_deviation_mm: float | None = optional("largest distance of a lumbar centroid from the coronal chord L1-S1")
    status: str = column("ok, flagged or refused")
    reasons: str | None = optional("reason codes joined by '+'")


@dataclass(frozen=True, kw_only=True)
class LoadRow:
    """Load of one vertebral level in one task, by one engine and one convention."""

    exam_id: str = column("exam pseudonym")
    task: str = column("task name, for example flexion60_5kg")
    level: str = column("vertebra L1 to L5")
    engine: str = column("batch (our equilibrium solver) or opensim (StaticOptimization + JointReaction)")
    convention: str = column(
        "joint_below (reaction at the joint below the vertebra) or vertebra_mean (mean of those below and above it); "
        "never mix them"
    )
    axial_n: float = column("compression along the vertebra's axis, compression positive")
    shear_ap_n: float = column("antero-posterior shear, anterior positive")
    shear_lateral_n: float = column("lateral shear, to the patient's right positive")
    moment_flexion_nm: float = column(
        "moment that the muscles lack at the joint below, as the reserve adds it to the part above; flexion positive, "
        "so negative where muscles that extend are too weak; the same in both conventions"
    )
    generic_axial_n: float | None = optional(
        "axial_n with height and mass alone personalised; like the next two in rows of the batch engine only, and null "
        "where its solver did not converge"
    )
    curvature_axial_n: float | None = optional(
        "axial_n with curvature personalised, too, but no muscle; equal to generic_axial_n where curvature was "
        "switched off or not measured"
    )
    muscle_axial_n: float | None = optional(
        "axial_n with strength and position of muscles personalised, too, but no curvature; equal to generic_axial_n "
        "where muscles were switched off or not measured"
    )
    max_activation: float = column("largest muscle activation of the whole posture, 0 to 1")
    n_saturated: int = column("fascicles at the limit of their strength, of the whole posture")
    reserve_max_nm: float = column("largest reserve moment of any joint axis; 0 in perfect muscular balance")
    base_model: str = column(
        "name of the base model: lumbar_cohort_male or _female, or what a user's file calls itself"
    )
    geometry: str = column("polygon (straight pieces between via points) or opensim (fascicles around wrap surfaces)")
    height_source: str = column("measured or imputed")
    mass_source: str = column("measured or imputed")
    curvature_source: str = column(
        "measured or default; default without the reason default_curvature: switched off by configuration"
    )
    curvature_joints: str | None = optional(
        "joints whose angle is measured, from caudal to cranial, joined by '+'; the others keep the base model's"
    )
    strength_source: str = column("measured or default, as curvature_source")
    position_source: str = column("measured or default, as curvature_source: places of the muscles")
    change_without_doubted: float | None = optional(
        "relative change of axial_n when vertebrae, discs and muscle areas that are flagged themselves are left out; "
        "null where none is flagged"
    )
    status: str = column("ok, flagged or refused")
    reasons: str | None = optional("reason codes joined by '+'")


@dataclass(frozen=True, kw_only=True)
class QualityRow:
    """One quality flag."""

    exam_id: str = column("exam pseudonym")
    stage: str = column("scan, select, convert, segment, measure or load")
    reason: str = column("reason code")
    structure: str | None = optional("what it concerns, for example L4-L5 or psoas left; null = the exam")
    value: float | None = optional("the measured value that raised the flag")
    limit: float | None = optional("the limit it passed")


@dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """One attempt at one stage of one exam."""

    exam_id: str = column("exam pseudonym")
    stage: str = column("convert, segment, measure or load")
    fingerprint: str = column("sha256 of everything the result depends on")
    status: str = column("ok, flagged, refused or failed")
    reason: str | None = optional("reason code")
    error_type: str | None = optional("class name of the exception, never its text")
    path: str | None = optional("result, relative to STORE")
    seconds: float = column("wall time of this exam in the stage")
    worker: str = column("Dask worker name")
    run_id: str = column("run that did it")
    finished_at: str | None = optional("UTC, ISO 8601")
    rss_mib: float | None = optional("most memory that the worker process has held until then")
    stage_version: int | None = optional("version of the stage's code")
    inputs: str | None = optional("digest of what the stage was given of this exam")
    parameters: str | None = optional("digest of the configuration that the stage depends on")
    artefacts: str | None = optional("digest of the weights or of the base model")


@dataclass(frozen=True, kw_only=True)
class WantedRow:
    """What each stage of one exam should have, as the archive, the configuration and the software stand."""

    exam_id: str = column("exam pseudonym")
    index_digest: str = column("digest of the exam's rows in `files`")
    selection_digest: str = column("digest of the rules of selection and of the exam's lines in the subject table")
    newest_ns: int = column("latest modification time of its files, ns since 1970")
    recipe: str = column("digest of all that fingerprints share: code versions, weights, base models, parameters")
    convert: str | None = optional("fingerprint; null where no series was chosen")
    segment: str | None = optional("fingerprint")
    measure: str | None = optional("fingerprint")
    load: str | None = optional("fingerprint")
    convert_inputs: str | None = optional("digest of the chosen images")
    measure_inputs: str | None = optional("digest of the known number of vertebrae")
    load_inputs: str | None = optional("digest of the demographics")
    sex: str | None = optional("F or M, which decides the base model")
    selected_status: str = column("status of the exam before any stage: by its series, demographics and vertebrae")
    selected_reason: str | None = optional("reason code of that status")


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One `cohort run` or `cohort nightly`."""

    run_id: str = column("time-ordered identifier")
    command: str = column("run, nightly or scan")
    started_at: str = column("UTC, ISO 8601")
    seconds: float = column("wall time")
    version: str = column("software version")
    device: str = column("device of the networks")
    n_files: int = column("files seen in the archive")
    n_files_read: int = column("files whose header was read in this run")
    n_exams: int = column("exams in the archive")
    n_ok: int = column("exams with status ok")
    n_flagged: int = column("exams with status flagged")
    n_refused: int = column("exams with status refused")
    n_failed: int = column("exams with status failed")
    n_gone: int = column("exams that left the archive")
    n_pending: int = column("exams that this run left for the next one")
    stages_run: int = column("stage executions in this run; 0 when nothing changed")
    ended: str = column("complete, or stopped: its time was over, or somebody stopped it")
    change: str | None = optional(
        "held, accepted or discarded: what became of numbers that new weights, new code or new base models changed; "
        "null where none did"
    )
    status: str = column("ok, or flagged: see its reason")
    reason: str | None = optional("reason code")
    opensim_checked: int = column("exams re-solved with OpenSim")
    opensim_max_difference: float | None = optional("largest relative difference of axial load between the engines")


TABLES: dict[str, type] = {
    "files": FileRow,
    "series": SeriesRow,
    "exams": ExamRow,
    "vertebrae": VertebraRow,
    "discs": DiscRow,
    "muscles": MuscleRow,
    "muscle_levels": MuscleLevelRow,
    "curvature": CurvatureRow,
    "loads": LoadRow,
    "quality": QualityRow,
    "wanted": WantedRow,
    "ledger": LedgerRow,
    "runs": RunRow,
}
"""Table name -> row class."""
