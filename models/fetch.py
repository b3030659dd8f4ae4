"""Networks by URL: contract and weights are downloaded once into the cache folder and appear there by one rename.

https anywhere, file on this machine, plain http from this machine's own loopback alone: the contract carries the hash
of the weights, so that whoever can change it on its way can change the network. `#sha256=...` after a URL pins the
contract itself, and with it everything.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from cohort.errors import ConfigurationError

TIMEOUT_S: Final = 60.0
"""Without a byte."""
LARGEST_CONTRACT_BYTES: Final = 2**20
LARGEST_WEIGHTS_BYTES: Final = 2**31
"""A hundred times the paper's networks: what is larger is another file."""
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def cache_folder() -> Path:
    """$COHORT_CACHE, else `lumbar-cohort` in the user's cache folder (XDG base directory specification)."""
    own = os.environ.get("COHORT_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lumbar-cohort"


def fetch_network(url: str) -> Path:
    """Path of the contract in the cache, with its weights beside it; downloads both if they are not there yet.

    What a URL gave once is kept: a contract that changes at its source is fetched again under another pin, or after
    its folder in the cache was deleted.

    Raises
    ------
    ConfigurationError
        if the URL is not one of a .json file in an allowed scheme, a file cannot be downloaded, or a hash is wrong
    """
    address, pin = _split(url)
    name = PurePosixPath(unquote(address.path)).name
    folder = cache_folder() / "networks" / hashlib.sha256(url.encode()).hexdigest()[:16]
    contract = folder / name
    if not contract.is_file():
        _download(address, pin, folder, name)
    elif pin:
        _check_pin(contract.read_bytes(), pin, name)
    return contract


def _split(url: str) -> tuple[SplitResult, str]:
    """Address without fragment, and the pinned hash, "" if there is none."""
    try:
        address = urlsplit(url)
    except ValueError as error:
        raise ConfigurationError("the URL of a network cannot be read") from error
    _check_scheme(address)
    if any(ord(character) < 32 for character in unquote(address.path)):
        raise ConfigurationError("the URL of a network has a character in its path that no file name can have")
    if not address.path.endswith(".json"):
        raise ConfigurationError("a network's URL is that of its .json contract; its .safetensors lies beside it")
    key, _, pin = address.fragment.partition("=")
    if address.fragment and (key != "sha256" or not _SHA256.fullmatch(pin.lower())):
        raise ConfigurationError("a network's URL is pinned by #sha256= and the 64 hexadecimal digits of its contract")
    return address._replace(fragment=""), pin.lower()


def _check_scheme(address: SplitResult) -> None:
    if address.scheme == "http" and address.hostname in _LOOPBACK:
        return
    if address.scheme not in ("https", "file"):
        raise ConfigurationError(
            f"networks are fetched by https:// or file://, not {address.scheme}://; plain http only from localhost"
        )


def _download(address: SplitResult, pin: str, folder: Path, name: str) -> None:
    """Both files into a folder beside their place, then one rename; of two processes the first wins."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        private = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
        building = private / "network"
        building.mkdir(mode=0o755)  # what is published is for whoever may read the cache; mkdtemp's is not
    except OSError as error:
        raise ConfigurationError(f"the cache folder for networks cannot be written: {error.strerror}") from error
    try:
        contract, weights = building / name, building / f"{name.removesuffix('.json')}.safetensors"
        _copy(address, contract, LARGEST_CONTRACT_BYTES)
        content = contract.read_bytes()
        _check_pin(content, pin, name)
        found = _copy(_weights_address(address), weights, LARGEST_WEIGHTS_BYTES)
        wanted = _weights_sha256(content, name)
        if found != wanted:
            raise ConfigurationError(
                f"{weights.name} as downloaded has sha256 {found[:12]}..., its contract wants {wanted[:12]}...; "
                "the download broke off, or contract and weights do not belong together"
            )
        _publish(building, folder, name)
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _publish(building: Path, folder: Path, name: str) -> None:
    try:
        building.rename(folder)
    except OSError as error:
        if not (folder / name).is_file():
            raise ConfigurationError(
                f"{name} cannot be put into the cache ({error.strerror}); delete {folder.name} there and try again"
            ) from error


def _weights_address(address: SplitResult) -> SplitResult:
    return address._replace(path=f"{address.path.removesuffix('.json')}.safetensors")


def _weights_sha256(contract: bytes, name: str) -> str:
    try:
        wanted = str(json.loads(contract)["weights_sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{name} as downloaded is not the contract of a network") from error
    return wanted


def _check_pin(contract: bytes, pin: str, name: str) -> None:
    found = hashlib.sha256(contract).hexdigest()
    if pin and found != pin:
        raise ConfigurationError(
            f"contract {name} has sha256 {found[:12]}..., the URL pins {pin[:12]}...: it was changed since; "
            "look at it, then pin the new hash or ask its author for the old file"
        )


class _CheckedRedirects(HTTPRedirectHandler):
    """A redirect may not leave the schemes that a URL may have, nor https once there (urllib alone would follow)."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        target = urlsplit(newurl)
        _check_scheme(target)
        if req.type == "https" and target.scheme != "https":
            raise ConfigurationError(
                f"the server of the network leads from https:// to {target.scheme}://: not followed"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _copy(address: SplitResult, target: Path, most_bytes: int) -> str:
    """Download one file; its sha256."""
    handlers = [ProxyHandler({})] if address.scheme == "http" else []  # a proxy has no way to our loopback
    digest, n_bytes = hashlib.sha256(), 0
    try:
        opener = build_opener(_CheckedRedirects, *handlers)
        with opener.open(address.geturl(), timeout=TIMEOUT_S) as source, target.open("wb") as file:
            while block := source.read(2**20):
                n_bytes += len(block)
                if n_bytes > most_bytes:
                    raise ConfigurationError(f"{target.name} is larger than {most_bytes} bytes: not part of a network")
                digest.update(block)
                file.write(block)
    except (OSError, HTTPException) as error:
        raise ConfigurationError(f"{target.name} cannot be downloaded: {_reason(error)}") from error
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    """What went wrong, without address or path."""
    if isinstance(error, HTTPError):
        error.close()
        return f"the server answers {error.code}"
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return type(cause).__name__
