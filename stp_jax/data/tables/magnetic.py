"""Makes magnetic_latitude.npy: `python magnetic.py` (PyIRI of the extra `iono` is needed).

Quasi-dipole latitude in hundredths of a degree, int16 [73, 72]: latitude 90 to -90 by 2.5,
longitude -180 to 175 by 5, epoch 2012.0.
"""

import datetime
import pathlib

import numpy as np


def extract() -> np.ndarray:
  """The table."""
  from PyIRI import sh_library
  latitude, longitude = np.meshgrid(
      np.arange(90, -91, -2.5), np.arange(-180.0, 180, 5), indexing='ij')
  found, _ = sh_library.Apex(
      latitude.ravel(), longitude.ravel(), datetime.datetime(2012, 1, 1), 'GEO_2_QD')
  return np.round(found.reshape(latitude.shape) * 100).astype(np.int16)


if __name__ == '__main__':
  np.save(pathlib.Path(__file__).with_name('magnetic_latitude.npy'), extract())
