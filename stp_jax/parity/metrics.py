"""Frame metrics of the upstream protocol (group metrics)."""

import re
from typing import Any

from stp_jax.metrics import video
from stp_jax.parity.case import Case, Result, Unsupported

GROUPS = ('metrics',)


def _value(case: Case, pointer: str) -> Any:
  """Computes what a pointer into the case's values names (its `values_meaning`)."""
  pred, true, c = case.input('pred'), case.input('true'), case.config
  _, _, what, *rest = pointer.split('/')
  scaled = re.fullmatch(r'metric_mean([-+.\de]+)_std([-+.\de]+)_spatial_norm', what)
  named = re.fullmatch(r'metric_channel_names_(\w+)', what)
  extras = ('tecu_not_upstream_code_path', 'metric')
  if scaled:
    mean, std = map(float, scaled.groups())
    found = video.upstream(pred, true, mean, std, spatial_norm=True, metrics=('mse', 'mae', 'rmse'))
  elif named:
    found = video.upstream(pred, true, spatial_norm=True, channel_names=named[1].split('_'),
                           metrics=('mse', 'mae', 'rmse'))
  elif what == 'metric_spatial_norm':
    found = video.upstream(pred, true, spatial_norm=True, metrics=('mse', 'mae', 'rmse'))
  elif what in extras or not rest:
    found = video.upstream(pred, true, clip_range=c['clip_range'])
  else:
    raise Unsupported(f'value {pointer}')
  key = rest[0] if rest else what
  if key not in found:
    raise Unsupported(f'value {pointer}')
  value = found[key]
  return value[int(rest[1])] if len(rest) > 1 else value


def run(case: Case) -> Result:
  """All metrics of (pred, true) `[B, T, C, H, W]`."""
  if case.spec['model'] != 'frame_metrics':
    raise Unsupported(f'metrics {case.spec["model"]}')
  pred, true, clip = case.input('pred'), case.input('true'), case.config['clip_range']
  outputs = video.upstream(pred, true, clip_range=clip)
  normed = video.upstream(pred, true, clip_range=clip, spatial_norm=True,
                          metrics=('mse', 'mae', 'rmse'))
  outputs |= {f'spatial_norm_{k}': normed[k] for k in ('mse', 'mae', 'rmse')}
  pointers = [rule['pointer'] for rule in case.spec.get('compare_values', [])]
  return Result(outputs, values={p: _value(case, p) for p in pointers})
