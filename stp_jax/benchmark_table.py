"""Sizes and speeds of the 63 configurations of the Channel Mixer Layer's Table 1, or of others.

`python -m stp_jax.benchmark --table [gs2pm] [--count-only] [--json] [--config=FILE:WORDS ...]`

  parameters   upstream's total: `live` ones, which are ours, and `unused`, which no output of
               upstream's code depends on
  gmacs        multiply-additions of one example as upstream counts them (fvcore): convolutions and
               matrix products of its forward pass; recurrent networks over all frames of a window,
               SimVP and TAU over a single chunk of t_in frames
  gmacs_here   the same of what is computed here: not the gates that reach nothing
  ..._samples_per_s  whole forecasts, of all chunks; `infer_mib`, `train_mib`: what the compiled
               function holds at its peak, arguments and results included

`--count-only` evaluates shapes: nothing is allocated or compiled.
"""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from stp_jax import config as configs
from stp_jax import tasks
from stp_jax.convert import family_of, published, rules
from stp_jax.data import datasets, window
from stp_jax.data import spec as data_spec
from stp_jax.measure import multiply_adds
from stp_jax.models import BACKBONES, Forecaster

MODELS = ('convlstm', 'predrnn', 'predrnnpp', 'predrnnv2', 'mim', 'e3dlstm', 'mau', 'simvp', 'tau')
FUSIONS = (('none', 1), *((f, c) for f in ('concatenate', 'mix') for c in (4, 9, 16)))
# What upstream computes and we leave out, because it reaches nothing.
_IN_FULL = dict(convlstm=('cell', 'convlstm'), e3dlstm=('memory', 'updated'))


_CONFIGS = pathlib.Path(__file__).resolve().parents[1] / 'configs'
# 'label' -> config file and words: the 63 'model fusion channels', and GS2PM by size.
TABLES = dict(
    channel_mixer={
        f'{m} {f} {c}':
        f'{_CONFIGS}/iono_mixer.py:model={m},fusion={f},channels={c},scale=paper'
        for m in MODELS for f, c in FUSIONS},
    gs2pm={s: f'{_CONFIGS}/gs2pm.py:scale={s}'
           for s in ('small', 'medium', 'large', 'large_readme')})


def task_of(config) -> Any:
  """The config's task on the data that it names, of which nothing is read but stores' headers."""
  stores = datasets.open_stores(config) if config.data.stores else []
  config = window.fitted(config, stores)
  data = config.data
  if data.stores or data.dataset != 'embedded':
    spec = (data_spec.make(stores, data, data.train_splits) if stores
            else datasets.importer(data.dataset).data_spec(**data.dataset_options))
  else:
    spec = published.data_spec(data.channels)
  return tasks.build(config, spec)


def _arguments(model: Forecaster, shape: Sequence[int]) -> dict[str, jax.ShapeDtypeStruct | None]:
  total = model.t_in + model.t_out
  planes = lambda n: jax.ShapeDtypeStruct((1, total, *shape[:2], n), jnp.float32)
  forcings = planes(model.fusion.forcings) if model.fusion.forcings else None
  return dict(frames=planes(shape[2]), forcings=forcings)


def unused_count(name: str, variables: Any, frame: tuple[int, int]) -> int:
  """Parameters of upstream's module that its outputs do not depend on; `variables`: or shapes."""
  family = family_of(name)
  leaf = lambda key, path, shape: rules.into_torch(
      rules.layout_of(family, key, path[-1], len(shape)), np.broadcast_to(np.float32(0), shape))
  flat = {c: flax.traverse_util.flatten_dict(dict(v)) for c, v in variables.items()}
  weights = {key: leaf(key, path, flat[collection][path].shape[layer is not None:])
             for (collection, path, layer), key in rules.leaves(family, variables).items()}
  # What is live here by another field's choice is no spare tensor.
  return sum(v.size for k, v in family.dead(weights, frame).items()
             if k not in weights and not rules.matches(family.buffers, k))


def _recalled(backbone: Any, height: int, width: int, steps: int) -> int:
  """Multiply-additions of E3D-LSTM's attention beyond one state a step, which is what is counted:
  its loop is as long as the history."""
  states = sum(min(t + 1, backbone.recall or steps) - 1 for t in range(steps))
  rows = 2 * height * width
  return sum(2 * rows * rows * f for f in backbone.features) * states


def _shapes(task) -> tuple[Forecaster, dict, Any]:
  """The model whose operations are counted (of SimVP and TAU one chunk), arguments, variables."""
  chunks = BACKBONES[task.config.model.name].kind == 'chunks'
  model = task.model(task.t_in if chunks else None)
  return model, _arguments(model, task.spec.shape), _variables(model, task.spec.shape)


