"""The climatology under the embedded ionosphere: vertical TEC of IRI, by month, hour and F10.7.

IRI in its Python form, PyIRI (Forsythe et al. 2024, doi:10.1029/2023SW003739, MIT licence; its
coefficient files come with the package), is evaluated once on a small cube of nodes; every map of
every year is interpolated from it. A month takes about 2 s of one core, so the months are shared
among processes of their own and kept in a cache folder named after everything that determines them.

PyIRI changes process-wide logging and imports a plotting library: it is only ever imported in those
processes, started as `python -m stp_jax.data.embedded_iri FOLDER MONTH...`.
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence

import numpy as np
import tqdm

from stp_jax.data import clip_store

LATITUDE = np.arange(87.5, -88, -2.5)  # degrees, 71 rows, north first
LONGITUDE = np.arange(-180, 180, 5.0)  # degrees, 72 columns
HOURS = np.arange(0, 24, 2.0)  # universal time
F107 = (65.0, 110.0, 170.0, 250.0)  # solar flux units; cubic in between
YEAR = 2010  # of the magnetic field and the Sun's position: mid-period, the same for all years
# km. Against steps of 5 km over the same range the trapezoid errs by 0.06 TECU at most.
_HEIGHT = np.concatenate([np.arange(80, 700, 20.0), np.arange(700, 2001, 100.0)])


def cache_folder(cache: str | os.PathLike | None) -> pathlib.Path:
  """The folder of the months' files. Raises StoreError where PyIRI is missing."""
  if importlib.util.find_spec('PyIRI') is None:
    raise clip_store.StoreError(
        "PyIRI is not installed: the embedded ionosphere needs it; pip install -e '.[iono]'")
  if cache is None:
    home = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
    cache = pathlib.Path(home) / 'stp_jax'
  recipe = [
      importlib.metadata.version('PyIRI'), YEAR, F107,
      *(a.tolist() for a in (LATITUDE, LONGITUDE, HOURS, _HEIGHT))]
  key = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]
  return pathlib.Path(cache) / f'iri-{key}'


def _load(folder: pathlib.Path, month: int) -> tuple[np.ndarray, np.ndarray] | None:
  try:
    with (folder / f'month-{month:02d}.npz').open('rb') as raw, np.load(raw) as file:
      tec, dip = file['tec'], file['dip']
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # absent or cut short
    return None
  grid = (len(LATITUDE), len(LONGITUDE))
  good = tec.shape == (len(F107), len(HOURS), *grid) and dip.shape == grid
  return (tec, dip) if good and np.isfinite(tec).all() else None


