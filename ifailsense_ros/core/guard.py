"""The out-of-distribution guard: how far a montage is from those that the checkpoint learned from.

Each cell's picture as the frozen vision tower sees it, averaged over the cell, is compared with a
Gaussian of the training cells of the same PoV: free in its widest directions, of one small variance
in all others (probabilistic PCA). What lies outside of the space that training pictures span shows
most, so that is what counts most. See docs/calibration.md for how it was chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Guard:
    """Statistics of training cells, per PoV; all float32.

    Attributes:
        mean: (N, d).
        basis: (N, k, d) orthonormal rows, the widest directions.
        variance: (N, k) along them.
        rest: (N,) variance of each of the other d - k directions.
    """

    mean: np.ndarray
    basis: np.ndarray
    variance: np.ndarray
    rest: np.ndarray

    def distances(self, cells: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance per dimension, averaged over a montage's cells: about 1 for
        a montage like those of training.

        Args:
            cells: (B, N, T, d) from `model.calibration.cell_features`.

        Returns:
            float64 (B,); NaN where the features hold NaN.
        """
        x = np.asarray(cells, np.float64) - self.mean[:, None]
        along = np.einsum("bntd,nkd->bntk", x, self.basis.astype(np.float64))
        inside = (along**2 / self.variance[:, None]).sum(-1)
        # Rounding may leave a little less than nothing.
        outside = np.maximum((x**2).sum(-1) - (along**2).sum(-1), 0.0) / self.rest[:, None]
        return ((inside + outside) / x.shape[-1]).mean((1, 2))
