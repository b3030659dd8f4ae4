"""Write the suite."""

from __future__ import annotations

from collections.abc import Collection
from inspect import getdoc
from pathlib import Path

from cohort.errors import ConfigurationError
from models.geometry_suite.file_cases import FILE_CASES, encodings
from models.geometry_suite.geometry_cases import GEOMETRY_CASES, CaseWriter, axis_orders
from models.geometry_suite.part_cases import PART_CASES, enhanced_encodings
from models.geometry_suite.study import Study
from models.geometry_suite.truth import FILES_FOLDER, Case, Truth, write_truth


def all_cases() -> dict[str, tuple[str, CaseWriter]]:
    """Name -> (description, writer) of every case, in the order in which they are written."""
    named = (*GEOMETRY_CASES, *PART_CASES, *FILE_CASES)
    described = {write.__name__: (" ".join((getdoc(write) or "").split()), write) for write in named}
    return described | encodings() | enhanced_encodings() | axis_orders()


def write_suite(folder: Path, *, cases: Collection[str] = (), seed: int = 0) -> Truth:
    """Write DICOM files to `folder`/dicom/<case>/ and their truth to `folder`/truth.json.

    The same seed gives the same files, byte for byte, with the same versions of pydicom and gdcm.

    Parameters
    ----------
    cases : names; all cases if empty

    Raises
    ------
    ConfigurationError
        if a case is not known, or if the folder holds files already
    """
    known = all_cases()
    unknown = sorted(set(cases) - set(known))
    if unknown:
        raise ConfigurationError(f"no such cases: {', '.join(unknown)}")
    root = folder / FILES_FOLDER
    if root.exists() and any(root.iterdir()):
        raise ConfigurationError(f"the folder holds {FILES_FOLDER} files already: give another one, or remove them")
    wanted = [name for name in known if not cases or name in cases]
    truth = Truth(seed, [_write_case(root, name, known[name], seed) for name in wanted])
    write_truth(folder, truth)
    return truth


def _write_case(root: Path, name: str, case: tuple[str, CaseWriter], seed: int) -> Case:
    description, write = case
    study = Study(root, name, seed=seed)
    write(study)
    return study.truth(description)
