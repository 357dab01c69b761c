"""Student's t distribution, against the table and closed forms."""

from __future__ import annotations

import math

import pytest

from nbdebug.tools.student import cumulative, quantile, two_sided_p

QUANTILES = {
    0.975: (
        12.7062, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.306, 2.26216, 2.22814, 2.20099, 2.17881,
        2.16037, 2.14479, 2.13145, 2.11991, 2.10982, 2.10092, 2.09302, 2.08596, 2.07961, 2.07387, 2.06866, 2.0639,
        2.05954, 2.05553, 2.05183, 2.04841, 2.04523, 2.04227,
    ),
    0.99: (
        31.82052, 6.96456, 4.5407, 3.74695, 3.36493, 3.14267, 2.99795, 2.89646, 2.82144, 2.76377, 2.71808, 2.681,
        2.65031, 2.62449, 2.60248, 2.58349, 2.56693, 2.55238, 2.53948, 2.52798, 2.51765, 2.50832, 2.49987, 2.49216,
        2.48511, 2.47863, 2.47266, 2.46714, 2.46202, 2.45726,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("probability", "freedom", "tabulated"),
    [(q, freedom, t) for q, row in QUANTILES.items() for freedom, t in enumerate(row, start=1)],
)
def test_quantiles_are_those_of_the_table(probability: float, freedom: int, tabulated: float) -> None:
    assert quantile(probability, freedom) == pytest.approx(tabulated, abs=1e-4)
    assert cumulative(tabulated, freedom) == pytest.approx(probability, abs=1e-6)
    assert cumulative(-tabulated, freedom) == pytest.approx(1 - probability, abs=1e-6)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 7.5, -7.5, 4000.0])
def test_one_and_two_degrees_of_freedom_have_closed_forms(t: float) -> None:
    assert two_sided_p(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(abs(t)), rel=1e-9, abs=1e-12)
    assert two_sided_p(t, 2) == pytest.approx(1 - abs(t) / math.sqrt(2 + t * t), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("t", "freedom", "p"), [(25, 3, 1.40331390e-4), (60, 6, 1.44044863e-9), (2.0, 17.776, 0.0610178227)]
)
def test_small_chances_and_broken_degrees_keep_their_digits(t: float, freedom: float, p: float) -> None:
    assert two_sided_p(t, freedom) == pytest.approx(p, rel=1e-7)


def test_with_many_degrees_of_freedom_it_is_the_normal_distribution() -> None:
    assert two_sided_p(1.96, 5000) == pytest.approx(math.erfc(1.96 / math.sqrt(2)), abs=1e-4)
