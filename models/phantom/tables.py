"""Anatomical tables of the lumbar phantom, each with its source.

Levels are listed from S1 upward, because the column is built from the sacrum.
"""

from __future__ import annotations

from typing import Final

import numpy as np

# Vertebral bodies, mid-sagittal: mean of superior and inferior endplate depth, mean of anterior and posterior height,
# wedge (anterior taller positive). T11-L5: measured on the masks of Chu et al. 2015 (n = 17, corners of the outer
# contour); T9-T10 continue the trend. Left-right width: Panjabi et al. 1992 rounded, within 2 mm of the values for L5
# in ijssurgery 15:1072 Table 6.
BODY_DEPTH_MM: Final = (33.0, 33.4, 34.1, 34.3, 32.4, 30.9, 31.0, 30.0, 29.0)
BODY_HEIGHT_MM: Final = (28.5, 29.2, 29.5, 28.8, 27.9, 26.5, 24.4, 23.3, 22.5)
BODY_WEDGE_DEG: Final = (7.7, 3.0, 0.8, -0.8, -2.7, -2.3, -5.0, -4.0, -3.5)
BODY_WIDTH_MM: Final = (52.0, 50.0, 48.0, 46.0, 44.0, 42.0, 40.0, 37.0, 35.0)

# Disc below each of these levels: gap between the bodies' outer contours at half depth, and its wedge. T11/12-L4/5: as
# above (Chu et al. 2015, n = 17); L5/S1: Nepal MRI series (n = 106) for the height, wedge a working value.
DISC_GAP_MM: Final = (10.8, 10.4, 10.2, 8.9, 8.2, 7.3, 6.3, 5.6, 5.2)
DISC_WEDGE_DEG: Final = (13.0, 9.8, 7.4, 4.0, 3.9, 1.6, 1.9, 0.8, 0.4)

# Sacrum (working values): heights of S1-S5, their depth as a share of S1's, kyphosis between them, rudimentary gaps.
SACRAL_DEPTH_MM: Final = 32.5
SACRAL_WIDTH_MM: Final = 50.0
SACRAL_HEIGHT_MM: Final = (29.0, 23.5, 19.5, 17.5, 14.5)
SACRAL_TAPER: Final = (0.72, 0.75, 0.75, 0.75, 0.60)
SACRAL_KYPHOSIS_DEG: Final = (6.0, 10.0, 16.0, 18.0, 14.0)
SACRAL_GAP_MM: Final = (4.0, 2.5, 1.5, 1.2, 1.0)

# Supine sacral slope and its spread (working values from Ferguson angle 44.5 +- 9.9, n = 274, of which the slope is
# the part against the table, and recumbent lordosis 36.8 +- 13.2, n = 627, PMC6680033).
SACRAL_SLOPE_DEG: Final = (39.0, 10.0)
SACRAL_SLOPE_RANGE_DEG: Final = (15.0, 66.0)

# Sex: depth x0.90 and height x0.96 in women against men at L5 (n = 196, ijssurgery 15:1072 Table 6); the tables above
# mix sexes, so each sex takes half of the difference.
SEX_DEPTH_FACTOR: Final = {"M": 1.05, "F": 0.95}
SEX_HEIGHT_FACTOR: Final = {"M": 1.02, "F": 0.98}

# Muscle cross-sections in units of the body's width W, origin at the body's centre, x lateral, y posterior, rows L1,
# L2, L3, L4, L5, S1. Places and proportions after the normalised table of 168 axial slices, areas after MyoSegmenTUM
# (multifidus, erector spinae) and the controls of medscimonit 951651 Table 2 (psoas, quadratus): see docs/phantom.md.
# The psoas stays at the small side of the controls (the 168 slices have it smaller still). Outlines by eye.
PSOAS: Final = np.array(
    [
        # width, height, centre x, centre y
        [0.34, 0.54, 0.62, 0.16],
        [0.60, 0.82, 0.72, 0.15],
        [0.74, 1.00, 0.80, 0.12],
        [0.79, 1.05, 0.86, 0.08],
        [0.74, 0.96, 0.93, -0.04],
        [0.64, 0.84, 1.08, -0.18],
    ]
)
QUADRATUS: Final = np.array(
    [
        # length, thickness, centre x, centre y
        [0.84, 0.27, 0.98, 0.44],
        [0.98, 0.35, 1.08, 0.45],
        [1.08, 0.38, 1.20, 0.45],
        [1.10, 0.36, 1.36, 0.44],
        [0.60, 0.16, 1.46, 0.42],
        [0.01, 0.01, 1.46, 0.42],
    ]
)
MULTIFIDUS: Final = np.array(
    [
        # width, height, centre x, centre y, lean (rad): how far the ventral end turns outwards
        [0.30, 0.48, 0.22, 1.00, 0.05],
        [0.35, 0.60, 0.25, 1.03, 0.05],
        [0.40, 0.68, 0.28, 1.06, 0.08],
        [0.58, 0.84, 0.37, 1.09, 0.14],
        [0.60, 0.82, 0.41, 1.10, 0.28],
        [0.62, 0.76, 0.42, 1.08, 0.38],
    ]
)
ERECTOR: Final = np.array(
    [
        # from the transverse process along the ventral border to the lateral tip, back under the fascia to the spinous
        # tip and, within multifidus, to the start; L1 as L2
        [[0.30, 0.55], [0.62, 0.48], [1.03, 0.55], [1.36, 0.75], [1.60, 1.02], [1.46, 1.26], [1.11, 1.46], [0.67, 1.55],
         [0.25, 1.55], [0.08, 1.42], [0.16, 1.10], [0.20, 0.80]],
        [[0.30, 0.55], [0.62, 0.48], [1.03, 0.55], [1.36, 0.75], [1.60, 1.02], [1.46, 1.26], [1.11, 1.46], [0.67, 1.55],
         [0.25, 1.55], [0.08, 1.42], [0.16, 1.10], [0.20, 0.80]],
        [[0.32, 0.56], [0.66, 0.50], [1.02, 0.57], [1.35, 0.75], [1.57, 1.01], [1.43, 1.25], [1.09, 1.45], [0.64, 1.55],
         [0.28, 1.55], [0.14, 1.42], [0.20, 1.10], [0.25, 0.80]],
        [[0.42, 0.58], [0.71, 0.53], [1.01, 0.60], [1.28, 0.77], [1.46, 0.99], [1.35, 1.21], [1.04, 1.42], [0.69, 1.53],
         [0.40, 1.54], [0.28, 1.42], [0.30, 1.10], [0.34, 0.80]],
        [[0.57, 0.70], [0.77, 0.66], [0.97, 0.72], [1.12, 0.84], [1.20, 0.97], [1.13, 1.11], [0.94, 1.27], [0.71, 1.42],
         [0.53, 1.50], [0.44, 1.42], [0.44, 1.15], [0.50, 0.90]],
        [[0.67, 0.85], [0.77, 0.82], [0.87, 0.86], [0.95, 0.94], [0.98, 1.02], [0.93, 1.10], [0.83, 1.20], [0.73, 1.28],
         [0.61, 1.34], [0.57, 1.30], [0.57, 1.15], [0.61, 1.00]],
    ]
)  # fmt: skip

SPINOUS_TIP: Final = 1.52
"""Distance of the spinous tip, and of the thoracolumbar fascia over it, behind the body's centre, in W."""
