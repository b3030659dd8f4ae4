"""Pixels of one file in the transfer syntaxes that lose nothing (PS3.5 A.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

import gdcm
import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

COMPRESSED: Final = {
    "rle": RLELossless,
    "jpeg_lossless": JPEGLossless,
    "jpeg_lossless_sv1": JPEGLosslessSV1,
    "jpeg_ls": JPEGLSLossless,
    "jpeg_2000": JPEG2000Lossless,
}
"""Name -> transfer syntax. Not in the suite: High-Throughput JPEG 2000 and JPEG XL, which gdcm cannot encode."""


def set_pixels(data_set: Dataset, frames: Sequence[npt.NDArray[Any]], *, fragments: int = 1) -> None:
    """Set PixelData of `frames` [frame][row, column] in the transfer syntax of the file meta information.

    Parameters
    ----------
    fragments : pieces that the code stream of a frame is cut into, compressed syntaxes only; then without offset table
    """
    syntax = data_set.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        streams = [_code_stream(data_set, frame) for frame in frames]
        data_set.PixelData = encapsulate(streams, fragments_per_frame=fragments, has_bot=fragments == 1)
        data_set["PixelData"].VR = "OB"
        return
    ordered = [frame if syntax.is_little_endian else frame.astype(frame.dtype.newbyteorder(">")) for frame in frames]
    raw = b"".join(frame.tobytes() for frame in ordered)
    data_set.PixelData = raw + b"\0" * (len(raw) % 2)
    data_set["PixelData"].VR = "OW" if frames[0].dtype.itemsize == 2 else "OB"


def _code_stream(header: Dataset, frame: npt.NDArray[Any]) -> bytes:
    """Compress one frame with gdcm."""
    writer = gdcm.ImageWriter()  # holds the image: a gdcm.Image of its own has no constructor in Python
    image = writer.GetImage()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((header.Columns, header.Rows, 1))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ImplicitVRLittleEndian))
    image.SetPixelFormat(
        gdcm.PixelFormat(1, header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation)
    )
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(np.ascontiguousarray(frame).tobytes())
    image.SetDataElement(element)
    converter = gdcm.ImageChangeTransferSyntax()
    syntax = gdcm.TransferSyntax.GetTSType(str(header.file_meta.TransferSyntaxUID))
    converter.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    converter.SetInput(image)
    if not converter.Change():
        raise ValueError("gdcm cannot encode pixels of this kind")
    stream = converter.GetOutput().GetDataElement().GetSequenceOfFragments().GetFragment(0).GetByteValue().GetBuffer()
    return cast(str, stream).encode("utf-8", "surrogateescape")