@contextlib.contextmanager
def _lock(folder: pathlib.Path):
  """One process at a time; the lock falls with the process that holds it."""
  try:
    import fcntl
  except ImportError:  # no POSIX: work may be done twice, files are still whole
    yield
    return
  with (folder / 'lock').open('w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


def cube(
    months: Sequence[int], *, cache: str | os.PathLike | None = None, processes: int = 2,
) -> tuple[dict[int, np.ndarray], np.ndarray]:
  """Vertical TEC at mid-month and magnetic dip latitude.

  Args:
    months: 1..12, those wanted.
    cache: folder to keep the months in; by default `$XDG_CACHE_HOME/stp_jax` or `~/.cache/stp_jax`.
    processes: how many to compute missing months with.

  Returns:
    `{month: [F10.7 node, UT, 71, 72] float32 TECU}` and dip latitude `[71, 72]` float32 degrees.

  Raises:
    StoreError: PyIRI is missing or failed, or the cache folder cannot be written.
  """
  folder = cache_folder(cache)
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise clip_store.StoreError(f'{folder}: {error.strerror}; choose another --cache') from error
  found = {m: _load(folder, m) for m in months}
  if any(value is None for value in found.values()):
    with _lock(folder):  # whoever came first may have made them by now
      found = {m: _load(folder, m) for m in months}
      missing = [m for m, value in found.items() if value is None]
      for stale in [folder / f'month-{m:02d}.npz' for m in missing] + [*folder.glob('*.tmp')]:
        stale.unlink(missing_ok=True)
      if missing:
        _compute(folder, missing, processes)
      found |= {m: _load(folder, m) for m in missing}
    if lost := [m for m, value in found.items() if value is None]:
      raise clip_store.StoreError(f'{folder}: month {lost[0]} is unreadable; delete the folder')
  return {m: found[m][0] for m in months}, found[months[0]][1]


def _compute(folder: pathlib.Path, months: Sequence[int], processes: int) -> None:
  package_root = str(pathlib.Path(__file__).resolve().parents[2])
  environment = os.environ | {
      'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1', 'MPLBACKEND': 'agg',
      'PYTHONPATH': os.pathsep.join(
          p for p in (package_root, os.environ.get('PYTHONPATH')) if p)}
  workers = [
      subprocess.Popen(
          [sys.executable, '-m', 'stp_jax.data.embedded_iri', str(folder), *map(str, share)],
          env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
      for share in (months[i::processes] for i in range(processes)) if share]
  try:
    with tqdm.tqdm(total=len(months), desc='IRI climatology', unit='month') as bar:
      while any(w.poll() is None for w in workers):
        time.sleep(0.05)
        done = sum((folder / f'month-{m:02d}.npz').exists() for m in months)
        if done > bar.n:
          bar.update(done - bar.n)
        if any(w.poll() for w in workers):
          break
      bar.update(sum((folder / f'month-{m:02d}.npz').exists() for m in months) - bar.n)
  finally:
    for worker in workers:
      if worker.poll() is None and sys.exc_info()[0] is not None:
        worker.kill()
    results = [(w.communicate()[1], w.returncode) for w in workers]
  for errors, code in results:
    if code:
      reason = (errors.strip().splitlines() or [f'exit status {code}'])[-1]
      raise clip_store.StoreError(f'PyIRI failed: {reason}; run again to continue')


def month_tec(month: int) -> tuple[np.ndarray, np.ndarray]:
  """Vertical TEC `[F10.7 node, UT, 71, 72]` in mid-month and dip latitude, both float32."""
  import PyIRI  # This process only: see the module's docstring.
  from PyIRI import edp_update, main_library

  longitude, latitude = (a.ravel() for a in np.meshgrid(LONGITUDE, LATITUDE))
  *layers, _, _, magnetic = edp_update.IRI_monthly_mean_par(
      YEAR, month, HOURS, longitude, latitude, PyIRI.coeff_dir, 0)
  tec = np.zeros((len(F107), len(HOURS), longitude.size), np.float32)
  for i, f107 in enumerate(F107):
    f2, f1, e = (
        main_library.solar_interpolation_of_dictionary(layer, f107) for layer in layers[:3])
    # Frequencies, not densities, are what IRI interpolates; F1 follows F2 and stays unlimited.
    for layer in (f2, f1, e):
      layer['Nm'] = main_library.freq2den(layer['fo'])
    for layer in (f2, e):
      layer['Nm'] = main_library.limit_Nm(layer['Nm'])
    for j in range(len(HOURS)):  # hour by hour: the profiles then stay in the cache
      profile = edp_update.reconstruct_density_from_parameters_1level(
          *({k: v[j:j + 1] for k, v in layer.items()} for layer in (f2, f1, e)), _HEIGHT)
      tec[i, j] = np.trapezoid(profile[0], _HEIGHT * 1e3, axis=0) / 1e16
  grid = (len(LATITUDE), len(LONGITUDE))
  dip = magnetic['mag_dip_lat'].reshape(grid).astype(np.float32)
  return tec.reshape(len(F107), len(HOURS), *grid), dip


def _work(folder: str, *months: str) -> None:
  for month in map(int, months):
    tec, dip = month_tec(month)
    temporary = pathlib.Path(folder) / f'month-{month:02d}.{os.getpid()}.tmp'
    with temporary.open('wb') as file:
      np.savez(file, tec=tec, dip=dip)
    temporary.replace(pathlib.Path(folder) / f'month-{month:02d}.npz')


if __name__ == '__main__':
  _work(*sys.argv[1:])
