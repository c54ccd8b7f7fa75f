"""CrevNet: the forecast of its test, the loss of its training, and the buffers after it."""

import jax
import jax.numpy as jnp
import numpy as np

from stp_jax.convert import rules
from stp_jax.convert.crevnet import FAMILY
from stp_jax.models.recurrent.crevnet import CrevNet
from stp_jax.parity import runtime, weights
from stp_jax.parity.case import Case, Result, Unsupported
from stp_jax.parity.fusion import channels_first, channels_last

GROUPS = ('crevnet',)


def run(case: Case) -> Result:
  """Upstream's trainer has taken 2 from `pre_seq_length`: a triple is three frames."""
  if case.spec['kind'] != 'model' or case.spec['model'] != 'crevnet':
    raise Unsupported(f'{case.spec["kind"]} {case.spec["model"]}')
  c = case.config
  frames = channels_last(case.input('frames')).astype(np.float64 if case.double else np.float32)
  (*_, height, width, channels), t_in = frames.shape, c['pre_seq_length'] + 2
  if c['rnn_size'] != 32 * channels:
    raise Unsupported(f'rnn_size {c["rnn_size"]}; {channels} channels make {32 * channels}')
  model = CrevNet(
      channels=channels, layers=c['predictor_rnn_layers'], any_size=(height, width) != (64, 64),
      warm_up=False)
  tested, trained = (
      frames[:, :n + 2] for n in (c['n_eval'], c['pre_seq_length'] + c['aft_seq_length']))
  given = np.arange(frames.shape[1]) < t_in
  variables, unused = weights.load(case, FAMILY, lambda: model.init(
      jax.random.key(0), frames, np.ones(frames.shape[:2]), t_in=t_in))

  def predict(variables):
    use = np.broadcast_to(given[:tested.shape[1]], tested.shape[:2])
    return model.apply(variables, tested, use, t_in=t_in)[0]

  def loss_of(params):
    (new, context, terms), updated = model.apply(
        {**variables, 'params': params}, trained, np.ones(trained.shape[:2]), t_in=t_in, train=True,
        truth=True, mutable=['batch_stats'])
    every = new if context is None else jnp.concatenate([context, new], 1)
    steps = every.shape[1]
    mse = jnp.mean(jnp.square(every - trained[:, -steps:]))
    # A sum over the triples, of means over their three frames.
    return steps * (mse + 2 * jnp.mean(terms['overlap'])) / 3, updated

  # Upstream keeps channel 0 of its forecasts.
  pred = runtime.compiled(predict)(variables)[..., :1]
  (loss, updated), grads = runtime.compiled(
      jax.value_and_grad(loss_of, has_aux=True))(variables['params'])
  buffers = rules.to_torch(FAMILY, updated)
  return Result(
      {'pred': channels_first(pred), 'loss': np.asarray(loss)}
      | {f'after_train_forward/{k}': v for k, v in buffers.items()},
      loss=float(loss), grads=weights.gradients(FAMILY, grads),
      n_params=rules.parameter_count(FAMILY, variables['params'], unused),
      notes=weights.checkpoint_notes(case))
