"""The Channel Mixer Layer, patches, and what a recurrent network is fed (groups fusion,
channel_mixer)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from stp_jax.models import fusion, rollout
from stp_jax.models.layers.patches import patchify, unpatchify
from stp_jax.parity.case import Case, Result, Unsupported

GROUPS = ('fusion', 'channel_mixer')


def channels_last(x: np.ndarray) -> np.ndarray:
  """`[..., C, H, W]` -> `[..., H, W, C]`."""
  return np.moveaxis(x, -3, -1)


def channels_first(x: Any) -> np.ndarray:
  """`[..., H, W, C]` -> `[..., C, H, W]`."""
  return np.moveaxis(np.asarray(x), -1, -3)


def fusion_of(kind: str | None, channels: int, total: int, patch: int) -> fusion.Fusion:
  """Upstream's `fusion_method` as ours: only 'mix' is compared there, all else concatenates."""
  planes = total - channels
  kind = 'mix' if kind == 'mix' else 'concatenate' if planes else 'none'
  return fusion.Fusion(kind, channels, planes, patch, mode='upstream')


def split_patched(patched: np.ndarray, channels: int, total: int
                  ) -> tuple[np.ndarray, np.ndarray | None]:
  """Patched `[..., P P C0]` -> its image part and its forcings, None where there are none."""
  cells = patched.reshape(*patched.shape[:-1], -1, total)
  flat = lambda x: x.reshape(*patched.shape[:-1], -1)
  return flat(cells[..., :channels]), flat(cells[..., channels:]) if total > channels else None


def _mixed(case: Case) -> dict[str, np.ndarray]:
  c, variant = case.config, case.spec['variant']
  if variant == 'recurrent_shapes':
    entries = [(e['name'], e['patch'], e['total_channel']) for e in c['cases']]
    return {name: _fused(case.input(name), 1, total, patch) for name, patch, total in entries}
  if variant == 'simvp_planes':
    names = {'mixer4': 'planes4', 'mixer9': 'planes9'}
    outputs = {}
    for rule in case.spec['compare']:
      x = case.input(names.get(rule['output'], rule['output']))
      outputs[rule['output']] = channels_first(fusion.mix(channels_last(x), x.shape[-3]))
    return outputs
  patch, image, total = c['patch_size'], c['img_channel'], c['C']
  frames = channels_last(case.input('x' if variant == 'simvp' else 'frames'))
  patched = np.asarray(patchify(frames, patch))
  outputs = {
      'patched': patched, 'net': _fused(patched, image, total, patch),
      'mixed': channels_first(fusion.mix(patched, total))}
  if frames.shape[-2] == frames.shape[-3]:
    width = frames.shape[-2] // patch
    outputs['perm'] = fusion.permutation(width, total, patch)
    outputs['inv_perm'] = fusion.inverse_permutation(width, total, patch)
    if variant == 'simvp':  # its flat frames are channel-first, before and after
      index = np.arange(outputs['perm'].size, dtype=np.int32)
      first = channels_last(index.reshape(total, width, width)).reshape(-1)
      outputs['perm'], last = first[outputs['perm']], np.argsort(first)
      outputs['inv_perm'] = outputs['inv_perm'][last]
  return outputs


def _fused(patched: np.ndarray, channels: int, total: int, patch: int) -> np.ndarray:
  """Channel-first network input, of our own Fusion."""
  image, planes = split_patched(patched, channels, total)
  fuse = fusion.Fusion('mix', channels, total - channels, patch, mode='upstream')
  return channels_first(fuse(jnp.asarray(image), None if planes is None else jnp.asarray(planes)))


class _Given(nn.Module):
  """A step module that predicts given frames and reports what it was fed, as its carry."""
  frames: Any

  def initial_carry(self, frame, steps):
    return jnp.zeros((steps, *frame.shape), frame.dtype)

  def __call__(self, carry, frame, t):
    return carry.at[t].set(frame), self.frames[:, t], {}


class _Rollout(nn.Module):
  """Our time loop around it."""
  step: nn.Module

  def __call__(self, image, planes, use_true, fuse):
    return rollout.rollout_frames(self.step, image, planes, use_true, fuse=fuse)[-1]


def use_true_of(mask: np.ndarray, t_in: int, total: int, reverse: bool) -> np.ndarray:
  """Upstream's mask `[B, steps]` -> ours `[B, T]`: it starts at frame 1, or after the input."""
  use = np.zeros((mask.shape[0], total), np.float32)
  use[:, :1 if reverse else t_in] = 1
  use[:, total - 1 - mask.shape[1]:total - 1] = mask
  return use


def _rollout_inputs(case: Case) -> Result:
  c = case.config
  fuse = fusion_of(c['fusion_method'], 1, c['C'], c['patch_size'])
  patched = np.asarray(patchify(channels_last(case.input('frames')), c['patch_size']))
  image, planes = split_patched(patched, 1, c['C'])
  gen = case.input('gen')
  use = use_true_of(case.input('mask'), c['T_in'], patched.shape[1],
                    bool(c['reverse_scheduled_sampling']))
  net = _Rollout(_Given(jnp.asarray(gen))).apply({}, jnp.asarray(image), planes, use, fuse)
  target = image[:, 1:]
  loss = float(np.mean(np.square(gen - target, dtype=np.float64)))
  return Result(
      {'patched': patched, 'net': channels_first(np.moveaxis(np.asarray(net), 0, 1)),
       'target': target, 'loss': np.asarray(loss)}, loss=loss)


def run(case: Case) -> Result:
  """Runs an operation without weights."""
  model = case.spec['model']
  if model == 'channel_mixer':
    return Result(_mixed(case))
  if model == 'patchify' and case.spec['variant'] == 'channels_last':
    x, patch = case.input('x'), case.config['patch_size']
    patched = patchify(x, patch)
    return Result({'patched': np.asarray(patched), 'back': np.asarray(unpatchify(patched, patch))})
  if model == 'rollout_inputs':
    return _rollout_inputs(case)
  raise Unsupported(f'{model} ({case.spec["variant"]})')