def _variables(model: Forecaster, shape: Sequence[int]) -> Any:
  return jax.eval_shape(lambda: model.init(
      {'params': jax.random.key(0), 'dropout': jax.random.key(0)},
      **{k: v if v is None else jnp.zeros(v.shape) for k, v in _arguments(model, shape).items()}))


def multiplications(task) -> tuple[int, int]:
  """Multiply-additions of one example as upstream counts them, and of what is computed here."""
  name, shape = task.config.model.name, task.spec.shape
  model, arguments, variables = _shapes(task)
  height, width = (n // model.fusion.patch for n in model.padded(*shape[:2]))

  def operations(model, variables):
    calendar = jax.ShapeDtypeStruct((1, model.t_in + model.t_out, 2), jnp.float32)
    function = lambda variables, inputs, calendar: model.apply(
        variables, **inputs, calendar=calendar).prediction
    more = 0
    if name == 'e3dlstm':
      more = _recalled(model.backbone, height, width, model.t_in + model.t_out - 1)
    return multiply_adds(function, variables, arguments, calendar) + more

  here = full = operations(model, variables)
  if name in _IN_FULL:
    field, value = _IN_FULL[name]
    if getattr(model.backbone, field) != value:
      model = model.clone(backbone=model.backbone.clone(**{field: value}))
      full = operations(model, _variables(model, shape))
  return full, here


def count(config) -> dict[str, Any]:
  """Parameters and multiply-additions, from shapes alone."""
  task, name = task_of(config), config.model.name
  shape = task.spec.shape
  variables = _shapes(task)[2]
  live = sum(x.size for x in jax.tree.leaves(variables['params']))
  idle = unused_count(name, variables, shape[:2])
  full, here = multiplications(task)
  giga = lambda n: float(f'{n / 1e9:.5g}')
  return dict(
      model=name, fusion=config.model.fusion, channels=len(task.channels), shape=list(shape),
      t_in=task.t_in, t_out=task.t_out, parameters=live + idle, live=live, unused=idle,
      gmacs=giga(full), gmacs_here=giga(here))


def rows(
    paths: Mapping[str, str], measure: Callable[[str, Forecaster, tuple], Mapping] | None = None,
) -> list[dict[str, Any]]:
  """A row per configuration.

  Args:
    paths: label -> config file and words.
    measure: `(name, model, shape)` -> speeds and memory to add; None: count only. What does not fit
      into memory gets the field `error` instead.
  """
  result = []
  for label, path in paths.items():
    config = configs.load(path)
    row = dict(configuration=label, **count(config))
    if measure is not None:
      task = task_of(config)
      try:
        row = {**measure(config.model.name, task.model(), task.spec.shape), **row}
      except jax.errors.JaxRuntimeError as error:
        row['error'] = str(error).splitlines()[0]
    result.append(row)
  return result


_COLUMNS = dict(
    parameters='{:,}', live='{:,}', unused='{:,}', gmacs='{:g}', gmacs_here='{:g}',
    infer_samples_per_s='{:g}', train_samples_per_s='{:g}', infer_mib='{:g}', train_mib='{:g}',
    error='{}')


def markdown(table: Sequence[Mapping[str, Any]]) -> str:
  """The rows as a Markdown table, without columns that no row has."""
  names = [n for n in _COLUMNS if any(n in row for row in table)]
  cell = lambda row, n: _COLUMNS[n].format(row[n]) if row.get(n) is not None else ''
  lines = [('configuration', *names)]
  lines += [(row['configuration'], *(cell(row, n) for n in names)) for row in table]
  widths = [max(map(len, column)) for column in zip(*lines)]
  text = ['| ' + ' | '.join(
      c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths))) + ' |'
          for line in lines]
  rule = '|' + '|'.join(
      '-' * (w + 1) + (':' if i else '-') for i, w in enumerate(widths)) + '|'
  return '\n'.join([text[0], rule, *text[1:]])


def run(
    paths: Sequence[str], *, table: str = 'channel_mixer', count_only: bool, as_json: bool,
    measure: Callable[..., Mapping],
) -> dict[str, Any]:
  """Makes the table, prints it, and returns what `--json` prints.

  Args:
    paths: config files with words; empty: those of the table, a key of TABLES.
    measure: see `rows`; not called with `count_only`.
  """
  if table not in TABLES:
    raise ValueError(f'--table {table}: choose one of {" ".join(TABLES)}')
  found = rows({p: p for p in paths} or TABLES[table], None if count_only else measure)
  result = dict(jax=jax.__version__, configurations=found)
  if not count_only:
    result |= dict(device=str(jax.devices()[0].device_kind), platform=jax.default_backend())
  print(json.dumps(result) if as_json else markdown(found))
  return result
