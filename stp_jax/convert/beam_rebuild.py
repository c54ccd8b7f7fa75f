"""Rebuilding of a sensor: `image_projection_l1.head.0.weight` is
rebuild/image_projection/head_0/kernel, and the network stands below `fusion_model`.

Upstream saves each part in a file of its own; `convert FOLDER` joins them:
  best_image_projection_model.pth (lidar, radar), best_feat_trans_model.pth, best_fusion_model.pth
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from stp_jax import checkpoint, tasks
from stp_jax import config as config_files
from stp_jax.convert import beam, published, rules, torch_checkpoint
from stp_jax.data import clip_store
from stp_jax.models.beam.maps import SENSORS

_LISTS = ('head', 'enc_net')
_PREFIXES = {f'{s}_projection_model': f'{s}_projection_l1.' for s in SENSORS} | {
    'feat_trans_model': 'feat_trans_l1.', 'fusion_model': 'fusion_model.'}


def key(path: rules.Path) -> str:
  """Of the composite; upstream has one translator, so two of ours are refused by `rules`."""
  part, name, *rest = path
  if part == 'fusion':
    return f'fusion_model.{beam.key((name, *rest))}'
  name = 'feat_trans' if name.endswith('_translator') else name
  return f'{name}_l1.{rules.spell(tuple(rest), _LISTS)}'


# A head or a translator alone. A convolution of width 1 has three axes; its kernel here too.
BLOCK = rules.Family('rebuild heads', lambda path: rules.spell(path, _LISTS))
FAMILY = rules.Family('rebuild', key, layouts=beam.LAYOUTS)


def is_folder(path: str | pathlib.Path) -> bool:
  """Whether a folder holds the parts of a rebuild run."""
  return any(pathlib.Path(path).glob('*_projection_model.pth'))


def read(folder: str | pathlib.Path) -> dict[str, np.ndarray]:
  """All parts under the keys of the composite; the best ones, or else the final ones.

  Raises:
    ConversionError: a part that is not there.
  """
  found = {}
  for part, prefix in _PREFIXES.items():
    files = [pathlib.Path(folder) / f'{kind}{part}.pth' for kind in ('best_', 'final_', '')]
    file = next((f for f in files if f.is_file()), None)
    if file is None:
      raise rules.ConversionError(f'{folder}: no {files[0].name} or {files[1].name}; a rebuild run '
                                  'has a file for each of its five parts')
    found |= {prefix + k: v for k, v in torch_checkpoint.load(file).weights.items()}
  return found


def _roles(folder: pathlib.Path, weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Sources and targets, from the trainer's args.txt where it tells; sizes from the shapes."""
  told = {}
  if (folder / 'args.txt').is_file():
    try:
      told = json.loads((folder / 'args.txt').read_text())
    except ValueError:
      told = {}
  names = lambda *keys: next((tuple(v) if isinstance(v, list) else (v,) for v in (
      told.get(k) for k in keys) if v), ())
  targets = names('target', 'targets', 'target_domain') or ('image',)
  sources = names('source', 'sources', 'source_domain') or tuple(
      s for s in SENSORS if s not in targets)
  return dict(sources=sources, targets=targets,
              features=int(weights['image_projection_l1.head.6.weight'].shape[0]),
              distance='norm', image_twice=True)


def to_ours(
    folder: str, out: str, *, config: ml_collections.ConfigDict, stores: Sequence[str] = (),
    overrides: Mapping[str, str] | None = None, frame: tuple[int, int] | None = None,
) -> str:
  """Converts the parts in `folder` into a checkpoint in the folder `out`.

  Args:
    config: a base, whose fields the files and `overrides` change. stores, frame: as in `runs`.

  Returns:
    A summary in one line.

  Raises:
    CheckpointError, ConversionError: one line each; nothing is written then.
  """
  weights = read(folder)
  network = {k.removeprefix('fusion_model.'): v for k, v in weights.items()
             if k.startswith('fusion_model.')}
  told = beam.fields(network)
  if not told:
    raise rules.ConversionError(f'{folder}: its fusion_model is no beam network that is known')
  roles = _roles(pathlib.Path(folder), weights)
  fields = {'model.name': beam.model_of(network), **told, 'task.name': 'rebuild',
            **{f'task.rebuild.{k}': v for k, v in roles.items()}}
  published.apply_fields(config, fields | {'data.dataset': '', 'data.stores': tuple(stores)})
  config_files.override(config, overrides)
  found = [clip_store.ClipStore(s) for s in stores]
  spec = tasks.find('rebuild').data_spec(config, found) if found else beam.data_spec(
      frame or (256, 256), config.data.t_in, config.data.t_out)
  template = jax.eval_shape(tasks.build(config, spec).init, jax.random.key(0))
  try:
    variables, unused = rules.to_flax(FAMILY, weights, template)
  except rules.ConversionError as error:
    raise rules.ConversionError(f'{folder}: {error}') from error
  checkpoint.save_converted(out, config, variables, spec, unused)
  count = rules.parameter_count(FAMILY, variables['params'], unused)
  return (f'{out}: {"+".join(roles["targets"])} rebuilt from {"+".join(roles["sources"])}, '
          f'{count} parameters')
