"""Reason codes: why a file, a series, an exam, a stage or a number was refused or flagged.

One documented list for the whole project (`cohort schema --reasons` prints it); a code that is not here cannot be
raised or written. Texts are for people and name no value.
"""

from __future__ import annotations

from typing import Final

FILE_REASONS: Final[dict[str, str]] = {
    "not_dicom": "The file is not DICOM.",
    "unreadable": "The file could not be opened or read.",
    "vanished": "The file vanished between listing and reading.",
    "container": "Compressed archive (.zip); its members have rows of their own.",
    "damaged_container": "The compressed file (.zip, .gz) cannot be read.",
    "container_limit": "Compressed data beyond the limits of size, ratio, number or nesting; not opened further.",
    "truncated": "The file ends before its pixel data does.",
    "damaged_header": "The DICOM header cannot be parsed.",
    "not_an_image": "DICOM object without pixel data (report, presentation state, DICOMDIR, raw data, ...).",
    "not_mr": "The modality is not MR.",
    "no_geometry": "Image orientation, position or pixel spacing is missing or not usable.",
    "no_identity": "StudyInstanceUID, SeriesInstanceUID or SOPInstanceUID is missing.",
    "unsupported_pixels": "Pixels of a kind that cannot be measured (colour, several samples per pixel, 32 bits).",
    "unsupported_transfer_syntax": "Pixels are encoded in a transfer syntax that cannot be decoded.",
    "mosaic": "Several slices tiled into one image (mosaic): the place of each tile is not in the standard header.",
}

SERIES_REASONS: Final[dict[str, str]] = {
    "chosen": "The series was chosen.",
    "localiser": "Localiser or scout.",
    "not_t1": "Not T1-weighted by its sequence parameters.",
    "weighting_unknown": "Neither sequence parameters nor the description tell the weighting.",
    "other_region": "Of another region of the body than the lumbar spine, by its description or its place.",
    "fat_suppressed": "Fat-suppressed or inversion-recovery.",
    "dixon_part": "Water, fat, out-of-phase, or unaccepted in-phase image of a Dixon acquisition.",
    "derived": "Derived image (map, subtraction, reformat, screenshot).",
    "post_contrast": "Acquired after contrast agent.",
    "wrong_plane": "Neither sagittal nor axial.",
    "too_few_slices": "Too few slices to measure.",
    "not_best": "A better series of the same plane was chosen.",
}

EXAM_REASONS: Final[dict[str, str]] = {
    "no_t1_sagittal": "No usable T1 sagittal series.",
    "no_t1_axial": "No usable T1 axial series: muscles are not measured, loads use generic strength.",
    "t2_axial": "No T1 axial series: a T2 axial series was accepted, as configured.",
    "ambiguous": "Two series are equally likely; none was chosen.",
    "damaged_pixels": "Pixels of a chosen series cannot be decoded.",
    "files_changed": "Files of the exam changed or vanished while it was read.",
    "damaged_file_in_series": "A file of the exam could not be read; its series may have a gap.",
    "duplicate_slices": "Copies of a slice were found and dropped.",
    "missing_slices": "A slice of an otherwise even block is missing; the gap is kept.",
    "uneven_spacing": "Slices of a stack are unevenly spaced, and no missing slice explains it; each keeps its place.",
    "inconsistent_series": "Slices of the chosen series do not form a stack.",
    "several_sagittal_stacks": "The sagittal series fell apart into several stacks; the fullest one is measured.",
    "lossy_compression": "Pixels of a chosen series were compressed with loss (LossyImageCompression).",
    "unused_bits": "Bits above those that BitsStored and HighBit give to a value were set; they were masked.",
    "conflicting_demographics": "Files or tables contradict each other about sex, age, height, weight or number of "
    "vertebrae.",
}

