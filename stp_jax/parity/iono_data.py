"""The TFRecord data set: import, windows and normalisation (group iono_data)."""

import contextlib
import io
import pathlib
import tempfile

import jax
import ml_collections
import numpy as np

from stp_jax import tasks
from stp_jax.data import clip_store, iono_electron, pipeline
from stp_jax.data import spec as data_spec
from stp_jax.parity.case import Case, Result, Unsupported
from stp_jax.parity.fusion import channels_first

GROUPS = ('iono_data',)


def _config(channels: int, t_in: int, t_out: int) -> ml_collections.ConfigDict:
  """The fields that normalising reads; true future drivers, as upstream's windows hold them."""
  return ml_collections.ConfigDict(dict(
      data=dict(channels=str(channels), missing_drivers='error', t_in=t_in, t_out=t_out,
                future_forcings='observed', eval_batch_size=1),
      task=dict(name='forecast', horizons=()),
      model=dict(anchor='none', fusion='concatenate', frame='geographic')))


def _items(store: clip_store.ClipStore, config, split: str) -> dict[str, np.ndarray]:
  """Every window of a split as upstream's item: data, labels, and where it was read."""
  t_in, t_out = config.data.t_in, config.data.t_out
  spec = data_spec.make([store], config.data, ('train',))
  task = tasks.build(config, spec)
  sources = pipeline.sources([store], spec, (split,), t_in + t_out)
  normalise = jax.jit(lambda batch: task.inputs(batch, t_out))
  data = []
  for batch in pipeline.eval_batches(sources, spec, config.data, t_in):
    inputs = normalise({k: batch[k] for k in ('frames', 'forcings')})
    planes = [inputs['frames']] + ([] if inputs['forcings'] is None else [inputs['forcings']])
    data.append(channels_first(np.concatenate(planes, -1))[0])
  index = [(int(store.clips[clip].source.rsplit('#', 1)[1]), start)
           for clip, start in store.windows((split,), t_in + t_out).tolist()]
  data = np.stack(data)
  return {'data': data, 'labels': data[:, t_in:, :1], 'index': np.array(index, np.int32)}


def run(case: Case) -> Result:
  """Prepares a store from the case's records in a temporary folder and reads it back."""
  if case.spec['model'] != 'iono_dataset':
    raise Unsupported(f'data {case.spec["model"]}')
  c = case.config
  if tuple(c['in_shape']) != (72, 72):
    raise Unsupported(f'frames of {c["in_shape"]}; the format holds 72 x 72')
  config = _config(1 + c['aux_channel'], c['pre_seq_length'], c['aft_seq_length'])
  outputs = {}
  with tempfile.TemporaryDirectory() as scratch:
    # The data card and the progress bar are for people who import, not for the list of cases.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
      store = iono_electron.prepare(
          in_dir=case.folder / c['data_root'] / 'iono_electron',
          out=pathlib.Path(scratch) / 'store', validation=0,
          window=config.data.t_in + config.data.t_out)
    for split in ('train', 'test'):
      items = _items(store, config, split)
      outputs |= {f'{split}_{name}': value for name, value in items.items()}
    del store  # its memory maps, before the folder goes
  return Result(outputs)
