"""Base models of a run: the shipped ones or the user's own, as .osim files in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cohort.errors import ConfigurationError, RefusedError
from cohort.loading.adopt import adopt_base_model, adoption_sha256
from cohort.loading.base_model import BaseModel, read_base_model
from cohort.loading.personalise import personalise
from cohort.loading.subject import LoadingSubject
from models.musculoskeletal.build import Sex, base_model_sha256, build_base_model
from pipelines.config import LoadConfig

SEXES: Final[Mapping[Literal["M", "F"], Sex]] = {"M": "male", "F": "female"}
"""DICOM's codes and the base models' names."""
MASS_ABOVE_L5_S1: Final = (0.40, 0.70)
"""Share of body mass (own choice): 0.45 to 0.60 in the models that the tests know; without legs it is above 0.75. All
masses are scaled to a person's, so that a model without legs would give everybody too heavy a trunk."""


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
    return {code: _stored(store, code, files[code], config) for code in SEXES}


def _stored(store: Path, code: Literal["M", "F"], file: Path | None, config: LoadConfig) -> StoredModel:
    sex = SEXES[code]
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
            _require_person(partial, file, code)
        partial.replace(path)
    return StoredModel(path=path, sha256=sha256, origin="shipped" if file is None else file.name)


def _require_person(adopted: Path, file: Path, sex: Literal["M", "F"]) -> None:
    """Raise ConfigurationError unless the adopted model can be read and is that of a whole person, legs included."""
    try:
        base = read_base_model(adopted)
        _require_legs(base)
        own = LoadingSubject(exam_id=base.name, sex=sex, height_m=base.height_m, mass_kg=base.total_mass_kg)
        personalise(base, [own])
    except (ConfigurationError, RefusedError) as error:
        adopted.unlink()
        raise ConfigurationError(f"base model {file.name!r}: {error}") from error


def _require_legs(base: BaseModel) -> None:
    low, high = MASS_ABOVE_L5_S1
    share = float(base.mass_kg[base.distal[0]].sum()) / base.total_mass_kg
    if not low <= share <= high:
        raise ConfigurationError(
            f"{share:.0%} of its mass is above L5/S1, of a whole body {low:.0%} to {high:.0%}; are legs missing?"
        )
