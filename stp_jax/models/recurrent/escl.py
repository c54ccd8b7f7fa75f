"""ESCL: a ConvLSTMNet that also sees two copies of its input with frames left out.

As in GS2PM's comparison (github.com/miaomiaoToday/GS2PM), where the features of the two masked
passes are returned beside the forecast, for a contrastive loss that is not there.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from stp_jax.models.layers.precision import wide
from stp_jax.models.recurrent.convlstmnet import Stack
from stp_jax.models.rollout import scan_time
from stp_jax.typing import Array

STATES = ('own', 'shared')


class ESCL(Stack):
  """A forecaster with its own time loop (kind 'window' of `models.forecaster`).

  Frame by frame, each in three passes of the same cells: as it is, and once for each of `masks`,
  with zeros for the input frames of that range. The first pass makes the forecast.

  Attributes:
    masks: (first, end) of the input frames that a pass does not see.
    states: own: each pass remembers its own past, so that the forecast is that of a ConvLSTMNet.
      shared: upstream's cells keep their state, and the passes of a step change it one after the
      other; only at the first step each starts from zero. Its weights were trained like that.
  """
  masks: Sequence[tuple[int, int]] = ((0, 5), (5, 10))
  states: str = 'own'

  kind: ClassVar[str] = 'window'

  def __call__(
      self, frames: Array, use_true: Array, *, t_in: int, train: bool = False, truth: bool = False,
      remat: bool = False, unroll: int = 1,
  ) -> tuple[Array, Array | None, dict[str, Array]]:
    """Forecasts.

    Args:
      frames: `[B, T, H, W, C]`; those after the input are read where `use_true` `[B, T]` says so.
      t_in: input frames, always read.

    Returns:
      prediction `[B, T - t_in, H, W, C]`; context, frames 1 to t_in - 1, or None; no terms.

    Raises:
      ValueError: fields that do not fit.
    """
    del train, truth
    predictions, _ = self.roll(frames, use_true, t_in=t_in, remat=remat, unroll=unroll)
    context = predictions[:, :t_in - 1] if t_in > 1 else None
    return predictions[:, t_in - 1:], context, {}

  def roll(
      self, frames: Array, use_true: Array, *, t_in: int, remat: bool = False, unroll: int = 1,
  ) -> tuple[Array, list[Array]]:
    """Predictions of frames 1 to T - 1; what the read-out would see of each mask's last pass."""
    if self.states not in STATES:
      raise ValueError(f'ESCL: states {self.states!r}: one of {" ".join(STATES)}')
    frames, steps = wide(frames), frames.shape[1] - 1
    use = (jnp.asarray(use_true) > 0).at[:, :t_in].set(True)
    time, shared = jnp.arange(steps), self.states == 'shared'
    hidden = jnp.stack([
        (time >= first) & (time < end) & (time < t_in) for first, end in self.masks], -1)

    def body(module: Any, carry: Any, xs: Any) -> tuple[Any, Array]:
      states, own, _ = carry
      frame, known, dark, t = xs
      # `where`, not arithmetic: an unused future frame may hold anything.
      frame = jnp.where(known[:, None, None, None], frame, own)
      states, (seen, *masked) = module.passes(states, frame, dark, t == 0)
      image = module.read(seen)
      return (states, image, masked), image

    start = self.initial(frames[:, 0])
    if not shared:
      start = [start] * (1 + len(self.masks))
    xs = frames[:, :steps], use[:, :steps], hidden, time
    if self.is_initializing():
      # One step makes all variables; a scan would only cost compile time.
      at = (frames[:, 0], use[:, 0], hidden[0], time[0])
      (_, _, masked), image = body(self, (start, jnp.zeros_like(frames[:, 0]), None), at)
      return jnp.repeat(image[:, None], steps, 1), masked
    width = self.features[-1]
    if self.skip is not None and len(self.features) > self.skip:
      width += self.features[len(self.features) - 1 - self.skip]
    seen = [jnp.zeros((*frames.shape[:1], *frames.shape[2:4], width), frames.dtype)
            for _ in self.masks]
    scan = scan_time(
        body, self, length=steps, in_axes=((1, 1, 0, 0),), out_axes=1, remat=remat, unroll=unroll)
    (_, _, masked), predictions = scan(self, (start, jnp.zeros_like(frames[:, 0]), seen), xs)
    return predictions, masked

  def passes(self, states: Any, frame: Array, dark: Array, first: Array
             ) -> tuple[Any, list[Array]]:
    """All passes of a step: states, and what the read-out would see of each."""
    images = [frame] + [jnp.where(d, 0, frame) for d in dark]
    if self.states == 'own':
      pairs = [self.through(s, x) for s, x in zip(states, images, strict=True)]
      return [s for s, _ in pairs], [wide(x) for _, x in pairs]
    seen = []
    for image in images:
      states = jax.tree.map(lambda s: jnp.where(first, 0, s), states)
      states, x = self.through(states, image)
      seen.append(wide(x))
    return states, seen
