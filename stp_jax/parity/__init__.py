"""Comparison with numbers measured on the published PyTorch code, from case folders alone.

`python -m stp_jax.parity DIR...` runs them. One module per family says how a case's upstream names
become our models; nowhere else in the package are they known.
"""
