"""MambaFusion and TransFuser: four sensors, fused at four scales, to the best beam.

MambaFusion: github.com/szy4017/DeepSense6G_TII; TransFuser: arXiv:2104.09224, as the TII entry to
the ITU DeepSense6G challenge adapted it.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stp_jax.models.beam import maps as feature_maps
from stp_jax.models.beam.ffm import MambaFusion
from stp_jax.models.beam.gpt import GPTFusion
from stp_jax.models.beam.heads import Head, linear
from stp_jax.models.beam.inputs import MODALITIES, Missing, is_missing, normalize_image, per_example
from stp_jax.models.beam.maps import SENSORS
from stp_jax.models.beam.resnet import DEPTHS, ResNet
from stp_jax.models.beam.tfm import TimeMamba
from stp_jax.models.layers.mamba import Mamba
from stp_jax.models.layers.precision import wide
from stp_jax.typing import Array


class BeamFusion(nn.Module):
  """The whole network; fields not named here are those of `MambaFusion`.

  Attributes:
    modalities: sensors it has; another one has no parameters, and its tokens stay zero.
    image_depths, depths: blocks per stage of the image's trunk and of lidar's and radar's.
    widths: channels of the four scales.
    ffm: fusion at every scale by 'mamba', 'attention' or 'none'.
    tfm: fusion over time, 'on' or 'off' (a plain sum).
    tfm_weights: 'attention' weighs the frames; 'sum' adds them up (the first fork).
    hidden, beams, steps: of the head; steps > 0: one logit set for each coming step.
    anchors: rows and columns of the tokens of a frame.
    n_layer, n_head, block_exp, dropout: of the fusions; heads and expansion of attention only.
    remat: recompute every residual block and every fusion block in the backward pass.
    dtype: compute type; parameters, norms, softmax, scans and logits are float32.
  """
  modalities: tuple[str, ...] = MODALITIES
  image_depths: tuple[int, ...] = DEPTHS[34]
  depths: tuple[int, ...] = DEPTHS[18]
  widths: tuple[int, ...] = (64, 128, 256, 512)
  ffm: str = 'mamba'
  tfm: str = 'on'
  tfm_weights: str = 'attention'
  hidden: tuple[int, int] = (256, 128)
  beams: int = 64
  steps: int = 0
  anchors: tuple[int, int] = (8, 8)
  n_layer: int = 8
  n_head: int = 4
  block_exp: int = 4
  dropout: float = 0.1
  channel_swap: bool = True
  align: str = 'aligned'
  residual: bool = True
  norm: str = 'joint'
  initializer: str = 'torch'
  method: str = 'auto'
  d_state: int = 16
  d_conv: int = 4
  expand: int = 2
  remat: bool = False
  dtype: jnp.dtype | None = None

  def setup(self):
    self._check()
    for sensor in self.sensors:
      image = sensor == 'image'
      setattr(self, f'{sensor}_encoder', ResNet(
          tuple(self.image_depths if image else self.depths), tuple(self.widths),
          fresh_stem=not image, remat=self.remat, dtype=self.dtype))
    for i, width in enumerate(self.widths, 1):
      if 'gps' in self.modalities:
        before = 2 if i == 1 else self.widths[i - 2]
        setattr(self, f'vel_emb{i}', linear(width, before, None, self.dtype))
      if self.ffm != 'none':
        name = 'mambafusion' if self.ffm == 'mamba' else 'transformer'
        setattr(self, f'{name}{i}', self._fusion())
    if self.tfm == 'on':
      # Mamba's own start whatever the fusions': upstream's overwrites theirs alone.
      layer = TimeMamba if self.tfm_weights == 'attention' else Mamba
      self.time_mamba = layer(**self._scan(), dtype=self.dtype)
    self.head = Head(tuple(self.hidden), self.beams, self.steps, self.dtype)

  @property
  def sensors(self) -> tuple[str, ...]:
    """The modalities that have a trunk, in the order of their tokens."""
    return tuple(s for s in SENSORS if s in self.modalities)

  def _check(self) -> None:
    choices = dict(ffm=('mamba', 'attention', 'none'), tfm=('on', 'off'),
                   tfm_weights=('attention', 'sum'))
    for field, known in choices.items():
      if getattr(self, field) not in known:
        raise ValueError(f'{field}={getattr(self, field)!r}: choose one of {" ".join(known)}')
    unknown = [m for m in self.modalities if m not in MODALITIES]
    if unknown or not self.modalities:
      raise ValueError(f'modalities={"+".join(self.modalities)}: choose some of '
                       f'{" ".join(MODALITIES)}')

  def _fusion(self) -> nn.Module:
    common = dict(n_layer=self.n_layer, drop=self.dropout, remat=self.remat, dtype=self.dtype)
    if self.ffm == 'attention':
      return GPTFusion(heads=self.n_head, expand=self.block_exp, **common)
    return MambaFusion(
        channel_swap=self.channel_swap, align=self.align, residual=self.residual, norm=self.norm,
        initializer=self.initializer, **self._scan(), **common)

  def _scan(self) -> dict[str, Any]:
    return {k: getattr(self, k) for k in ('d_state', 'd_conv', 'expand', 'method')}

  def inputs(self, batch: Mapping[str, Array], missing: Missing = (), missing_fill: str = 'zero'
             ) -> dict[str, Array]:
    """What the trunks read: images normalised, missing modalities filled, in the compute type."""
    if missing_fill not in ('zero', 'random'):
      raise ValueError(f'missing_fill={missing_fill!r}: zero or random')
    found = {}
    for name in self.modalities:
      if name not in batch:
        raise ValueError(f'the batch has no {name!r}, which modalities={"+".join(self.modalities)} '
                         f'asks for; it has {" ".join(batch)}')
      x = jnp.asarray(batch[name])
      x = normalize_image(x) if name == 'image' else wide(x)
      # After the normalisation, as upstream: to the network a lost image is mid grey, not black.
      lost = is_missing(name, missing)
      if lost is not False:
        fill = jnp.zeros_like(x) if missing_fill == 'zero' else jax.random.uniform(
            self.make_rng('missing'), x.shape, x.dtype)
        x = jnp.where(per_example(lost, x), fill, x)
      found[name] = x if self.dtype is None else x.astype(self.dtype)
    return found

  def first_features(
      self, batch: Mapping[str, Array], train: bool = False, missing: Missing = (),
      missing_fill: str = 'zero',
  ) -> dict[str, Array]:
    """Output of each trunk's stem and first stage: `[B, T, h, w, widths[0]]` by sensor."""
    return self._first(self.inputs(batch, missing, missing_fill), train)

  def _first(self, inputs: Mapping[str, Array], train: bool) -> dict[str, Array]:
    found = {}
    for sensor in self.sensors:
      trunk, x = getattr(self, f'{sensor}_encoder'), inputs[sensor]
      y = trunk.stage(trunk.stem(x.reshape(-1, *x.shape[2:]), train), 0, train)
      found[sensor] = y.reshape(*x.shape[:2], *y.shape[1:])
    return found

  def __call__(
      self, batch: Mapping[str, Array], train: bool = False, *, missing: Missing = (),
      missing_fill: str = 'zero', rebuilt: Mapping[str, Array] | None = None,
      rebuilt_where: Mapping[str, Array] | None = None,
  ) -> Array:
    """Logits of the beams.

    Args:
      batch: `image` `[B, T, H, W, 3]` 0..255 (uint8 or float), `lidar` `[B, T, H, W, 1]`, `radar`
        `[B, T, H, W, 2]`, `gps` `[B, 2, 2]`; those of `modalities`, any H and W.
      train: batch statistics and dropout (generator 'dropout').
      missing: modalities to be taken as lost: names, or bool `[4]` or `[B, 4]` in the order of
        MODALITIES, which one compiled function serves for every subset.
      missing_fill: 'zero', or 'random': uniform in 0..1 (generator 'missing').
      rebuilt: by sensor, `[B, T, h, w, widths[0]]`, taken in place of what its first stage makes.
      rebuilt_where: by sensor, bool `[]` or `[B]`: where to take it; absent: everywhere.

    Returns:
      `[B, beams]`, or `[B, steps, beams]`; at least float32.

    Raises:
      ValueError: a modality that the batch lacks; a rebuilt feature of another shape.
    """
    inputs = self.inputs(batch, missing, missing_fill)
    features = self._first(inputs, train)
    for sensor, x in (rebuilt or {}).items():
      where = (rebuilt_where or {}).get(sensor, True)
      features[sensor] = _rebuilt(sensor, x, features, where)
    gps = inputs.get('gps')
    for i in range(len(self.widths)):
      if i:
        features = {s: self._stage(s, x, i, train) for s, x in features.items()}
      features, gps = self._fuse(features, gps, i, train)
    pooled = {s: jnp.mean(wide(x), (2, 3)) for s, x in features.items()}
    return self.head(self._over_time(pooled, gps))

  def _stage(self, sensor: str, x: Array, index: int, train: bool) -> Array:
    y = getattr(self, f'{sensor}_encoder').stage(x.reshape(-1, *x.shape[2:]), index, train)
    return y.reshape(*x.shape[:2], *y.shape[1:])

  def _fuse(self, features: Mapping[str, Array], gps: Array | None, i: int, train: bool
            ) -> tuple[dict[str, Array], Array | None]:
    """One scale: pool to the anchors, fuse with the fixes, add to the maps."""
    if gps is not None:
      gps = getattr(self, f'vel_emb{i + 1}')(gps)
    if self.ffm == 'none':
      return dict(features), gps
    flat = lambda x: x.reshape(-1, *x.shape[2:])
    example = gps if gps is not None else next(iter(features.values()))
    b, width = example.shape[0], self.widths[i]
    frames = next((x.shape[1] for x in features.values()), 1)
    shape = (b, frames, *self.anchors, width)
    pooled = {s: feature_maps.adaptive_average(flat(x), tuple(self.anchors)).reshape(shape)
              for s, x in features.items()}
    kind = example.dtype
    pooled = {s: pooled.get(s, jnp.zeros(shape, kind)) for s in SENSORS}
    tokens = jnp.zeros((b, 2, width), kind) if gps is None else gps
    name = 'mambafusion' if self.ffm == 'mamba' else 'transformer'
    fused, tokens = getattr(self, f'{name}{i + 1}')(pooled, tokens, train)
    # The maps' own type: what is added must not widen a trunk.
    grow = lambda y, x: feature_maps.upsample(flat(y), x.shape[2:4]).reshape(x.shape)
    added = {s: x + grow(fused[s], x).astype(x.dtype) for s, x in features.items()}
    return added, None if gps is None else tokens

  def _over_time(self, sensors: Mapping[str, Array], gps: Array | None) -> Array:
    """`[B, T, C]` by sensor and `[B, 2, C]` -> `[B, C]`."""
    if self.tfm == 'on' and self.tfm_weights == 'attention':
      return self.time_mamba(sensors, gps)
    if self.tfm == 'on':
      sensors = {s: self.time_mamba(x) for s, x in sensors.items()}
    parts = [*sensors.values(), *([] if gps is None else [gps])]
    return sum(jnp.sum(wide(x), 1) for x in parts)


def _rebuilt(sensor: str, x: Array, features: Mapping[str, Array], where: Array | bool) -> Array:
  own = features.get(sensor)
  if own is None or np.shape(x) != own.shape:
    want = ', '.join(f'{s} {tuple(y.shape)}' for s, y in features.items())
    raise ValueError(f'rebuilt feature of {sensor} {tuple(np.shape(x))}: expected {want}')
  x = jnp.asarray(x).astype(own.dtype)
  return x if where is True else jnp.where(per_example(where, x), x, own)