ANATOMY_REASONS: Final[dict[str, str]] = {
    "no_vertebrae": "No vertebral bodies were found.",
    "no_discs": "No intervertebral discs were found.",
    "levels_undecided": "The sacrum was not identified; rows carry ordinal positions, not level names.",
    "levels_low_confidence": "Level names rest on weak evidence.",
    "lumbar_variant": "Four or six lumbar-type vertebrae, or a transitional vertebra, are likely.",
    "axial_conflict": "The axial slices contradict the level names: discs where none was found, or muscles that shrink "
    "downward.",
    "count_mismatch": "Bodies and discs do not alternate as a spine must.",
    "touches_border": "The structure is cut by the image border.",
    "outermost_slice": "The structure reaches the first or last slice; its extent is not complete.",
    "no_shape": "Endplates, walls or borders of the structure could not be told apart: it has no heights.",
    "implausible_disc_height": "Disc height outside the anatomical range.",
    "disc_readings_differ": "Disc height from smoothed borders and from the outline as it stands differ; look at it.",
    "implausible_body_size": "Vertebral body size outside the anatomical range.",
    "implausible_spacing": "Distance between neighbouring vertebrae outside the anatomical range.",
    "implausible_angle": "Angle between vertebrae, or of the sacrum, outside the anatomical range.",
    "compression_suspected": "A body is lower than its own posterior wall or its neighbours; review, not a diagnosis.",
    "lordosis_conflict": "Lordosis from endplates and lordosis from centroids differ more than anatomy allows.",
    "slices_missing": "Slices are missing within the structure; its volume bridges the gap.",
    "implausible_csa": "Muscle cross-sectional area outside the anatomical range.",
    "size_jump": "A structure is larger or smaller than its neighbours by more than anatomy allows.",
    "side_asymmetry": "Left and right area of a muscle differ more than anatomy allows.",
    "sides_conflict": "Left and right of the muscles contradict the geometry of the scan; sides must not be used.",
    "muscle_missing": "A muscle that should be visible at this level was not found.",
    "muscle_gap": "A muscle is absent on a slice between slices that show it.",
    "no_slice_at_level": "No axial slice lies near the mid-plane of the disc.",
    "oblique_slice": "Axial slice and disc, or sagittal slice and spine, differ by a large angle: what is read is "
    "uncertain.",
    "different_frame": "Sagittal and axial series do not share a frame of reference; they are not combined.",
    "midlines_disagree": "The vertebral bodies do not lie in the middle of the muscles: the patient may have moved.",
    "low_contrast": "Marrow and disc, or muscle and fat, hardly differ in the picture.",
    "ghosting": "Copies of the body in the air beside it: the patient moved, or vessels pulsed.",
    "components_removed": "Post-processing removed a large part of the network's output.",
    "pieces_removed": "Post-processing removed pieces that do not continue the spine; counted, no doubt by itself.",
    "pieces_joined": "Post-processing joined parts of broken vertebrae or discs; counted, no doubt by itself.",
    "pieces_separated": "Post-processing divided touching vertebrae or discs; counted, no doubt by itself.",
    "bridges_removed": "Post-processing removed voxels of strips between neighbours; counted, no doubt by itself.",
    "cracks_filled": "Post-processing filled gaps of so many voxels in broken vertebrae; counted, no doubt by itself.",
    "holes_filled": "Post-processing filled holes of so many voxels; counted, no doubt by itself.",
    "network_uncertain": "The network was uncertain about this structure.",
    "network_misfit": "Pixels or field of view are not such as the network has learned from; it was not used.",
}

LOADING_REASONS: Final[dict[str, str]] = {
    "no_demographics": "Sex, height or weight unknown: no load was computed.",
    "implausible_demographics": "Height, weight, age or number of vertebrae outside human range: not used.",
    "extreme_demographics": "Height or body mass index so unusual that the base model is extrapolated.",
    "imputed_demographics": "Height or weight unknown: a typical value stands in, as configured.",
    "implausible_geometry": "A centroid or an area is no possible number, or the model made from them is not one of a "
    "body: no load was computed.",
    "implausible_curvature": "Centroids of vertebrae or discs that no spine can have (out of order, too near, too far, "
    "too bent): not used.",
    "lateral_curvature": "The discs lie along a line bent to the side (scoliosis): only its sagittal curve counts.",
    "implausible_posture": "With the measured curvature a person is in balance in standing only if the thorax leans by "
    "more than 15 degrees.",
    "curvature_gap": "A joint between measured ones was not measured: it keeps the base model's angle.",
    "default_curvature": "Too few named vertebrae: the base model's own curvature was used.",
    "default_strength": "No measured muscle area: the base model's own strength was used.",
    "default_position": "No measured muscle centroid: the base model's own places of muscles were used.",
    "implausible_position": "A muscle's centroid is too far from the disc, its plane or its usual place: not used, or "
    "the shift was held at the limit.",
    "muscle_saturated": "A fascicle reached its strength's limit; the load is valid unless also not_in_equilibrium.",
    "not_in_equilibrium": "Muscles cannot balance the posture, reserve moments did: the load is a lower bound.",
    "fibre_length_out_of_range": "Muscle fibres too short or too long to be active in this posture.",
    "not_converged": "The equilibrium solver did not converge: not to be used.",
    "engines_disagree": "Batch engine and OpenSim differ by more than 0.5 %.",
    "upstream_untrusted": "The names of levels or the masks of the spine are doubtful, or the load changes by more "
    "than 5 % when measurements that are flagged themselves are left out.",
}

