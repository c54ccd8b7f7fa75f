"""What the training loop asks of a task, and the answers that suit most."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from stp_jax import stacks
from stp_jax.data import clip_store, pipeline
from stp_jax.data import spec as data_spec
from stp_jax.data.spec import DataSpec
from stp_jax.typing import Array, Batch, PyTree, Variables


class Task:
  """Owns the model, the loss and the scores of a run; `train.py` knows nothing else.

  Attributes:
    config: the run's config.
    spec: the data's shape, units and scaling; it travels in every checkpoint.
    length: frames in a window. t_in, t_out: of these given, forecast.
    required_columns: forcing columns that the model reads; a store must give these.
  """
  t_in: int
  t_out: int
  required_columns: tuple[str, ...] = ()

  def __init__(self, config, spec: DataSpec):
    self.config, self.spec = config, spec
    self.t_in, self.t_out = config.data.t_in, config.data.t_out

  @property
  def length(self) -> int:
    """Frames in a window."""
    return self.t_in + self.t_out

  @classmethod
  def data_spec(cls, config, stores: Sequence[clip_store.ClipStore]) -> DataSpec:
    """What must be known of the training data; all stores must agree with the first."""
    return data_spec.make(stores, config.data, config.data.train_splits)

  def sources(self, stores: Sequence[clip_store.ClipStore], splits: Sequence[str],
              stride: int = 1) -> list[Any]:
    """Random access to the examples of `splits`, one source a store that has some.

    A source has a length, and its items are dictionaries of numpy arrays.

    Raises:
      ValueError: no example in any store.
    """
    return pipeline.sources(stores, self.spec, splits, self.length, stride)

  def batch_shapes(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types of a training batch of `size` examples, to compile a step without data."""
    spec, lead = self.spec, (size, self.length)
    shapes = dict(frames=jax.ShapeDtypeStruct((*lead, *spec.shape), spec.dtype))
    if spec.columns:
      shapes['forcings'] = jax.ShapeDtypeStruct((*lead, len(spec.columns)), np.float32)
    return shapes

  def check_splits(self, stores: Sequence[clip_store.ClipStore]) -> None:
    """StoreError if a training clip shares time, or a source without clock, with another split."""
    clip_store.assert_disjoint(stores, self.config.data.train_splits)

  def stage(self, step: int) -> int:
    """What the compiled step depends on besides shapes; a new value compiles it again."""
    del step
    return 0

  def init(self, rng: jax.Array) -> Variables:
    """Random variables; traced under `eval_shape` too."""
    raise NotImplementedError

  def constants(self, stores: Sequence[clip_store.ClipStore], splits: Sequence[str]) -> PyTree:
    """Tables that come from the training clips and travel with the weights, or {}."""
    del stores, splits
    return {}

  def label(self, path: str) -> str:
    """How a parameter such as 'backbone/enc/kernel' learns: 'main', 'slow' or 'frozen'.

    'slow' follows `optimizer` as changed by `optimizer.slow`; 'frozen' has no gradient at all.
    """
    del path
    return 'main'

  def gathered(self, path: str) -> bool:
    """Whether a sharded parameter is gathered before the step, once: what a loop over time uses.

    Stacks of equal layers, which a scan takes one by one, stay sharded.
    """
    return not stacks.is_stacked(path.split('/'))

  def adopt(self, config, variables: Variables) -> tuple[Variables, str]:
    """How weights of another run start this one, see `config.init_from`.

    Returns:
      The variables, and the submodule that they are of; '' = of the whole model.
    """
    del config
    return variables, ''

  def predict(self, variables: Variables, batch: Batch) -> Array:
    """What `stp_jax.predict` writes: `[B, T_out, H, W, C]` in physical units."""
    raise NotImplementedError

  def validate(self, variables: Variables, batch: Batch) -> dict[str, Array]:
    """Scores `{name: [B]}` of a batch, for tasks that `stp_jax.evaluate` has no module for.

    Means over a split are written as validation/<name> during training, see `config.validation`.
    """
    del variables, batch
    return {}

  def loss(self, variables: Variables, batch: Batch, *, rng: jax.Array, step: Array, stage: int
           ) -> tuple[Array, tuple[dict[str, Array], PyTree]]:
    """`(loss [], (metrics {name: []}, updated collections))` of a training batch."""
    raise NotImplementedError
