"""DICOM files with exactly known geometry, for anyone who writes a program that reads DICOM.

Every image carries a few marker voxels whose values are unique within its case, on a flat background; `truth.json`
says where in the patient each marker lies. A converter is right if every marker comes out once, and its affine puts it
there.

`plane` says where voxels lie, `study` writes one case, `classic`, `multiframe` and `encoding` make the files, the
`*_cases` modules say what is written, `suite` writes all of it, `truth` is the format of `truth.json`, `check` compares
what a converter made with it. docs/geometry-suite.md describes it for users.
"""

from typing import Final

SUITE_VERSION: Final = 1
"""Raised by hand whenever the same seed gives other files or another truth; `truth.json` carries it."""
