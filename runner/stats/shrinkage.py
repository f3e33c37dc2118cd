"""How noisy is each cell? Its own variance, drawn towards what all cells of the table have in common.

Three processes say little about a cell's noise, and the other cells' processes say much about it where all are equally
noisy. So each cell's variance is the weighted mean of its own and of the common one; the weight of the common one, in
degrees of freedom, is how alike the variances are beyond what chance explains (Smyth 2004, Stat. Appl. Genet. Mol.
Biol. 3(1), section 6.2, the "moderated t"). Equally noisy cells get one pooled variance; unlike ones keep their own.

The model draws the variances from one distribution, and a single cell that is far noisier than the others is no draw
from it: where a cell's own variance stands out (an F test), no variance below its own is used for it.
"""

from __future__ import annotations

import numpy as np

from runner.stats.distributions import f_p, log_chi_square, trigamma, trigamma_inverse
from runner.stats.estimates import Floats

# A relative latency below any clock's resolution: it keeps equal medians from having no noise at all.
RESOLUTION = 1e-9
# A variance below this share of the median one is chance or a coarse clock.
LEAST_SHARE = 1e-4
# The level at which a cell counts as noisier than the others.
NOISIER = 0.02
# Fewer degrees of freedom than this are rounding errors of none.
LEAST_FREEDOM = 1e-6


def moderated(squares: Floats, freedom: Floats) -> tuple[Floats, Floats]:
    """Each cell's variance, and the degrees of freedom that it is worth.

    Args:
        squares: each cell's sum of squared residuals.
        freedom: the degrees of freedom of each sum; 0 for a cell with a single process, which gets what is common.

    Returns:
        The variances and their degrees of freedom; nan if no cell has any.
    """
    known = freedom > LEAST_FREEDOM
    total = float(freedom[known].sum())
    if not known.any():
        return np.full(len(squares), np.nan), np.full(len(squares), np.nan)
    own = squares[known] / freedom[known]
    own = np.maximum(own, max(LEAST_SHARE * float(np.median(own)), RESOLUTION**2))
    pooled = float((own * freedom[known]).sum() / total)
    variance, df = np.full(len(squares), pooled), np.full(len(squares), total)
    prior, prior_df = _prior(own, freedom[known])
    if np.isfinite(prior_df):
        variance, df = np.full(len(squares), prior), np.full(len(squares), prior_df)
        variance[known] = (prior_df * prior + freedom[known] * own) / (prior_df + freedom[known])
        df[known] = np.minimum(prior_df + freedom[known], total)
    rest = total - freedom[known]
    others = np.maximum(pooled * total - own * freedom[known], RESOLUTION**2) / np.maximum(rest, LEAST_FREEDOM)
    is_noisier = np.zeros(len(squares), dtype=bool)
    is_noisier[known] = (rest > LEAST_FREEDOM) & (f_p(own / others, freedom[known], rest) < NOISIER)
    own_of_all = np.zeros(len(squares))
    own_of_all[known] = own
    return np.where(is_noisier, np.maximum(own_of_all, variance), variance), np.where(is_noisier, freedom, df)


def _prior(own: Floats, freedom: Floats) -> tuple[float, float]:
    """The common variance, and the degrees of freedom that it is worth: infinite if chance explains the differences."""
    if len(own) < 2:
        return float(own[0]), np.inf
    logs = np.log(own) - log_chi_square(freedom)
    excess = float(logs.var(ddof=1) - trigamma(freedom / 2).mean())
    if excess <= 0:
        return float("nan"), np.inf
    df = 2 * trigamma_inverse(excess)
    return float(np.exp(logs.mean() + log_chi_square(np.array(df)))), df
