r"""Samplers plugin: where codes to generate from come from.

A model generates :math:`x \sim p(x \mid z)` at codes of some density. The prior is the model's own
choice; the aggregate posterior

.. math:: q(z) = \frac{1}{N} \sum_{i=1}^{N} q(z \mid x_i)

is what its decoder was trained on, and a density fitted to codes after training lies between the
two (Ghosh et al., 2020). A plain autoencoder, whose codes follow no prior, generates from a fitted
one: that, and not noise from N(0, I), is what a variational one has to beat.

References:
    | From Variational to Deterministic Autoencoders (Ghosh, Sajjadi, Vergari, Black & Schölkopf, 2020)
    | https://arxiv.org/abs/1903.12436
"""

from sfumato_samplers.aggregate import AggregatePosterior
from sfumato_samplers.mixture import Gmm
from sfumato_samplers.prior import Prior

__all__ = ["AggregatePosterior", "Gmm", "Prior"]
