"""Lean fraction of muscles: the receive coil taken out of the picture, then one intensity between muscle and fat.

A receive coil makes everything near the skin brighter, so that deep fat can be darker than superficial muscle. Its
field is found from the muscles and the fat around them, in turn with the division into the two tissues (after Wells et
al., IEEE Trans. Med. Imaging 1996, with a polynomial for the field), and the threshold is that of Otsu (IEEE Trans. SMC
1979) on what is left. The result is a share of dark pixels; it has not been compared with a proton-density fat
fraction.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np
import numpy.typing as npt

from cohort.anatomy.orientation import Orientation, standing_order
from cohort.geometry import Floats
from cohort.stacks import ImageStack, Labels

FAT_MARGIN_MM = 8.0
"""Muscle and fat are told apart in the muscles widened by this, so that fat between and around them is in the sample
even in lean people."""
MIN_SEPARABILITY = 0.72
"""Otsu's share of variance between classes; one normal distribution cut in two gives 2 / pi = 0.64, so below this there
are not two tissues to tell apart."""
MIN_LEAN = 0.3
"""Less lean muscle than this in a stack means that fat is not its brighter tissue (fat suppression): up to 54 % of
trunk muscle may be fat in older adults (Sions 2017)."""
POWERS = np.array([p for p in product(range(3), range(4), range(4)) if 0 < sum(p) <= 3])
"""[18, 3] of slice, row and column: the logarithm of the coil's field is a polynomial of degree three. Of degree two it
left muscle and fat of a fifth of the tried phantom stacks unseparated that this one separates."""
SAMPLED_SLICES = 10
MAX_SAMPLES = 4000
"""Enough for 20 coefficients; more take time and change the result by less than 0.01."""
TURNS = 3
"""Of dividing and fitting; more change the result by less than 0.01."""
STIFFNESS = 1e-3
"""Penalty on the field's coefficients per pixel: holds it where there are neither muscles nor fat. Own choice."""
LOOSE = 0.25
"""Residual (log) from which a pixel counts less than half: fat is brighter than muscle by 0.5 to 1."""

Index = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]


