"""The dual Newton solver against the optimality conditions and against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from cohort.loading.dual_newton import solve_equilibria


def problems(n: int, *, load: float, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    B = rng.normal(0.0, 5.0, (n, 18, 210))
    return B, rng.normal(0.0, load, (n, 18))


@pytest.mark.parametrize("load", [1.0, 50.0, 400.0, 4000.0])
def test_optimality_conditions_hold(load: float) -> None:
    B, b = problems(20, load=load)
    found = solve_equilibria(B, b)
    a, r = found.activation, found.reserve
    assert found.converged.all()
    assert (a >= 0.0).all()
    assert (a <= 1.0).all()
    np.testing.assert_allclose(np.einsum("pkn,pn->pk", B, a) + r, b, atol=1e-9 * load)
    # The gradient of the cost is balanced by B^T l with l = r, but where a bound holds.
    push = np.einsum("pkn,pk->pn", B, r)
    np.testing.assert_allclose(a, np.clip(push, 0.0, 1.0), atol=1e-6)


def test_equals_scipy() -> None:
    B, b = problems(3, load=300.0)
    found = solve_equilibria(B, b)
    for number in range(3):
        stacked = np.vstack([np.eye(210), B[number]])
        reference = lsq_linear(stacked, np.concatenate([np.zeros(210), b[number]]), (0.0, 1.0), tol=1e-14)
        np.testing.assert_allclose(found.activation[number], reference.x, atol=1e-6)


def test_a_least_activation_moves_the_lower_bound() -> None:
    B, b = problems(3, load=100.0)
    found = solve_equilibria(B, b, low=0.05)
    a, r = found.activation, found.reserve
    assert found.converged.all()
    assert a.min() == 0.05
    np.testing.assert_allclose(np.einsum("pkn,pn->pk", B, a) + r, b, atol=1e-7)
    np.testing.assert_allclose(a, np.clip(np.einsum("pkn,pk->pn", B, r), 0.05, 1.0), atol=1e-6)


def test_batch_equals_one_by_one() -> None:
    B, b = problems(8, load=200.0)
    together = solve_equilibria(B, b)
    for number in range(8):
        alone = solve_equilibria(B[number : number + 1], b[number : number + 1])
        np.testing.assert_allclose(alone.activation[0], together.activation[number], atol=1e-9)


def test_impossible_load_saturates_and_shows_in_the_reserve() -> None:
    found = solve_equilibria(np.array([[[2.0, 3.0, -1.0]]]), np.array([[100.0]]))
    np.testing.assert_allclose(found.activation, [[1.0, 1.0, 0.0]])
    np.testing.assert_allclose(found.reserve, [[95.0]])


def test_numbers_that_are_none_do_not_converge() -> None:
    B, b = problems(2, load=10.0)
    b[1] = np.nan
    found = solve_equilibria(B, b)
    assert found.converged.tolist() == [True, False]
