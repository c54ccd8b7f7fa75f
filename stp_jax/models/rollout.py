"""The two time loops: frame by frame (recurrent networks), chunk by chunk (feed-forward ones).

Both work in patched space, `[B, T, h, w, D]`, and both own the protocol: what a network sees at a
step is the image (true or its own) and the true forcings of that time.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stp_jax.models.layers.precision import wide
from stp_jax.typing import Array

Fuse = Callable[[Array, Array | None], Array]
Terms = Mapping[str, Array]
COMBINES = ('none', 'residual', 'gated')


def combine_output(combine: str, output: Array, lagged: Array) -> Array:
  """What a network's output means: `[..., D]`, or `[..., 2 D]` under 'gated' -> image `[..., D]`.

  none: the image. residual: a correction of the lagged image. gated: sigmoid(g) * lagged + f, so
  that the network can let go of the past; f and g are the two halves of its output.
  """
  output = wide(output)
  if combine == 'none':
    return output
  if combine == 'residual':
    return lagged + output
  if combine == 'gated':
    f, g = jnp.split(output, 2, -1)
    return jax.nn.sigmoid(g) * lagged + f
  raise ValueError(f'combine {combine!r}: one of {" ".join(COMBINES)}')


def scan_time(
    body: Callable, module: nn.Module, *, length, in_axes, out_axes, remat, unroll,
) -> Callable:
  """nn.scan over time with what a network may own: parameters, batch statistics, dropout."""
  # Linen can carry neither a frozen collection nor one that does not exist.
  carry = module.is_mutable_collection('batch_stats') and 'batch_stats' in module.variables
  if remat:
    body = nn.remat(body, prevent_cse=False)
  return nn.scan(
      body,
      variable_broadcast=['params', 'constants'] + ([] if carry else ['batch_stats']),
      variable_carry='batch_stats' if carry else False,
      split_rngs={'params': False, 'dropout': True},
      in_axes=in_axes, out_axes=out_axes, length=length, unroll=unroll)


def _blend(use_true: Array, frame: Array, previous: Array) -> Array:
  # `where`, not arithmetic: 0 * NaN is NaN, and an unused future frame may hold anything.
  return jnp.where(use_true[:, None, None, None], frame, previous)


def rollout_frames(
    step: nn.Module, frames: Array, forcings: Array | None, use_true: Array, *, fuse: Fuse,
    combine: str = 'none', lag: int = 1, remat: bool = False, unroll: int = 1, carry: Any = None,
) -> tuple[Array, Terms, Any]:
  """Feeds a step module frame by frame, true ones or its own, and stacks what it predicts.

  Step t sees the image of time t and the true forcings of time t, and predicts the image of t + 1.

  Args:
    step: module with `initial_carry(frame, steps) -> carry` (`frame`: fused input of step 0) and
      `__call__(carry, frame, t) -> carry, prediction [B, h, w, D], terms {name: [B]}`. It may
      have `feedback(carry, previous) -> image [B, h, w, D]`, what it is fed for a frame that is not
      given; without, that is the prediction of that frame, `previous`.
    frames: `[B, T, h, w, D]`, the last one is never fed.
    forcings: `[B, T, h, w, P P A]` or None.
    use_true: `[B, T]`, nonzero where the true image is fed; step 0 always gets the true one.
    fuse: (image, forcings) of one time -> the network's input.
    combine: see `combine_output`; the lagged image of the prediction of t + 1 is the one that was
      fed at t + 1 - lag, or at t while there is none so old.
    remat: recompute the steps in the backward pass (a third of the memory, 1.4 times the time).
    carry: the state returned by an earlier call, to go on from; None starts afresh.

  Returns:
    predictions of frames 1 to T - 1, at least float32 `[B, T - 1, h, w, D]`; terms averaged over
    the steps; the last carry.
  """
  frames = wide(frames)
  steps = frames.shape[1] - 1
  at = lambda x, t: None if x is None else x[:, t]
  first = fuse(frames[:, 0], at(forcings, 0))
  if carry is None:
    carry = step.initial_carry(first, steps)
  if step.is_initializing():
    # One step makes all variables; a scan would only cost compile time.
    carry, output, terms = step(carry, first, jnp.zeros((), jnp.int32))
    image = combine_output(combine, output, frames[:, 0])
    return jnp.repeat(image[:, None], steps, 1), terms, carry

  def body(step, state, xs):
    carry, previous, past = state
    frame, forcing, use, t = xs
    own = step.feedback(carry, previous) if hasattr(step, 'feedback') else previous
    image = _blend(use, frame, own)
    carry, output, terms = step(carry, fuse(image, forcing), t)
    lagged = image
    if combine != 'none' and lag > 1:
      # `past` is a ring: slot t mod lag holds the image of time t.
      past = jax.lax.dynamic_update_index_in_dim(past, image, t % lag, 0)
      old = jax.lax.dynamic_index_in_dim(past, (t + 1) % lag, 0, keepdims=False)
      lagged = jnp.where(t + 1 >= lag, old, image)
    prediction = combine_output(combine, output, lagged)
    return (carry, prediction, past), (prediction, terms)

  use = jnp.asarray(use_true) > 0
  use = use[:, :steps].at[:, 0].set(True)
  ring = lag if combine != 'none' and lag > 1 else 0
  start = (carry, jnp.zeros_like(frames[:, 0]), jnp.zeros_like(
      frames[:, 0], shape=(ring, *frames.shape[:1], *frames.shape[2:])))
  scan = scan_time(
      body, step, length=steps, in_axes=((1, nn.broadcast if forcings is None else 1, 1, 0),),
      out_axes=(1, 0), remat=remat, unroll=unroll)
  (carry, *_), (predictions, terms) = scan(step, start, (
      frames[:, :steps], None if forcings is None else forcings[:, :steps], use,
      jnp.arange(steps)))
  return predictions, jax.tree.map(lambda x: jnp.mean(x, 0), terms), carry


def rollout_chunks(
    network: nn.Module, frames: Array, forcings: Array | None, *, t_in: int, t_out: int, fuse: Fuse,
    combine: str = 'none', lag: int = 1, train: bool = False, remat: bool = False, unroll: int = 1,
) -> tuple[Array, Terms]:
  """Predicts t_in frames from t_in frames, and again from those, until there are t_out.

  Chunk i reads the true forcings of frames i t_in to (i + 1) t_in - 1 and predicts the chunk after
  it; the last chunk is cropped. Gradients flow through all chunks. In training batch statistics are
  updated once per chunk.

  Args:
    network: `__call__(chunk [B, t_in, h, w, D'], train) -> prediction [B, t_in, h, w, D], terms`.
    frames: `[B, >= t_in, h, w, D]`; only the first t_in are read.
    forcings: `[B, T, h, w, P P A]` or None.
    combine: see `combine_output`. The lagged image of a frame is the newest one before the chunk
      that is a whole number of lags older.

  Returns:
    predictions, at least float32 `[B, t_out, h, w, D]`; terms averaged over the chunks.
  """
  frames = wide(frames[:, :t_in])
  chunks = -(-t_out // t_in)
  if forcings is not None:
    # No chunk that matters reads beyond the window; the overhang only has to have a shape.
    short = max(0, chunks * t_in - forcings.shape[1])
    forcings = jnp.pad(forcings, ((0, 0), (0, short), (0, 0), (0, 0), (0, 0)), mode='edge')
    forcings = forcings[:, :chunks * t_in]
  source = t_in - lag + np.arange(t_in) % lag

  def body(network, chunk, forcing):
    output, terms = network(fuse(chunk, forcing), train)
    lagged = chunk if combine == 'none' else chunk[:, source]
    prediction = combine_output(combine, output, lagged)
    return prediction, (prediction, terms)

  if chunks == 1 or network.is_initializing():
    if remat and not network.is_initializing():
      body = nn.remat(body, prevent_cse=False)
    prediction, (_, terms) = body(
        network, frames, None if forcings is None else forcings[:, :t_in])
    return jnp.concatenate([prediction] * chunks, 1)[:, :t_out], terms
  by_chunk = nn.broadcast
  if forcings is not None:
    forcings = forcings.reshape(-1, chunks, t_in, *forcings.shape[2:])
    by_chunk = 1
  scan = scan_time(
      body, network, length=chunks, in_axes=(by_chunk,), out_axes=(1, 0), remat=remat,
      unroll=unroll)
  _, (predictions, terms) = scan(network, frames, forcings)
  predictions = predictions.reshape(-1, chunks * t_in, *frames.shape[2:])
  return predictions[:, :t_out], jax.tree.map(lambda x: jnp.mean(x, 0), terms)
