"""Moving Fashion-MNIST: clothes instead of digits, 64x64 grey, 10 -> 10; else as `moving_mnist`.

`train-images-idx3-ubyte(.gz)` and `t10k-...` of Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747)
in the folder or in `moving_fmnist/`, and `fmnist_test_seq.npy`, the published test clips, where it
is.

  python -m stp_jax.prepare moving_fmnist --in DIR --out STORE
"""

from stp_jax.data import moving_mnist
from stp_jax.data.clip_store import ClipStore

OPTIONS = dict(moving_mnist.OPTIONS, official=(
    bool, True, 'use fmnist_test_seq.npy as test split, if it is there'))
KIND = moving_mnist.Kind(
    'moving_fmnist', ('moving_fmnist', 'fashion_mnist', 'fmnist'), 'fmnist_test_seq.npy',
    licence='Fashion-MNIST: Zalando Research (MIT)',
    description='Moving Fashion-MNIST: real pictures of clothes, generated motion.')


def prepare(**options) -> ClipStore:
  """As `moving_mnist.prepare`."""
  return moving_mnist.make(KIND, **options)
