"""Networks by name, path and URL: hashes, pins, the cache, and what a contract may not say."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request

import pytest
import torch
from network_contracts import SMALL_CONTRACT as CONTRACT
from safetensors.torch import load_file, save_file

from cohort.errors import ConfigurationError
from models.fetch import _CheckedRedirects, cache_folder
from models.registry import (
    file_sha256,
    find_contract,
    load_network,
    read_contract,
    save_network,
    shipped_networks,
)
from models.vnet import VNet
from pipelines.segment import check_networks


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Folder of a network's author."""
    save_network(tmp_path / "author", CONTRACT, VNet(CONTRACT.config).state_dict())
    return tmp_path / "author"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COHORT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(source: Path) -> Iterator[str]:
    """The author's folder on a server of this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(source))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def _change(path: Path, **values: object) -> str:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return str(path)


def test_every_shipped_network_has_contract_and_card() -> None:
    assert {"disc", "muscle", "vertebral_body"} <= set(shipped_networks())
    for name in shipped_networks():
        assert find_contract(name).with_suffix(".md").is_file()
        assert read_contract(name).name == name


def test_a_file_url_is_copied_once_and_stays_as_it_was(source: Path, cache: Path) -> None:
    url = (source / "own.json").as_uri()
    contract = read_contract(url)
    before = {path.name: path.stat().st_mtime_ns for path in find_contract(url).parent.iterdir()}
    assert set(before) == {"own.json", "own.safetensors"}
    shutil.rmtree(source)
    assert read_contract(url) == contract
    assert isinstance(load_network(url, contract.weights_sha256, "cpu"), VNet)
    assert {path.name: path.stat().st_mtime_ns for path in find_contract(url).parent.iterdir()} == before
    assert [path.name for path in (cache / "networks").iterdir()] == [find_contract(url).parent.name]


def test_a_network_is_fetched_from_a_server_of_this_machine(site: str, source: Path) -> None:
    contract = read_contract(f"{site}/own.json?token=1")
    network = load_network(f"{site}/own.json?token=1", contract.weights_sha256, "cpu")
    half = load_file(source / "own.safetensors")
    assert all(torch.equal(value, half[name].float()) for name, value in network.state_dict().items() if value.ndim)


def test_a_pinned_contract_is_taken_and_a_changed_one_refused(site: str, source: Path) -> None:
    pinned = f"{site}/own.json#sha256={file_sha256(source / 'own.json')}"
    assert read_contract(pinned).name == "own"
    cached = find_contract(pinned)
    _change(cached, spacing_mm=3.0)
    with pytest.raises(ConfigurationError, match=r"the URL pins .*changed"):
        read_contract(pinned)
    shutil.rmtree(cached.parent)
    _change(source / "own.json", spacing_mm=3.0)
    with pytest.raises(ConfigurationError, match="the URL pins"):
        read_contract(pinned)


def test_a_download_whose_hash_is_wrong_leaves_nothing(site: str, source: Path, cache: Path) -> None:
    with (source / "own.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ConfigurationError, match=r"own\.safetensors as downloaded has sha256"):
        read_contract(f"{site}/own.json")
    assert list((cache / "networks").iterdir()) == []


def test_what_cannot_be_downloaded_is_named_without_its_path(site: str, source: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^other\.json cannot be downloaded: the server answers 404$"):
        read_contract(f"{site}/folder/other.json")
    with pytest.raises(ConfigurationError, match=r"^none\.json cannot be downloaded: No such file or directory$"):
        read_contract((source / "none.json").as_uri())


def test_a_redirect_does_not_leave_the_allowed_schemes() -> None:
    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", "http://example.org/own.json")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(ConfigurationError, match="only from localhost"):
                read_contract(f"http://127.0.0.1:{server.server_address[1]}/own.json")
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://example.org/own.json", "only from localhost"),
        ("s3://bucket/own.json", "https:// or file://"),
        ("https://example.org/own.safetensors", r"that of its \.json contract"),
        ("https://example.org/own.json#sha256=12", "64 hexadecimal digits"),
        ("https://example.org/own.json#md5=12", "64 hexadecimal digits"),
        ("https://example.org/own%00.json", "no file name can have"),
    ],
)
def test_urls_that_are_not_taken(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        find_contract(url)


def test_the_cache_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COHORT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "lumbar-cohort"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"plane": "coronal"}, "plane 'coronal', this version knows sagittal and axial"),
        ({"classes": "disc"}, "classes is a list"),
        ({"classes": []}, "n_classes of a network is a whole number from 1"),
        ({"classes": ["disc", "disc"]}, "each can be there once"),
        ({"levels": "4"}, "levels of a network is a whole number"),
        ({"activation": "tanh"}, "activation is one of"),
        ({"spacing_mm": -1}, "spacing_mm"),
        ({"spacing_mm": "fine"}, "spacing_mm"),
        ({"max_side_px": 2}, "max_side_px 2, at least 4"),
        ({"normalisation": "z"}, "normalisation 'z'"),
        ({"annotated_patients": {"training": [7]}}, "annotated_patients are lists"),
        ({"weights_sha256": "abc"}, "64 lower-case hexadecimal"),
    ],
)
def test_impossible_contracts_are_refused_in_words(source: Path, values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_contract(_change(source / "own.json", **values))


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[]", "one JSON object")])
def test_files_that_are_no_contract(source: Path, text: str, message: str) -> None:
    (source / "own.json").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_contract(str(source / "own.json"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"base_channels": 4}, "is not the network of its contract"),
        ({"levels": 3}, "tensors differ"),
        ({"activation": "relu"}, "instead of none"),
        ({"classes": ["disc", "vertebral_body"]}, "head"),
    ],
)
def test_weights_of_another_network_than_the_contracts(source: Path, values: dict[str, object], message: str) -> None:
    path = _change(source / "own.json", **values)
    with pytest.raises(ConfigurationError, match=message):
        load_network(path, read_contract(path).weights_sha256, "cpu")


def test_weights_that_cannot_be_used(source: Path) -> None:
    path, weights = source / "own.json", source / "own.safetensors"
    broken = {name: value.clone() for name, value in load_file(weights).items()}
    broken["head.bias"][0] = torch.inf
    save_file(broken, weights)
    _change(path, weights_sha256=file_sha256(weights))
    with pytest.raises(ConfigurationError, match=r"not finite \(head\.bias\)"):
        load_network(str(path), file_sha256(weights), "cpu")
    weights.write_bytes(b"no weights")
    with pytest.raises(ConfigurationError, match="cannot be read as safetensors"):
        load_network(str(path), file_sha256(weights), "cpu")
    weights.unlink()
    with pytest.raises(ConfigurationError, match="missing beside"):
        load_network(str(path), "0" * 64, "cpu")


def test_a_network_of_other_classes_or_plane_is_refused_before_a_run(source: Path) -> None:
    own, networks = source / "own.json", {name: name for name in ("disc", "vertebral_body", "muscle")}
    assert check_networks({**networks, "disc": str(own)})["disc"][0] == str(own)
    for values in ({"plane": "axial"}, {"plane": "sagittal", "classes": ["disc_left", "disc_right"]}):
        with pytest.raises(ConfigurationError, match=r"as disc network this version takes disc, .* sagittal"):
            check_networks({**networks, "disc": _change(own, **values)})


def test_the_hash_of_a_network_changes_with_what_changes_masks_alone() -> None:
    told = dataclasses.replace(CONTRACT, training_data="more", trained_on="cpu", credit="somebody")
    assert told.sha256 == CONTRACT.sha256
    for values in ({"spacing_mm": 1.0}, {"max_side_px": 384}, {"classes": ("a",)}, {"weights_sha256": "0" * 64}):
        assert dataclasses.replace(CONTRACT, **values).sha256 != CONTRACT.sha256


@pytest.mark.parametrize("target", ["http://localhost/own.json", "http://127.0.0.1/own.json", "file:///own.json"])
def test_nothing_leads_away_from_https(target: str) -> None:
    request = Request("https://example.org/own.json")
    with pytest.raises(ConfigurationError, match="leads from https://"):
        _CheckedRedirects().redirect_request(request, None, 302, "Found", {}, target)  # type: ignore[arg-type]


def test_the_cache_can_be_read_by_whoever_the_umask_allows(source: Path) -> None:
    before = os.umask(0o022)
    try:
        folder = find_contract((source / "own.json").as_uri()).parent
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def test_a_contract_of_a_giant_is_refused_before_memory_is_taken_for_it(source: Path) -> None:
    path = _change(source / "own.json", levels=7, base_channels=1024, max_side_px=256)
    with pytest.raises(ConfigurationError, match="tensors differ"):
        load_network(path, read_contract(path).weights_sha256, "cpu")


def test_weights_too_large_for_half_precision_are_not_saved_and_the_old_ones_stay(source: Path) -> None:
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    weights = VNet(CONTRACT.config).state_dict()
    weights["head.bias"][0] = 1e6
    with pytest.raises(ConfigurationError, match=r"own is not saved: head\.bias is not finite"):
        save_network(source, CONTRACT, weights)
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before


def test_a_save_that_breaks_off_between_the_files_is_noticed(source: Path) -> None:
    contract = source / "own.json"
    old = contract.read_bytes()
    contract.unlink()
    contract.mkdir()  # the second file cannot be put in its place
    with pytest.raises(OSError, match=r"own\.json"):
        save_network(source, CONTRACT, VNet(CONTRACT.config).state_dict())
    assert {path.name for path in source.iterdir()} == {"own.json", "own.safetensors"}
    contract.rmdir()
    contract.write_bytes(old)
    with pytest.raises(ConfigurationError, match=r"own\.safetensors have sha256"):
        load_network(str(contract), read_contract(str(contract)).weights_sha256, "cpu")
