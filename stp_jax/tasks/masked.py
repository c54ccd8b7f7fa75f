"""Masked pretraining over many domains, and tuning for one of them (GS2PM)."""

import jax
import jax.numpy as jnp

from stp_jax.models.gs2pm import masked_forecast
from stp_jax.tasks import forecast
from stp_jax.typing import Array, Batch, PyTree, Variables

STAGES = ('pretrain', 'prompt', 'full')


class Masked(forecast.Forecast):
  """GS2PM in its three stages, `config.task.stage`.

    pretrain  predicts the frames that follow, and reconstructs its input from what a mask leaves
    prompt    predicts; only the border that is added to every frame learns
    full      predicts; everything learns

  The prompt stage moves batch statistics too unless the backbone has `freeze_statistics`, as the
  original does: a frozen network whose statistics drift.

  Raises:
    ValueError: an unknown stage, or a model that has neither mask nor prompt.
  """

  def __init__(self, config, spec):
    super().__init__(config, spec)
    if config.task.stage not in STAGES:
      raise ValueError(f'task.stage={config.task.stage!r}: choose one of {" ".join(STAGES)}')
    if config.model.name != 'gs2pm':
      raise ValueError(f'task.name=masked: model {config.model.name} has no mask and no prompt; '
                       'train it with task.name=forecast')
    # A mask is one of plain frames.
    if config.task.stage == 'pretrain' and (config.model.frame, config.model.padding) != (
        'geographic', 'zero'):
      raise ValueError('task.stage=pretrain: leave model.frame and model.padding as they are; the '
                       'stages that follow have them')

  def label(self, path: str) -> str:
    """In the prompt stage all but the prompt is frozen."""
    prompt = 'prompt' in path.split('/')
    return 'main' if self.config.task.stage != 'prompt' or prompt else 'frozen'

  def loss(self, variables: Variables, batch: Batch, *, rng: jax.Array, step: Array, stage: int
           ) -> tuple[Array, tuple[dict[str, Array], PyTree]]:
    """Prediction loss, and in pretraining the reconstruction's beside it; see `Forecast.loss`."""
    if self.config.task.stage != 'pretrain':
      return super().loss(variables, batch, rng=rng, step=step, stage=stage)
    inputs = self.inputs(batch, stage)
    mask_rng, drop_rng = jax.random.split(rng)
    output, updated = self.model(stage).apply(
        variables, inputs['frames'], train=True, method=masked_forecast,
        rngs={'mask': mask_rng, 'dropout': drop_rng}, mutable=['batch_stats'])
    weight, scale = self._weight(inputs, 0), self._loss_scale(inputs)
    forecast.check_weights(
        self.config.task.term_weights, ('prediction', 'reconstruction'), 'pretraining')
    parts = {}
    for name, frames, times in [('prediction', output.prediction, slice(self.t_in, None)),
                                ('reconstruction', output.reconstruction, slice(self.t_in))]:
      error = frames.astype(jnp.float32) - inputs['frames'][:, times]
      parts[f'term/{name}'] = self.distance(error / scale, weight[:, times])
    loss = sum(self.config.task.term_weights.get(name, 1.0) * parts[f'term/{name}']
               for name in ('prediction', 'reconstruction'))
    return loss, (parts, updated)
