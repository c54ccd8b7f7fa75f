"""DMVFN, dynamic multi-scale voxel flow (Hu et al. 2023, arXiv:2303.09875), as OpenSTL has it.

From two frames to the next: blocks at several scales add up a flow for each of the two and a mask
that blends what the flows fetch. A small routing network chooses which blocks a pair needs.
"""

from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from stp_jax.models.layers.conv import kernel_init
from stp_jax.models.layers.precision import wide
from stp_jax.models.layers.pyramid import laplacian_distance
from stp_jax.models.layers.voxel_flow import Block, Routing
from stp_jax.models.layers.warp import warp
from stp_jax.models.rollout import scan_time
from stp_jax.typing import Array

ROUTINGS = ('sample', 'upstream')


class DMVFN(nn.Module):
  """A forecaster from pairs of frames with its own time loop (kind 'window' of `forecaster`).

  Attributes:
    channels: C of a frame.
    features: of each block, from the coarsest; a multiple of 4.
    scales: whole factor by which each block sees the frames shrunk.
    routing_features, beta: of the routing network; beta is the share of blocks that it runs.
    gamma: a block's loss counts gamma times that of the next.
    levels: of the Laplacian pyramid; 0 = upstream's rule, 5 for frames wider than 32, else 3.
    routing: who decides which blocks run in a forecast. sample: each example. upstream: the first
      of the batch for all, and where none runs the forecast is the older frame of the pair.
    grid: of the warp, exact or upstream; see `layers.warp`.
    clip: cut predictions to [0, 1], as upstream; off, for frames in other units. A blend of pixels
      does not leave the range of the frames anyway.
    perceptual: weight of upstream's VGG19 loss; only 0, its weights are not part of this package.
    dtype: compute type of the convolutions; flows, masks and images are at least float32.
  """
  channels: int = 1
  features: Sequence[int] = (160, 160, 160, 80, 80, 80, 44, 44, 44)
  scales: Sequence[int] = (4, 4, 4, 2, 2, 2, 1, 1, 1)
  routing_features: int = 26
  beta: float = 0.5
  gamma: float = 0.8
  levels: int = 0
  routing: str = 'sample'
  grid: str = 'exact'
  clip: bool = False
  perceptual: float = 0.0
  dtype: jnp.dtype | None = None

  kind: ClassVar[str] = 'window'

  @property
  def multiple(self) -> int:
    """Frame sides must divide by this."""
    return 4 * max(self.scales)

  def setup(self):
    self._check()
    self.stu = [Block(n, s, self.dtype) for n, s in zip(self.features, self.scales)]
    self.router = Routing(self.routing_features, self.dtype, name='routing')
    self.l1 = nn.Dense(len(self.features), kernel_init=kernel_init('torch'))

  def __call__(
      self, frames: Array, use_true: Array, *, t_in: int, train: bool = False, truth: bool = False,
      remat: bool = False, unroll: int = 1, draws: Array | None = None,
  ) -> tuple[Array, Array | None, dict[str, Array]]:
    """Forecasts frame by frame from the last two, true ones or its own.

    Args:
      frames: `[B, T, H, W, C]`; those after the input are read where `use_true` `[B, T]` says so.
      t_in: input frames, always read; a single one is taken twice (no motion).
      train: predict the input's frames from its pairs too, and let gradients reach the routing.
      truth: give the term `laplacian`, the published loss (without its VGG19 part): of every block,
        weighted by gamma, averaged over the frames that are predicted.
      draws: `[T - 2, B, blocks]`, 1 where a block runs, for the pairs of frames (0, 1), (1, 2) ...
        None: in training drawn from the generator 'dropout' by the routing's probabilities; in a
        forecast, or without a generator, the blocks of probability 1/2 and the likeliest one.

    Returns:
      prediction `[B, T - t_in, H, W, C]`; context, frames 2 to t_in - 1, or None; terms.

    Raises:
      ValueError: sides that do not divide by `multiple`.
    """
    h, w = frames.shape[2:4]
    if h % self.multiple or w % self.multiple:
      raise ValueError(f'DMVFN: frames of {h} x {w} do not divide by {self.multiple}; pad them')
    known = jnp.asarray(use_true) > 0
    if t_in == 1:
      frames, known = (jnp.concatenate([x[:, :1], x], 1) for x in (frames, known))
      t_in = 2
    frames, known = wide(frames), known.at[:, :t_in].set(True)
    first = 1 if train else t_in - 1  # the newer frame of the first pair
    steps = frames.shape[1] - 1 - first

    def body(module, state, xs):
      older, own = state
      frame, use, target, chosen = xs
      # `where`, not arithmetic: an unused future frame may hold anything.
      newer = jnp.where(use[:, None, None, None], frame, own)
      own, merged = module.predict_next(older, newer, train, chosen)
      loss = jnp.zeros(frame.shape[:1], frame.dtype)
      if truth:
        loss = module.loss(module.distances(merged, target))
      return (newer, own), (own, loss)

    start = (frames[:, first - 1], jnp.zeros_like(frames[:, 0]))
    if draws is not None:
      draws = jnp.asarray(draws, frames.dtype)[-steps:]
    if self.is_initializing():
      # One step makes all variables; a scan would only cost compile time.
      xs = (frames[:, first], known[:, first], frames[:, first], None)
      _, (own, loss) = body(self, start, xs)
      predicted, losses = jnp.repeat(own[:, None], steps, 1), loss[None]
    else:
      scan = scan_time(
          body, self, length=steps, in_axes=((1, 1, 1, nn.broadcast if draws is None else 0),),
          out_axes=(1, 0), remat=remat, unroll=unroll)
      last = first + steps
      _, (predicted, losses) = scan(
          self, start,
          (frames[:, first:last], known[:, first:last], frames[:, first + 1:], draws))
    count = t_in - 1 - first  # of context
    context = predicted[:, :count] if count else None
    return predicted[:, count:], context, {'laplacian': jnp.mean(losses, 0)} if truth else {}

  def predict_next(
      self, older: Array, newer: Array, train: bool = False, draws: Array | None = None,
  ) -> tuple[Array, list[Array]]:
    """Two frames `[B, H, W, C]` -> the next one, and for every block the one that its loss sees.

    draws: `[B, blocks]`, see `__call__`.
    """
    chosen = self._choose(older, newer, train, draws)
    flow = jnp.zeros((*older.shape[:-1], 4), older.dtype)
    mask, fetched, merged = flow[..., :1], (older, newer), []

    def fetch(flow, mask):
      a, b = (warp(image, f, grid=self.grid) for image, f in (
          (older, flow[..., :2]), (newer, flow[..., 2:])))
      share = nn.sigmoid(mask)
      image = a * share + b * (1 - share)
      if self.clip:
        # `where`, not `clip`, whose gradient at 0 and 1 themselves is half that of the inside.
        image = jnp.where(image < 0, 0, jnp.where(image > 1, 1, image))
      return (a, b), image

    for i, block in enumerate(self.stu):
      flow_step, mask_step = block(jnp.concatenate([older, newer, *fetched, mask], -1), flow)
      if train and i < len(self.stu) - 1:
        # Upstream supervises all blocks but the last as if they were chosen.
        merged.append(fetch(flow + flow_step, mask + mask_step)[1])
      gate = chosen[:, i, None, None, None]
      flow, mask = flow + gate * flow_step, mask + gate * mask_step
      fetched, image = fetch(flow, mask)
    merged.append(image)
    if self.routing == 'upstream' and not train:
      idle = jnp.all(chosen == 0, 1)[:, None, None, None]
      image = jnp.where(idle, older, image)
    return image, merged

  def distances(self, merged: Sequence[Array], target: Array) -> list[Array]:
    """Laplacian distance `[B]` of every block's image to the target; its holes do not count."""
    levels = self.levels or (5 if target.shape[2] > 32 else 3)
    seen = jnp.isfinite(target)
    fill = lambda image: jnp.where(seen, target, jax.lax.stop_gradient(image))
    return [laplacian_distance(image, fill(image), levels) for image in merged]

  def loss(self, distances: Sequence[Array]) -> Array:
    """The published loss `[B]` without its VGG19 part: later blocks count more."""
    last = len(distances) - 1
    return sum(self.gamma ** (last - i) * distance for i, distance in enumerate(distances))

  def _choose(self, older: Array, newer: Array, train: bool, draws: Array | None) -> Array:
    """`[B, blocks]`, 0 or 1; in training its gradient is that of the probability."""
    blocks = len(self.stu)
    value = nn.sigmoid(wide(self.l1(self.router(jnp.concatenate([older, newer], -1)))))
    share = value / (jnp.sum(value, -1, keepdims=True) + 1e-6)
    chance = jnp.minimum(self.beta * blocks * share, 1)
    if draws is None:
      if train and self.has_rng('dropout'):
        draws = jax.random.uniform(self.make_rng('dropout'), chance.shape) < chance
      else:
        draws = chance >= jnp.minimum(0.5, jnp.max(chance, -1, keepdims=True))
    draws = jax.lax.stop_gradient(draws.astype(chance.dtype))
    if train:
      return draws + chance - jax.lax.stop_gradient(chance)
    return jnp.broadcast_to(draws[:1], draws.shape) if self.routing == 'upstream' else draws

  def _check(self) -> None:
    if len(self.features) != len(self.scales) or not self.features:
      raise ValueError(
          f'DMVFN: {len(self.features)} features, {len(self.scales)} scales; give one per block')
    if any(n % 4 or n < 4 for n in self.features):
      raise ValueError(f'DMVFN: features {tuple(self.features)}: multiples of 4')
    if any(s != int(s) or s < 1 for s in self.scales):
      raise ValueError(f'DMVFN: scales {tuple(self.scales)}: whole numbers, at least 1')
    if self.routing not in ROUTINGS:
      raise ValueError(f'DMVFN: routing {self.routing!r}: one of {" ".join(ROUTINGS)}')
    if self.perceptual:
      raise ValueError(
          f'DMVFN: perceptual={self.perceptual}: the VGG19 loss needs trained weights that this '
          'package does not ship; set perceptual=0 and weight the term `laplacian`')
