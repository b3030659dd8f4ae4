"""Measure the lumbar spine in clinical MRI: a domain library without Dask, CUDA or networks.

Rooms follow the data: `archive` (DICOM) -> `store` (Zarr) -> `anatomy` (measurements) -> `loading` (spine loads) ->
`tables` (Parquet, SQL). All coordinates are DICOM LPS in millimetres unless a name says otherwise.
"""

__version__ = "0.1.0"
