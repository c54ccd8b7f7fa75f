"""Data, losses, scores and schedule of the beam challenge (group mamba)."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from stp_jax import optimizers
from stp_jax.data import deepsense_csv, deepsense_features, deepsense_gps, point_file
from stp_jax.data import deepsense_sensors as sensors
from stp_jax.metrics import beam as metrics
from stp_jax.models.beam.inputs import normalize_image
from stp_jax.parity.case import Case, Result, Unsupported
from stp_jax.tasks import beam_losses


def _labels(case: Case) -> Result:
  c = case.config
  label = deepsense_features.soft_labels(
      jnp.asarray(case.input('beamidx')), c['sigma'], c['halfwidth'], c['scale'],
      c['n_beams'])
  return Result({'label': np.asarray(label)})


def _gps(case: Case) -> Result:
  c = case.config
  user = deepsense_gps.utm(case.input('ue_latlon'))
  station = deepsense_gps.utm(case.input('bs_latlon'))
  metres, scenario = jnp.asarray(user - station[:, None]), jnp.asarray(case.input('scenario'))
  offsets = {int(k): v for k, v in c['angle_offsets_deg'].items()}
  angle = deepsense_features.gps_features(metres, scenario, True, offsets)
  extremes = deepsense_features.gps_features(
      metres, scenario, False, low=c['minmax_min'], high=c['minmax_max'])
  return Result(dict(utm_ue_xy=user, utm_bs_xy=station, gps_angle_norm0=np.asarray(extremes),
                     gps_angle_norm1=np.asarray(angle)))


def _number(scenario: str) -> int:
  return int(scenario.removeprefix('scenario'))


def _histogram(points, scenario: int, custom: int, bins: int = 256, limit: int = sensors.COUNTS):
  counts = sensors.lidar_histogram(
      points, sensors.field_of_view(scenario, wide=not custom), bins, limit)
  return counts.astype(np.float64) / limit


def _lidar(case: Case) -> Result:
  c = case.config
  bev = _histogram(case.input('points'), _number(c['scenario']), c['custom_FoV'], c['bins'],
                   c['max_per_pixel'])
  return Result({'bev': bev[None]})


def _radar(case: Case) -> Result:
  cube = case.input('cube_re') + 1j * case.input('cube_im')
  angle, velocity = sensors.radar_maps(cube, case.config['angle_fft'], case.config['velocity_fft'])
  return Result(dict(range_angle=angle, range_velocity=velocity))


def _imagenet(case: Case) -> Result:
  y = normalize_image(jnp.moveaxis(jnp.asarray(case.input('x')), 1, -1))
  first = lambda v: np.moveaxis(np.asarray(v), -1, 1)
  return Result(dict(y=first(y), twice=first(normalize_image(y))))


def _losses(case: Case) -> Result:
  c, logits = case.config, jnp.asarray(case.input('logits'))
  soft, hard = jnp.asarray(case.input('soft')), jnp.asarray(case.input('beamidx'))
  focal = lambda target: lambda z: beam_losses.focal(
      z, target, c['alpha'], c['gamma']).mean()
  entropy = lambda target: lambda z: beam_losses.cross_entropy(z, target).mean()
  functions = dict(focal_soft=focal(soft), focal_hard=focal(hard), ce_soft=entropy(soft),
                   ce_hard=entropy(hard))
  result = Result()
  for name, function in functions.items():
    value, grad = jax.value_and_grad(function)(logits)
    result.outputs[name], result.grads[name] = np.asarray(value), np.asarray(grad)
  return result


def _dba(case: Case) -> Result:
  with jax.enable_x64(True):  # ties and near ties of float64 logits
    c, out = case.config, {}
    logits, beam = jnp.asarray(case.input('logits')), jnp.asarray(case.input('true'))
    steps = len(beam) // 5 * 5
    for prefix, z, b in (('', logits, beam), ('multi_', logits[:steps].reshape(-1, 5, 64),
                                              beam[:steps].reshape(-1, 5))):
      ranked = metrics.ranking(z)
      for name, k in (('dba', c['max_k']), ('dba_k1', 1), ('dba_k2', 2)):
        out[prefix + name] = np.asarray(metrics.dba(ranked, b, k, c['delta']).mean())
      accuracy = [100 * float(metrics.hits(ranked, b, k).mean()) for k in (1, 2, 3)]
      out[prefix + ('acc' if prefix else 'acc_top123_percent')] = np.round(accuracy, 4)
  return Result(out)


def _schedule(case: Case) -> Result:
  c = case.config
  rates = np.atleast_1d(c['base_lr'])
  epochs = len(case.io['output/lr'])
  columns = []
  with jax.enable_x64(True):
    for rate in rates.tolist():
      fields = dict(
          schedule='cyclic_cosine', learning_rate=rate, min_lr=c['min_decay_lr'],
          initial_epochs=c['init_decay_epochs'], warmup_epochs=c.get('warmup_epochs') or 0,
          warmup_lr=c.get('warmup_start_lr') or 0.0,
          restart_epochs=c.get('restart_interval') or 0, restart_lr=c.get('restart_lr') or 0.0,
          restart_multiplier=c.get('restart_interval_multiplier') or 1.0)
      _, at = optimizers.make(fields, epochs, 1)
      columns.append(np.asarray(jax.vmap(at)(jnp.arange(epochs))['learning_rate']))
  return Result({'lr': np.stack(columns, 1)})


def _item(row: deepsense_csv.Row, c) -> dict[str, np.ndarray]:
  """A sample as upstream's loader reads it, our layout: `[T, H, W, C]`, floats not rounded."""
  reading = sensors.Reading(
      enhanced=bool(c['enhanced']), mask=bool(c['add_mask']), filtered=bool(c['filtered']))
  images, lidars, radars = [], [], []
  for image, radar, lidar in row.frames:
    images.append(sensors.read_image(
        row.root / sensors.image_path(image, row.scenario, reading), reading.size))
    if reading.filtered:
      lidar = lidar.replace('/lidar_data/', '/lidar_data_filtered/', 1)
    lidars.append(_histogram(point_file.read(row.root / lidar), row.scenario,
                             c['custom_FoV_lidar'])[..., None])
    kinds = ('ang', 'vel') if c['add_velocity'] else ('ang',)
    radars.append(np.stack([sensors.read_map(
        row.root / radar.replace('/radar_data/', f'/radar_data_{k}/', 1)) for k in kinds], -1))
  return dict(image=np.stack(images), lidar=np.stack(lidars), radar=np.stack(radars),
              beam=np.array(row.beams, np.int32))


