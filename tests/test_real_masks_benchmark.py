"""The study on real scans, as far as it goes without them: pictures become DICOM, and masks lie on its grid."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import cv2
import nibabel
import numpy as np
import pytest

from cohort.annotations.placement import RAS_TO_LPS, place_volume
from pipelines.validation.real_scans import read_headers, stack_of

SERIES = "142_t2_SPACE"  # of a test patient, by the hash of the number


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "real_masks.py"
    spec = importlib.util.spec_from_file_location("real_masks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_pictures_become_a_series_and_their_masks_lie_on_its_grid(benchmark: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "data" / "spider_t2space"
    random = np.random.default_rng(0)
    labels = {k: random.integers(0, 3, (30, 20), dtype=np.uint8) for k in (8, 10, 12)}
    for name in ("images", "labels"):
        (source / name).mkdir(parents=True)
        for k, label in labels.items():
            cv2.imwrite(str(source / name / f"{SERIES}_slice{k}.png"), label)
    (source / "series.csv").write_text(f'new_file_name,PixelSpacing\n{SERIES},"[0.5, 0.4]"\n')
    lines = benchmark.write_spider(tmp_path / "data", tmp_path)
    assert [line["array"] for line in lines] == ["vertebral_body", "disc"]
    stack = stack_of(read_headers(tmp_path / "archive" / SERIES), "sagittal")
    image = nibabel.load(tmp_path / "spider" / lines[1]["file"])
    placement = place_volume(stack.geometry, RAS_TO_LPS @ image.affine, image.shape)
    assert placement.offset_mm < 0.001
    assert np.array_equal(placement.apply(np.asarray(image.dataobj)), np.stack(list(labels.values())) == 2)
    assert np.array_equal(stack.image, np.stack(list(labels.values())))


def test_without_the_scans_it_says_so(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["real_masks.py", "--data", str(tmp_path), "--folder", str(tmp_path / "out")])
    benchmark.main()
    assert "skipped: no real_exam, no spider_t2space" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
