"""The train state: everything that a step reads and writes."""

import flax.struct
import jax
import optax

from stp_jax.typing import PyTree


@flax.struct.dataclass
class TrainState:
  """Attributes:
    step: `[]` int32, optimizer steps taken, skipped ones included.
    params: float32 parameters.
    model_state: other linen collections: `batch_stats`, `constants`.
    ema: averaged parameters, or None.
    opt_state: of optax.
    rng: typed key; the key of a step is `fold_in(rng, step)`.
    skipped: `[]` int32, steps whose loss or gradient was not finite.
  """
  step: jax.Array
  params: PyTree
  model_state: PyTree
  ema: PyTree
  opt_state: optax.OptState
  rng: jax.Array
  skipped: jax.Array

  def variables(self, raw: bool = False) -> dict[str, PyTree]:
    """What `model.apply` takes: the average where there is one, unless `raw`."""
    params = self.params if raw or self.ema is None else self.ema
    return {'params': params, **self.model_state}
