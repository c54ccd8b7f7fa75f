"""The rebuild task: a trained beam network learns to do without a sensor.

One composite module, `fusion` (the network) and `rebuild` (heads and translators), trained at once:
the first stages of the network are frozen, the rest of it learns slowly, the new parts normally.
"""

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from stp_jax.models.beam import rebuild
from stp_jax.models.beam.inputs import normalize_image
from stp_jax.models.beam.maps import SENSORS
from stp_jax.tasks import beam, beam_inputs, rebuild_losses
from stp_jax.typing import Array, Batch, PyTree, Variables

LOSSES = ('translation', 'contrast', 'distance', 'fusion')
_FIRST_STAGE = re.compile(r'fusion/\w+_encoder/(conv1|bn1|layer1_\d+)(/|$)')


class Rebuild(beam.Beam):
  """Rebuilds `task.rebuild.targets` from `task.rebuild.sources`, and scores with and without.

  Starts from the weights of a beam run (`init_from`).

  Raises:
    ValueError: sensors that the network has no trunk for, or that are source and target.
  """

  def __init__(self, config, spec):
    super().__init__(config, spec)
    self.rebuilding = config.task.rebuild
    self.sources_of, self.targets_of = (
        tuple(self.rebuilding.sources), tuple(self.rebuilding.targets))
    sensors = tuple(s for s in SENSORS if s in self.modalities)
    wrong = [s for s in (*self.sources_of, *self.targets_of) if s not in sensors]
    if wrong:
      raise ValueError(f'task.rebuild: the network has no trunk for {wrong[0]!r}; choose sources '
                       f'and targets of {" ".join(sensors)}')
    if any(self.rebuilding.weights.get(n) is None for n in LOSSES):
      raise ValueError(f'task.rebuild.weights: needs {" ".join(LOSSES)}')
    self.composite = rebuild.RebuildingFusion(self.network, rebuild.Rebuild(
        self.sources_of, self.targets_of, sensors, features=self.rebuilding.features,
        width=self.network.widths[0], dropout=self.rebuilding.dropout, dtype=self.network.dtype))

  def init(self, rng: jax.Array) -> Variables:
    inputs = self.physical(self.example())
    return self.composite.init({'params': rng, 'dropout': rng}, inputs, inputs)

  def adopt(self, config, variables: Variables) -> tuple[Variables, str]:
    """A beam run becomes the network; another rebuild run the whole."""
    if config.task.name == 'beam':
      return variables, 'fusion'
    if config.task.name != 'rebuild':
      raise ValueError(f'init_from: a run of the task {config.task.name}; rebuilding starts from a '
                       'beam run')
    return variables, ''

  def label(self, path: str) -> str:
    if _FIRST_STAGE.match(path):
      return 'frozen'
    return 'slow' if path.startswith('fusion/') else 'main'

  def hidden(self, inputs: Mapping[str, Array], rng: jax.Array) -> dict[str, Array]:
    """The inputs as the network meets them: targets lost."""
    size = len(next(iter(inputs.values())))
    there = beam_inputs.present(self.modalities, self.targets_of, size)
    found = beam_inputs.hide(inputs, self.modalities, there, self.options.fill, rng)
    if self.rebuilding.image_twice and 'image' not in self.targets_of and 'image' in found:
      found['image'] = normalize_image(found['image'])
    return found

  def parts(self, logits: Array, targets: Array, features: Mapping[str, Array],
            projections: Mapping[str, Array], rebuilt: Mapping[str, Array]) -> dict[str, Array]:
    """The four losses, unweighted."""
    half = self.rebuilding.features // 2
    shared = {s: x[..., :half] for s, x in projections.items()}
    specific = {s: x[..., half:] for s, x in projections.items()}
    return dict(
        translation=rebuild_losses.translation(rebuilt, features),
        contrast=rebuild_losses.pairwise(
            rebuild_losses.contrast, shared, temperature=self.rebuilding.temperature),
        distance=rebuild_losses.pairwise(
            rebuild_losses.distance, specific, kind=self.rebuilding.distance),
        fusion=self.cost(logits, targets))

  def loss(self, variables: Variables, batch: Batch, *, rng: jax.Array, step: Array, stage: int
           ) -> tuple[Array, tuple[dict[str, Array], PyTree]]:
    del step, stage
    augment_rng, fill_rng, drop_rng, use_rng = jax.random.split(rng, 4)
    options = self.rebuilding
    inputs, beams = self.training_inputs(batch, augment_rng)
    use = None
    if options.use_rate < 1:
      use = jax.random.uniform(use_rng, (len(beams),)) < options.use_rate
    outputs, updated = self.composite.apply(
        variables, inputs, self.hidden(inputs, fill_rng), train=options.train_heads,
        train_fusion=options.train_fusion, use=use, rngs={'dropout': drop_rng},
        mutable=['batch_stats'])
    parts = self.parts(outputs[0], self.targets(beams), *outputs[1:])
    loss = sum(options.weights[n] * v for n, v in parts.items())
    return loss, ({f'term/{n}': v for n, v in parts.items()}, updated)

  def predict(self, variables: Variables, batch: Batch, there: Array, fill: str = '',
              rng: jax.Array | None = None, rebuilt: bool = False) -> Array:
    """Logits `[B, K, beams]`; `rebuilt`: the targets, lost or not, are made from the sources.

    Args:
      there: `[M]` or `[B, M]`, 1 = there. fill: default the run's.
    """
    if not rebuilt:
      inner = {k: v['fusion'] for k, v in variables.items() if 'fusion' in v}
      return super().predict(inner, batch, there, fill, rng)
    inputs = self.physical(batch)
    size = len(next(iter(inputs.values())))
    there = jnp.broadcast_to(there, (size, len(self.modalities)))
    lost = beam_inputs.hide(inputs, self.modalities, there, fill or self.options.fill, rng,
                            batch.get('index'))
    logits = self.composite.apply(variables, lost, lost)[0]
    return logits.reshape(size, self.t_out, -1).astype(jnp.float32)
