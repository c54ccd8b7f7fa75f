"""The forecast model around every backbone: anchor, turn, pad, patch, roll out, and all back."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stp_jax.models import anchor as anchors
from stp_jax.models.fusion import Fusion
from stp_jax.models.globe import Globe
from stp_jax.models.layers.patches import patchify, unpatchify
from stp_jax.models.layers.periodic import periodic_columns
from stp_jax.models.layers.precision import wide
from stp_jax.models.rollout import rollout_chunks, rollout_frames
from stp_jax.typing import Array, Output

COMBINE_OF_ANCHOR = dict(none='none', persistence='residual', climatology='gated')


def combine_name(combine: str | None, anchor: str) -> str:
  """How outputs are read: as asked, or what goes with the anchor. ValueError: unknown anchor."""
  if anchor not in COMBINE_OF_ANCHOR:
    raise ValueError(f'anchor {anchor!r}: one of {" ".join(COMBINE_OF_ANCHOR)}')
  return combine or COMBINE_OF_ANCHOR[anchor]


class Forecaster(nn.Module):
  """Forecasts t_out frames from t_in frames and forcings. Its parameters are the backbone's.

  Attributes:
    backbone: a step module (`kind` 'frames') or a chunk network ('chunks'), see `models.rollout`;
      or one with a time loop of its own ('window'): `__call__(frames [B, T, h, w, D], use_true
      [B, T], t_in, train, truth, remat, unroll) -> prediction, context or None, terms`. `truth`:
      the frames after the input are there, for terms that compare with them. A step module may
      have `skipped`: so many predictions after the input are fed back and not emitted.
    t_in, t_out: frames given and forecast.
    fusion: how forcings join the frames.
    anchor: none | persistence (the backbone corrects the frame `lag` steps ago) | climatology (it
      forecasts the anomaly from a climatology scaled to the last day; its tables are the variables
      'constants', which the task fills).
    combine: none | residual | gated (`rollout.combine_output`); None: what goes with the anchor.
    lag: frames per day; 1 where the input is shorter than that.
    divisor: physical value of a normalised 1, for the climatology.
    globe: how columns go round; None: they do not. In the sun's frame the backbone sees maps and
      forcing planes turned, each by its own time. Anchors and outputs stay geographic; only the
      persistence of an input shorter than a day, by one frame, then follows the sun.
    remat, unroll: of the scan over time.
  """
  backbone: nn.Module
  t_in: int
  t_out: int
  fusion: Fusion = Fusion()
  anchor: str = 'none'
  combine: str | None = None
  lag: int = 1
  frames_per_day: int = 1
  divisor: float = 1.0
  globe: Globe | None = None
  remat: bool = False
  unroll: int = 1

  def padded(self, height: int, width: int) -> tuple[int, int]:
    """The frame size that the backbone sees: rows and columns are repeated at the far edges."""
    return self.fusion.padded(height, width, self.backbone.multiple)

  @nn.compact
  def __call__(
      self, frames: Array, forcings: Array | None = None, use_true: Array | None = None,
      train: bool = False, calendar: Array | None = None, driver: Array | None = None,
  ) -> Output:
    """Forecasts.

    Args:
      frames: `[B, T, H, W, C]` normalised, T = t_in + t_out, or t_in: the forecast part is only
        read where `use_true` says so, and may hold anything, NaN included, elsewhere.
      forcings: `[B, t_in + t_out, H, W, A]` normalised planes, or None.
      use_true: `[B, t_in + t_out]`, nonzero where a recurrent backbone is fed the true frame;
        None: in the input only. Chunk networks always get the true input and their own chunks.
      train: dropout, batch statistics, and the backbone's terms that compare with true frames.
      calendar, driver: for the climatology, see `anchor.climatology`; the sun's frame reads the
        hours of the calendar.

    Returns:
      Output, at least float32.

    Raises:
      ValueError: shapes that do not fit.
    """
    self._check(frames, forcings)
    frames = wide(frames)
    b, given, height, width, _ = frames.shape
    total = self.t_in + self.t_out
    if given < total:
      frames = jnp.pad(frames, ((0, 0), (0, total - given), (0, 0), (0, 0), (0, 0)))
    target = frames[:, self.t_in:]
    base, scale = self._anchor(frames, calendar, driver)
    if base is not None:
      frames = (frames - base) / scale
    if use_true is None:
      use_true = jnp.broadcast_to(jnp.arange(total) < self.t_in, (b, total))
    globe, shift = self.globe, None
    if globe is not None:
      hours = jnp.zeros((b, total, 2)) if calendar is None and self.is_initializing() else calendar
      shift = globe.shift(hours)
      frames = globe.seen(frames, shift)
      forcings = None if forcings is None else globe.seen(forcings, shift)
    planes = self._patched(forcings) if self._fused else None
    with periodic_columns(globe is not None and globe.circular):
      prediction, context, terms = self._rollout(
          self._patched(frames), planes, use_true, train, given == total)

    def back(patched, times):
      columns = width if globe is None else globe.columns
      image = unpatchify(patched, self.fusion.patch)[:, :, :height, :columns]
      if globe is not None:
        image = globe.geographic(image, None if shift is None else shift[:, times], width)
      return image if base is None else image * scale + base[:, times]

    prediction = back(prediction, slice(self.t_in, total))
    if train and given == total and hasattr(self.backbone, 'target_terms'):
      # A frame with holes is no target where it has them.
      known = jnp.where(jnp.isfinite(target), target, jax.lax.stop_gradient(prediction))
      terms = {**terms, **self.backbone.target_terms(prediction, known)}
    if context is not None:
      context = back(context, slice(self.t_in - context.shape[1], self.t_in))
    return Output(prediction=prediction, context=context, terms=terms)

  def _check(self, frames, forcings):
    total = self.t_in + self.t_out
    if frames.ndim != 5 or frames.shape[1] not in (self.t_in, total):
      raise ValueError(
          f'frames {frames.shape}: expected [B, {self.t_in} or {total}, H, W, {self.channels}]')
    if self.globe is not None:
      self._check_globe(*frames.shape[2:4])
    if frames.shape[-1] != self.channels:
      raise ValueError(f'frames have {frames.shape[-1]} channels, the model {self.channels}')
    if self._fused:
      shape = (*frames.shape[:1], total, *frames.shape[2:4], self.fusion.forcings)
      if forcings is None or forcings.shape != shape:
        got = None if forcings is None else forcings.shape
        raise ValueError(f'forcings {got}: fusion {self.fusion.kind} expects {shape}')

  def _check_globe(self, height, width):
    columns = self.globe.columns
    if width < columns:
      raise ValueError(f'frames of {width} columns, but {columns} go round the globe')
    wanted = self.padded(height, columns)[1]
    if self.globe.circular and wanted != columns:
      raise ValueError(
          f'padding=circular: {columns} columns go round the globe, but patches of '
          f'{self.fusion.patch}, fusion {self.fusion.kind} and {type(self.backbone).__name__} want '
          f'{wanted}; choose another patch or fusion, or padding=zero')

  @property
  def _fused(self) -> bool:
    return self.fusion.kind != 'none' and self.fusion.forcings > 0

  @property
  def channels(self) -> int:
    """C, image channels of a frame."""
    return self.fusion.channels

  def _patched(self, planes: Array) -> Array:
    h, w = self.padded(*planes.shape[2:4])
    pads = ((0, 0), (0, 0), (0, h - planes.shape[2]), (0, w - planes.shape[3]), (0, 0))
    return patchify(jnp.pad(planes, pads, mode='edge'), self.fusion.patch)

  def _rollout(self, frames, forcings, use_true, train, truth) -> tuple[Array, Array | None, Any]:
    common = dict(
        fuse=self.fusion, combine=combine_name(self.combine, self.anchor),
        lag=self.lag if self.lag <= self.t_in else 1, remat=self.remat, unroll=self.unroll)
    if self.backbone.kind == 'chunks':
      prediction, terms = rollout_chunks(
          self.backbone, frames, forcings, t_in=self.t_in, t_out=self.t_out, train=train, **common)
      return prediction, None, terms
    if self.backbone.kind == 'window':
      return self.backbone(
          frames, use_true, t_in=self.t_in, train=train, truth=train and truth, remat=self.remat,
          unroll=self.unroll)
    skipped = getattr(self.backbone, 'skipped', 0)
    if skipped:
      frames, forcings, use_true = self._stretched(frames, forcings, use_true, skipped)
    predictions, terms, _ = rollout_frames(self.backbone, frames, forcings, use_true, **common)
    first = self.t_in - 1
    return predictions[:, first + skipped:], predictions[:, :first], terms

  def _stretched(self, frames, forcings, use_true, count: int):
    """Puts `count` steps after the input in which no true frame is given.

    They see the forcings of the last input frame, for they have no time of their own.
    """
    if combine_name(self.combine, self.anchor) != 'none':
      raise ValueError(
          f'{type(self.backbone).__name__}: skipped={count} shifts the frame that an anchor '
          'corrects; set skipped=0 or anchor=none')

    def stretched(x):
      if x is None:
        return None
      between = jnp.repeat(x[:, self.t_in - 1:self.t_in], count, 1)
      return jnp.concatenate([x[:, :self.t_in], between, x[:, self.t_in:]], 1)

    given = jnp.arange(use_true.shape[1] + count)
    given = (given < self.t_in) | (given >= self.t_in + count)
    return stretched(frames), stretched(forcings), stretched(use_true) * given

  def _anchor(self, frames, calendar, driver) -> tuple[Array | None, Array | None]:
    """The climatology of all frames and its scale, normalised; (None, None) without one."""
    if self.anchor != 'climatology':
      return None, None
    if self.channels != 1:
      raise ValueError(f'anchor climatology: one channel, but frames have {self.channels}')
    if calendar is None and not self.is_initializing():
      raise ValueError('anchor climatology needs the calendar [B, T, 2] of the frames')
    h, w = frames.shape[2:4]
    monthly = (12, self.frames_per_day, h, w)
    shapes = dict(base=monthly, slope=monthly, driver_mean=(), hourly=monthly[1:])
    tables = {
        name: self.variable('constants', name, jnp.zeros, shape, jnp.float32).value
        for name, shape in shapes.items()}
    rows = self.variable('constants', 'row_weights', jnp.ones, (h,), jnp.float32).value
    if calendar is None:
      calendar = jnp.ones((*frames.shape[:2], 2), jnp.float32)
    physical = frames[:, :self.t_in] * self.divisor
    base, scale = anchors.scaled(
        tables, physical, jnp.isfinite(physical), calendar, driver, self.t_in, rows)
    return base / self.divisor, scale / self.divisor
