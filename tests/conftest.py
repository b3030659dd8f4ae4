"""Shared fixtures. Real scans are optional: tests that need them skip with a reason where they are absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

TEST_DATA = Path(os.environ.get("COHORT_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real scans (environment variable COHORT_TEST_DATA)."""
    if not TEST_DATA.is_dir():
        pytest.skip(f"real scans are not here: {TEST_DATA} (set COHORT_TEST_DATA)")
    return TEST_DATA


@pytest.fixture(scope="session")
def public_models() -> Path:
    """Folder of published base models, beside the real scans (environment variable COHORT_TEST_DATA)."""
    folder = TEST_DATA.parent / "reference" / "osim"
    if not folder.is_dir():
        pytest.skip(f"published base models are not here: {folder} (set COHORT_TEST_DATA)")
    return folder
