"""Bounded least squares with reserves, many problems at once, by a semismooth Newton method on the dual.

minimise   sum a^2 + sum r^2
such that  B a + r = b,   low <= a <= 1

(static optimisation of Crowninshield & Brand 1981 with squared activations, reserves of 1 N m). With the multipliers
l of the k equalities the minimiser of the Lagrangian is a = clip(B^T l, low, 1), r = l, so the dual is a concave,
piecewise quadratic function of k variables whose gradient b - B clip(B^T l) - l is to vanish. Its generalised Hessian
is B_free B_free^T + 1, always positive definite: Newton steps with Armijo backtracking end after a few iterations (Qi
& Sun 1993, Math Program 58:353, for the semismooth Newton method).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

TOLERANCE: Final = 1e-9
"""Largest residual of the equalities, relative to 1 + max |b|."""
MAX_ITERATIONS: Final = 300
"""Far more than any posture at the limits of what tasks allow needs (111, with weak and heavy people)."""
MAX_HALVINGS: Final = 30
ARMIJO: Final = 1e-4


@dataclass(frozen=True, eq=False)
class Equilibria:
    """Solutions of a batch."""

    activation: Floats
    """[problem, n], `low` to 1."""
    reserve: Floats
    """[problem, k], in the unit of b."""
    converged: npt.NDArray[np.bool_]
    """[problem]"""
    iterations: int
    """Newton iterations of the slowest problem."""


def solve_equilibria(B: Floats, b: Floats, *, low: float = 0.0) -> Equilibria:
    """Solve a batch of problems.

    Parameters
    ----------
    B : [problem, k, n] moment of each fascicle at full activation in each equation, N m
    b : [problem, k] moment that the fascicles have to provide, N m
    low : least activation, from 0 to below 1
    """
    multiplier = np.zeros_like(b)
    open_ = np.arange(len(b))
    iteration = 0
    for iteration in range(MAX_ITERATIONS + 1):
        Bi, bi, at = (B, b, multiplier) if len(open_) == len(b) else (B[open_], b[open_], multiplier[open_])
        demand = _through(at, Bi)
        gradient = bi - np.matmul(Bi, np.clip(demand, low, 1.0)[:, :, None])[:, :, 0] - at
        left = ~(np.abs(gradient).max(axis=1) < TOLERANCE * (1.0 + np.abs(bi).max(axis=1)))
        open_ = open_[left]
        if not len(open_) or iteration == MAX_ITERATIONS:
            break
        if not left.all():
            Bi, bi, at, demand, gradient = Bi[left], bi[left], at[left], demand[left], gradient[left]
        step = _newton_step(Bi, demand, gradient, low)
        multiplier[open_] = at + _backtrack(Bi, bi, at, step, gradient, low)[:, None] * step
    activation = np.clip(_through(multiplier, B), low, 1.0)
    converged = np.ones(len(b), dtype=bool)
    converged[open_] = False
    reserve = b - np.matmul(B, activation[:, :, None])[:, :, 0]
    return Equilibria(activation=activation, reserve=reserve, converged=converged, iterations=iteration)


def _through(multiplier: Floats, B: Floats) -> Floats:
    """B^T l for every problem: [problem, k], [problem, k, n] -> [problem, n]."""
    return np.asarray(np.matmul(multiplier[:, None, :], B)[:, 0, :])


def _newton_step(B: Floats, demand: Floats, gradient: Floats, low: float) -> Floats:
    free = (demand > low) & (demand < 1.0)
    hessian = np.matmul(B * free[:, None, :], B.transpose(0, 2, 1)) + np.eye(B.shape[1])
    return np.asarray(np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0])


def _backtrack(B: Floats, b: Floats, at: Floats, step: Floats, gradient: Floats, low: float) -> Floats:
    """Halve step lengths until the dual has grown enough (Armijo); [problem]."""
    length = np.ones(len(b))
    value = _dual(at, B, b, low)
    slope = (gradient * step).sum(axis=1)
    for _ in range(MAX_HALVINGS):
        reached = _dual(at + length[:, None] * step, B, b, low)
        short = reached < value + ARMIJO * length * slope - 1e-12 * np.abs(value)
        if not short.any():
            break
        length[short] *= 0.5
    return length


def _dual(multiplier: Floats, B: Floats, b: Floats, low: float) -> Floats:
    """Dual function, [problem], to be maximised (up to a factor of two)."""
    demand = _through(multiplier, B)
    activation = np.clip(demand, low, 1.0)
    return np.asarray(
        (multiplier * b).sum(axis=1)
        - 0.5 * (multiplier**2).sum(axis=1)
        - (demand * activation - 0.5 * activation**2).sum(axis=1)
    )