@dataclass(frozen=True, eq=False)
class LeanRule:
    """What is lean in one stack."""

    coefficients: Floats
    """[18] of `POWERS`, for coordinates from -1 to 1 across the stack."""
    threshold: float
    """Corrected intensity below which a pixel is lean."""
    order: Orientation
    """Brings the stack into standing order, so that the rule does not depend on how it is stored."""

    def lean(self, image: npt.NDArray[np.uint16], labels: Labels) -> npt.NDArray[np.bool_]:
        """[slice, row, column] Is the pixel in a muscle, and lean?"""
        return self.order.restore(self._standing(self.order.apply(image), self.order.apply(labels) > 0))

    def _standing(self, image: npt.NDArray[np.uint16], found: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        at = [_powers(np.arange(size), size) for size in found.shape]
        terms = [tuple(int(power) for power in row) for row in POWERS]
        for k in np.flatnonzero(found.any(axis=(1, 2))):
            plane = np.zeros((4, 4))
            for (along, down, across), coefficient in zip(terms, self.coefficients, strict=True):
                plane[down, across] += coefficient * at[0][along, k]
            rows, columns = (np.flatnonzero(found[k].any(axis=axis)) for axis in (1, 0))
            box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            field = at[1][:, box[0]].T @ plane @ at[2][:, box[1]]
            found[k][box] &= image[k][box] < self.threshold * np.exp(field.astype(np.float32))
        return found


def lean_rule(stack: ImageStack, labels: Labels) -> tuple[LeanRule | None, float | None]:
    """Rule of one stack, and Otsu's separability (0 to 1) of muscle and fat in it.

    No rule where the intensities do not fall into two groups (below `MIN_SEPARABILITY`) or the brighter one is not fat
    (`MIN_LEAN`); neither rule nor separability where there are no muscles or the picture is constant around them.

    Parameters
    ----------
    labels : [slice, row, column] cleaned muscles
    """
    order = standing_order(stack.geometry, "axial")
    standing = order.apply(labels)
    index, inside = _sample(standing, order.geometry(stack.geometry).spacing_mm)
    values = order.apply(stack.image)[index].astype(np.float64)
    if not len(values) or values.min() == values.max():
        return None, None
    terms = _terms(index, standing.shape)
    coefficients = _coil(values, terms, inside)
    flat = values * np.exp(-terms @ coefficients)
    threshold, separability = otsu(flat)
    if separability < MIN_SEPARABILITY or np.mean(flat[inside] < threshold) < MIN_LEAN:
        return None, separability
    return LeanRule(coefficients, threshold, order), separability


def _sample(labels: Labels, spacing_mm: tuple[float, float]) -> tuple[Index, npt.NDArray[np.bool_]]:
    """Places in the widened muscles of some slices, and whether they lie in a muscle itself."""
    reach = [max(round(FAT_MARGIN_MM / spacing), 1) for spacing in spacing_mm]
    kernel = np.ones((2 * reach[0] + 1, 2 * reach[1] + 1), np.uint8)  # a rectangle is quick
    shown = np.flatnonzero(labels.any(axis=(1, 2)))
    chosen = shown[:: max(len(shown) // SAMPLED_SLICES, 1)]
    near = [cv2.dilate((labels[k] > 0).astype(np.uint8), kernel) for k in chosen]
    places = np.concatenate(
        [[], *(k * near[0].size + np.flatnonzero(plane) for k, plane in zip(chosen, near, strict=True))]
    )
    places = places.astype(np.intp)[:: max(len(places) // MAX_SAMPLES, 1)]
    slices, rows, columns = np.unravel_index(places, labels.shape)
    return (slices, rows, columns), labels.ravel()[places] > 0


def _terms(index: Index, shape: tuple[int, ...]) -> Floats:
    """[n, 18] of `POWERS`."""
    at = [_powers(one, size) for one, size in zip(index, shape, strict=True)]
    return np.asarray(np.prod([table[POWERS[:, axis]] for axis, table in enumerate(at)], axis=0).T)


def _powers(index: npt.NDArray[np.intp], size: int) -> Floats:
    """[4, n] powers 0 to 3 of an index scaled to -1 to 1 across the stack."""
    at = 2.0 * index / max(size - 1, 1) - 1.0
    return np.stack([np.ones_like(at), at, at**2, at**3])


def _coil(values: Floats, terms: Floats, inside: npt.NDArray[np.bool_]) -> Floats:
    """[18] coefficients of the field that separates muscle and fat best; zeros where none does better.

    Dividing and fitting in turn ends near where it starts, so it starts twice: from the picture as it is, and from a
    field fitted to the muscles alone, most of which is lean.
    """
    log = np.log(np.maximum(values, 1.0))
    flat = np.zeros(terms.shape[1])
    muscle = _fitted(log[inside], terms[inside], np.zeros(int(inside.sum())), flat)
    best, best_separability = flat, otsu(values)[1]
    for coefficients in (flat, muscle):
        for _ in range(TURNS):
            corrected = values * np.exp(-terms @ coefficients)
            fat = corrected > otsu(corrected)[0]
            coefficients = _fitted(log, terms, fat.astype(np.float64), coefficients)
        separability = otsu(values * np.exp(-terms @ coefficients))[1]
        if separability > best_separability:
            best, best_separability = coefficients, separability
    return best


def _fitted(log: Floats, terms: Floats, fat: Floats, before: Floats) -> Floats:
    """Least squares for the field, the level of muscle and the step from muscle to fat; pixels that the field `before`
    explains badly count less (Cauchy weights)."""
    design = np.column_stack([terms, np.ones(len(log)), fat])
    rest = log - terms @ before
    level = np.median(rest[fat == 0]), np.median(rest[fat > 0]) if fat.any() else 0.0
    weights = 1 / (1 + ((rest - np.where(fat > 0, level[1], level[0])) / LOOSE) ** 2)
    weighted = design * weights[:, None]
    stiffness = np.diag(np.r_[np.full(terms.shape[1], STIFFNESS * len(log)), 0.0, 0.0])
    solution = np.linalg.lstsq(weighted.T @ design + stiffness, weighted.T @ log, rcond=1e-9)[0]
    return np.asarray(solution[: terms.shape[1]])


def otsu(values: Floats) -> tuple[float, float]:
    """Threshold of Otsu between the two groups of `values` [n], and the share of variance between them."""
    low, high = float(values.min()), float(np.quantile(values, 0.995))
    if high <= low:
        return high, 0.0
    count, edges = np.histogram(np.minimum(values, high), bins=256, range=(low, high))
    middle = (edges[:-1] + edges[1:]) / 2
    share = count / count.sum()
    weight, first = np.cumsum(share), np.cumsum(share * middle)
    inside = (weight > 0) & (weight < 1)
    between = np.zeros(256)
    between[inside] = (first[-1] * weight - first)[inside] ** 2 / (weight * (1 - weight))[inside]
    best = int(np.argmax(between))
    return float(edges[best + 1]), float(between[best] / (share @ (middle - first[-1]) ** 2))