def _positions(rows: list[deepsense_csv.Row], angle: int) -> np.ndarray:
  read = lambda row, path: deepsense_gps.read_fix(pathlib.Path(row.root) / path)
  user = deepsense_gps.utm(np.array([[read(r, p) for p in r.fixes] for r in rows]))
  station = deepsense_gps.utm(np.array([read(r, r.station) for r in rows]))
  return np.asarray(deepsense_features.gps_features(
      jnp.asarray(user - station[:, None]), jnp.array([r.scenario for r in rows]), bool(angle)))


def _sparse(lidar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Where `[n, T, C, x, y]` is not zero, and the values there."""
  where = np.argwhere(lidar)
  return where.astype(np.int16), lidar[tuple(where.T)]


def _dataset(case: Case) -> Result:
  c, root = case.config, case.folder / 'root'
  rows = deepsense_csv.read(root / 'samples.csv', root)[:c['n']]
  gps = _positions(rows, c['angle_norm'])
  out = dict(scenario=np.array([r.scenario for r in rows], np.int32))
  for prefix in ('', 'flip_'):
    items = []
    for row, fixes in zip(rows, gps):
      item = _item(row, c) | {'gps': fixes}
      item['label'] = np.asarray(deepsense_features.soft_labels(jnp.asarray(item['beam'])))
      items.append(deepsense_features.upstream_flip(item) if prefix else item)
    all_of = lambda name, items=items: np.stack([i[name] for i in items])
    first = lambda name, all_of=all_of: np.moveaxis(all_of(name), -1, 2)
    image = first('image')
    where, values = _sparse(first('lidar'))
    out |= {prefix + k: v for k, v in dict(
        gps=all_of('gps'), beam=all_of('label'), beamidx=all_of('beam'), image=image[:1],
        image_mean_rows=image.mean(-1), image_first_row=image[..., 0, :], radar=first('radar'),
        lidar_idx=where, lidar_val=values).items()}
  return Result(out)


_RUN = {
    'beam_soft_labels': _labels, 'gps_normalize': _gps, 'lidar_histogram': _lidar,
    'radar_maps': _radar, 'imagenet_normalize': _imagenet, 'deepsense_dataset': _dataset,
    'dba': _dba, 'beam_losses': _losses, 'cyclic_cosine_lr': _schedule}


def run(case: Case) -> Result:
  """Computes one of the cases in `_RUN`."""
  if case.spec['model'] not in _RUN:
    raise Unsupported(f'{case.spec["kind"]} {case.spec["model"]}')
  return _RUN[case.spec['model']](case)
