"""The beam task: camera, lidar, radar and GPS in, the best of 64 beams out."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from stp_jax.data import beam_windows, clip_store, deepsense_features
from stp_jax.data.spec import DataSpec
from stp_jax.models import beam as networks
from stp_jax.models.beam import pretrained
from stp_jax.tasks import base, beam_augment, beam_inputs, beam_losses
from stp_jax.typing import Array, Batch, PyTree, Variables


class Beam(base.Task):
  """Trains a network on soft beam labels; scores are those of `metrics.beam`.

  Args:
    config: the run's config. spec: streams and scaling of the data.

  Raises:
    ValueError: a modality that the data or the network do not have, an unknown loss.
  """

  def __init__(self, config, spec: DataSpec):
    super().__init__(config, spec)
    self.options = config.task.beam
    self.t_in, self.t_out = config.data.t_in, config.data.t_out
    self.network = self.build_network()
    self.modalities = tuple(self.network.modalities)
    beam_windows.check_streams(spec.streams, self.modalities, spec.name)
    for missing in (self.options.missing_train, self.options.missing_test):
      beam_inputs.check_names(missing, self.modalities)
    if config.task.loss not in beam_losses.LOSSES:
      raise ValueError(f'task.loss={config.task.loss!r}: choose one of '
                       f'{" ".join(beam_losses.LOSSES)}')

  def build_network(self) -> networks.BeamFusion:
    """The network of `config.model`."""
    model = self.config.model
    backbone = dict(model.backbone, steps=self.steps, remat=model.remat)
    return networks.build(dict(name=model.name, backbone=backbone), dtype=self.config.dtype)

  @property
  def steps(self) -> int:
    """Of the network's head: 0 for the beam of the last frame alone."""
    return self.t_out if self.t_out > 1 else 0

  @property
  def length(self) -> int:
    """Frames of a sample."""
    return self.t_in

  @classmethod
  def data_spec(cls, config, stores: Sequence[clip_store.ClipStore]) -> DataSpec:
    """Streams of the first store; all stores must agree with it."""
    return beam_windows.make_spec(stores)

  def sources(self, stores: Sequence[clip_store.ClipStore], splits: Sequence[str],
              stride: int = 1) -> list[beam_windows.BeamSource]:
    return beam_windows.sources(
        stores, self.modalities, splits, t_in=self.t_in, t_out=self.t_out, stride=stride)

  def example(self) -> dict[str, np.ndarray]:
    """An empty batch of one, for shapes."""
    streams = self.spec.streams
    found = {n: np.zeros((1, self.t_in, *streams[n]['shape']), streams[n]['dtype'])
             for n in self.modalities if n != 'gps'}
    if 'gps' in self.modalities:
      found['gps'] = np.ones((1, 2, 2), np.float32)
    return dict(found, scenario=np.zeros(1, np.int32))

  def batch_shapes(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
    shapes = {k: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)
              for k, x in self.example().items()}
    return dict(shapes, beam=jax.ShapeDtypeStruct((size, self.t_out), np.int32))

  def physical(self, batch: Batch) -> dict[str, Array]:
    """What the network reads of a raw batch, see `beam_inputs.physical`."""
    return beam_inputs.physical(batch, self.spec.streams, self.options.gps)

  def init(self, rng: jax.Array) -> Variables:
    inputs = self.physical(self.example())
    variables = self.network.init({'params': rng, 'dropout': rng}, inputs, train=False)
    files = {n: f for n, f in self.options.imagenet.items() if f}
    return pretrained.insert(variables, files) if files else variables

  def adopt(self, config, variables: Variables) -> tuple[Variables, str]:
    """Another beam run as a whole; of a rebuild run its network."""
    if config.task.name == 'rebuild':
      return {k: v['fusion'] for k, v in variables.items()}, ''
    if config.task.name != 'beam':
      raise ValueError(f'init_from: a run of the task {config.task.name}; a beam run starts from '
                       'a beam or rebuild run')
    return variables, ''

  def targets(self, beam: Array) -> Array:
    """`[B, K]` indices -> `[B, K, beams]`: bells around the beam, or ones at it."""
    size = self.network.beams
    return deepsense_features.soft_labels(beam, beams=size) if self.options.soft_labels else (
        jax.nn.one_hot(beam, size))

  def cost(self, logits: Array, targets: Array) -> Array:
    """The loss `[]` of logits `[B, beams]` or `[B, K, beams]` against as many targets."""
    return jnp.mean(beam_losses.loss(
        self.config.task.loss, logits, targets.reshape(logits.shape)))

  def training_inputs(self, batch: Batch, rng: jax.Array) -> tuple[dict[str, Array], Array]:
    """Augmented inputs and beams `[B, K]`, nothing missing yet."""
    flip_rng, rng = jax.random.split(rng)
    if self.options.flip:
      batch = beam_augment.flip(batch, flip_rng, self.options.flip, self.network.beams)
    return beam_augment.augment(self.physical(batch), rng, self.options), batch['beam']

  def loss(self, variables: Variables, batch: Batch, *, rng: jax.Array, step: Array, stage: int
           ) -> tuple[Array, tuple[dict[str, Array], PyTree]]:
    del step, stage
    augment_rng, lost_rng, fill_rng, drop_rng = jax.random.split(rng, 4)
    inputs, beam = self.training_inputs(batch, augment_rng)
    if self.options.missing_train:
      there = beam_inputs.present(self.modalities, self.options.missing_train, len(beam),
                                  self.options.missing_rate, lost_rng)
      inputs = beam_inputs.hide(inputs, self.modalities, there, self.options.fill, fill_rng)
    logits, updated = self.network.apply(
        variables, inputs, train=True, rngs={'dropout': drop_rng}, mutable=['batch_stats'])
    return self.cost(logits, self.targets(beam)), ({}, updated)

  def predict(self, variables: Variables, batch: Batch, there: Array, fill: str = '',
              rng: jax.Array | None = None) -> Array:
    """Logits `[B, K, beams]` float32 with the modalities that are there.

    Args:
      there: `[M]` or `[B, M]`, 1 = there, in the order of `modalities`. fill: default the run's.
    """
    inputs = self.physical(batch)
    size = len(next(iter(inputs.values())))
    there = jnp.broadcast_to(there, (size, len(self.modalities)))
    inputs = beam_inputs.hide(inputs, self.modalities, there, fill or self.options.fill, rng,
                              batch.get('index'))
    logits = self.network.apply(variables, inputs, train=False)
    return logits.reshape(size, self.t_out, -1).astype(jnp.float32)
