"""Which scores rain maps and weather fields have beside their errors, by config and store."""

from collections.abc import Mapping

from stp_jax.data.spec import DataSpec
from stp_jax.metrics import events, weather
from stp_jax.typing import Array

KINDS = ('auto', 'nowcast', 'weather', 'none')


def kind_of(config, spec: DataSpec) -> str:
  """'nowcast', 'weather' or 'none'; electron content has scores of its own.

  Raises:
    ValueError: no such kind, or weather without latitudes.
  """
  kind, _ = config.task.scores, config.task.events
  if kind not in KINDS:
    raise ValueError(f'task.scores={kind!r}: choose one of {" ".join(KINDS)}')
  if kind == 'weather' and 'latitude' not in spec.grid and spec.name != 'synthetic':
    raise ValueError(f'{spec.name}: task.scores=weather needs a store with latitudes; it has none')
  if kind != 'auto':
    return kind
  if events.known_units(spec.units):
    return 'nowcast'
  calendar = {'month', 'hour'} <= set(spec.columns)
  return 'weather' if 'latitude' in spec.grid and not calendar and spec.units != 'TECU' else 'none'


def settings_of(config, spec: DataSpec) -> events.Settings:
  """What counts as an event in these frames."""
  return events.settings(config.task.events, spec.units, spec.cadence_hours)


def variables_of(spec: DataSpec) -> list[dict[str, str]]:
  """`name` and `units` of every channel: `grid['variables']` of the store, else numbers."""
  known = spec.grid.get('variables') or []
  if len(known) == spec.shape[2]:
    return [dict(name=str(v.get('name', i + 1)), units=str(v.get('units', spec.units)))
            for i, v in enumerate(known)]
  one = spec.shape[2] == 1
  return [dict(name=str(spec.grid.get('variable', {}).get('name', 'value')) if one
               else f'channel {i + 1}', units=spec.units) for i in range(spec.shape[2])]


def statistics(
    config, spec: DataSpec, forecasts: Mapping[str, Array], truth: Array, valid: Array,
) -> dict[str, dict[str, Array]]:
  """`{forecast: {statistic: [B, T, ...]}}` of a batch, inside a jitted step; {} for other data."""
  kind = kind_of(config, spec)
  if kind == 'nowcast':
    settings = settings_of(config, spec)
    return {k: events.per_example(f, truth, valid, settings) for k, f in forecasts.items()}
  if kind == 'weather':
    return {k: weather.per_example(f, truth, valid, spec.row_weights, forecasts.get('climatology'))
            for k, f in forecasts.items()}
  return {}
