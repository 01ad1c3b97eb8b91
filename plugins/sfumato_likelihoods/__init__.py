"""Densities of data given a code: Bernoulli for binary values, normal for real ones."""
