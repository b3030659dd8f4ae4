"""Base models of a run: the shipped ones or the user's own, as .osim files in the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cohort.errors import ConfigurationError
from cohort.loading.adopt import adopt_base_model, adoption_sha256
from cohort.loading.base_model import read_base_model
from models.musculoskeletal.build import Sex, base_model_sha256, build_base_model
from pipelines.config import LoadConfig

SEXES: Final[dict[str, Sex]] = {"M": "male", "F": "female"}
"""DICOM's codes and the base models' names."""


@dataclass(frozen=True)
class StoredModel:
    """One base model of a run."""

    path: Path
    """.osim file in the store, in the form that the loading stage reads."""
    sha256: str
    """Of all that it is made from."""
    origin: str
    """`shipped`, or the name of the user's file, without its folder."""


def store_base_models(store: Path, config: LoadConfig) -> dict[str, StoredModel]:
    """Model of each sex (DICOM's code), built or adopted when what it is made from is new.

    Raises ConfigurationError for a file of the user that cannot be used, with all names that it lacks.
    """
    files = {"M": config.base_models.male, "F": config.base_models.female}
    return {code: _stored(store, sex, files[code], config) for code, sex in SEXES.items()}


def _stored(store: Path, sex: Sex, file: Path | None, config: LoadConfig) -> StoredModel:
    tension, names = config.specific_tension_n_per_cm2, config.base_models.names.of_sex(sex)
    sha256 = base_model_sha256(sex, tension) if file is None else adoption_sha256(file, names)
    path = store / "models" / f"{sex}-{sha256[:12]}.osim"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"partial-{path.name}")
        if file is None:
            build_base_model(sex, partial, tension)
        else:
            adopt_base_model(file, names, partial)
            _require_readable(partial, file)
        partial.replace(path)
    return StoredModel(path=path, sha256=sha256, origin="shipped" if file is None else file.name)


def _require_readable(adopted: Path, file: Path) -> None:
    try:
        read_base_model(adopted)
    except ConfigurationError as error:
        adopted.unlink()
        raise ConfigurationError(f"base model {file.name!r}: {error}") from error