AGREEMENT_REASONS: Final[dict[str, str]] = {
    "structure_missed": "The first reader's masks have the structure, the second reader's do not.",
    "structure_extra": "The second reader's masks have the structure, the first reader's do not.",
    "structure_cut_off": "One reader alone has the structure, and it touches the border of the image: not wholly in "
    "view, so neither missed nor extra.",
    "no_common_slices": "The two readers looked at no slice in common.",
    "not_measured": "The masks of one reader, or of both, do not give this quantity.",
    "levels_differ": "The two readers name the vertebrae differently: what depends on names is not compared.",
    "no_pairs": "There is no pair of values in this group.",
    "too_few_pairs": "Fewer than three pairs have no correlation, and one pair has no interval.",
    "too_few_persons": "The pairs come from too few persons for an interval by persons.",
    "constant_values": "All values of a reader are equal: no correlation is defined, nor is the intraclass one.",
    "constant_differences": "All differences are equal: the intraclass correlation has no interval.",
}

ANNOTATION_REASONS: Final[dict[str, str]] = {
    "study_unknown": "The annotation is of an exam that the store does not hold.",
    "series_unknown": "The annotation is of a series that the archive does not hold.",
    "series_not_chosen": "The annotation is of a series of the exam that the store did not take.",
    "slice_unknown": "The annotated image or slice number does not exist in the stack.",
    "frame_of_reference_differs": "The mask names another frame of reference than the stack.",
    "label_unknown": "The class table does not know the label; what was drawn with it is left out.",
    "label_other_plane": "The label belongs to the other plane (a muscle on a sagittal image, a disc on an axial one).",
    "mask_grid_differs": "Size, spacing or direction of the mask's grid are not those of the stack.",
    "mask_shifted": "The mask lies beside its place in the stack.",
    "mask_mirrored": "The mask is a mirror image of its place in the stack.",
    "mask_off_picture": "The outlines follow the picture clearly better once the mask is mirrored or shifted.",
    "mask_unreadable": "The mask or annotation file cannot be read.",
    "mask_not_whole_numbers": "The mask holds values that are not whole numbers: probabilities or a resampled mask.",
    "annotation_empty": "Nothing is drawn: a mask or shape without a single pixel.",
    "annotation_malformed": "The shape has no usable coordinates.",
    "annotation_superseded": "The same annotation is there in a later version, which is taken.",
    "annotation_outside": "A part of the shape lies outside the image.",
    "polygon_crosses_itself": "The outline crosses itself; it is refused where its area is ambiguous.",
    "labels_overlap": "Two labels claim one pixel: the one drawn later has it; body and disc both keep it.",
    "slice_in_doubt": "A shape on this slice was refused, so what is drawn there is incomplete: the slice is not used.",
    "body_cut_off": "The vertebral body touches the border of the image: not wholly in view, left out.",
    "below_s1": "The structure lies below S1 and is left out.",
    "pedicle_suspected": "The mask of a vertebral body has a stalk at its back as thick as a pedicle.",
    "exam_incomplete": "Fewer than half of the discs from T11-T12 to L5-S1 are annotated.",
    "sides_swapped": "Muscles labelled left lie to the right of those labelled right.",
    "levels_out_of_order": "Named levels do not follow each other from cranial to caudal.",
}

SPLIT_REASONS: Final[dict[str, str]] = {
    "not_annotated": "No reader drew anything for this network on the exam: it is in no part of the network's split.",
    "no_exam_store": "The exam's images are not in the store any more (or not in its tables): it is in no part.",
    "annotation_misfit": "An annotation is damaged, or was drawn on other images than the store has now.",
    "too_few_patients": "Too few patients to have one in every part: the network is not split.",
    "same_images": "Exams of different patients hold an equal image: these patients are taken for one.",
    "one_slice": "Readers drew on a single slice of the exam for this network.",
    "rare_stratum": "The stratum (sex and vendor) has fewer patients than parts: some part has none of it.",
}

RUN_REASONS: Final[dict[str, str]] = {
    "change_held": "New weights, code or base models changed numbers; the new ones wait to be accepted.",
    "worker_killed": "The worker process died while it worked on this exam alone.",
    "timed_out": "The stage took longer than its time limit.",
    "disk_full": "The store's disk is full, or a quota is reached.",
    "internal_error": "Unexpected error in the software; see the error type in the ledger.",
    "gone": "The exam is no longer in the archive.",
}

REASONS: Final[dict[str, str]] = {
    **FILE_REASONS,
    **SERIES_REASONS,
    **EXAM_REASONS,
    **ANATOMY_REASONS,
    **LOADING_REASONS,
    **AGREEMENT_REASONS,
    **ANNOTATION_REASONS,
    **SPLIT_REASONS,
    **RUN_REASONS,
}
