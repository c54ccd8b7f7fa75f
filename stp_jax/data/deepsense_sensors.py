"""What a camera, a lidar and a radar file of DeepSense6G becomes: one array each.

Follows the challenge solution DeepSense6G_TII (image size and file choice, field of view and counts
of the lidar histogram, the two radar maps). No jax here: worker processes import this module.
"""

import dataclasses
import pathlib

import numpy as np

from stp_jax.data import point_file

SCENARIOS = (31, 32, 33, 34)
NIGHT = (33, 34)
# Field of view of the lidar histogram [m], towards the road (x) and along it (y), by scenario.
FIELD = {31: ((-70.0, 0.0), (-25.0, 14.0)), 32: ((-60.0, 0.0), (-40.0, 5.5)),
         33: ((-50.0, 0.0), (-12.0, 7.0)), 34: ((-50.0, 0.0), (-20.0, 10.0))}
WIDE = ((-50.0, 0.0), (-50.0, 50.0))  # of any other scenario, and of all with `wide`
COUNTS = 5  # a cell of the histogram holds at most so many points
FFT = 256
_CAMERA = '/camera_data'
EXTRA = "Pillow is missing; pip install 'stp_jax[data]'"


@dataclasses.dataclass(frozen=True)
class Reading:
  """How sensor files are read.

  Attributes:
    size: side of every picture and map.
    enhanced: night scenarios by their brightened images (`camera_data`), not `camera_data_raw`.
    mask, seg: images of `camera_data_mask`; brighten what `camera_data_seg` marks (31, 32).
    filtered: lidar files of `lidar_data_filtered`.
    wide: one lidar field of view for all scenarios.
    radar: 'maps' (radar_data_ang, radar_data_vel), 'cubes' (radar_data), 'auto': maps if there.
  """
  size: int = 256
  enhanced: bool = True
  mask: bool = False
  seg: bool = False
  filtered: bool = False
  wide: bool = False
  radar: str = 'auto'


def field_of_view(scenario: int, wide: bool = False):
  """((x low, x high), (y low, y high)) in metres."""
  return WIDE if wide else FIELD.get(scenario, WIDE)


def image_path(path: str, scenario: int, reading: Reading, suffix: str | None = None) -> str:
  """The image file to read for the path that a CSV gives: another folder by a suffix.

  Raises:
    ValueError: a mask asked for together with enhanced images of a night scenario.
  """
  if suffix is None:
    suffix = '_mask' if reading.mask else ''
    if scenario in NIGHT:
      if reading.mask and reading.enhanced:
        raise ValueError(f'{path}: masks of a night scenario are not of enhanced images; choose '
                         'mask or enhanced')
      suffix = suffix or ('' if reading.enhanced else '_raw')
  if suffix and _CAMERA not in path:
    raise ValueError(f'{path}: not in a folder camera_data, so there is none with {suffix}')
  return path.replace(_CAMERA, _CAMERA + suffix, 1)


def read_image(path: pathlib.Path, size: int, seg: pathlib.Path | None = None) -> np.ndarray:
  """uint8 `[size, size, 3]`, resized without regard to its aspect (Pillow's bicubic).

  Raises:
    ValueError: names the unreadable file.
  """
  try:
    import PIL.Image
  except ImportError as error:
    raise ValueError(EXTRA) from error

  def picture(file):
    try:
      with PIL.Image.open(file) as image:
        return np.asarray(image.convert('RGB').resize((size, size)))
    except (OSError, SyntaxError) as error:
      raise ValueError(f'{file}: no readable image ({error}); copy it again') from error

  image = picture(path)
  if seg is not None:
    kept = image & picture(seg)[..., 2:3]
    image = np.clip(np.rint(0.8 * image + 0.5 * kept), 0, 255).astype(np.uint8)
  return image


def lidar_histogram(
    points: np.ndarray, field=WIDE, bins: int = 256, limit: int = COUNTS,
) -> np.ndarray:
  """Points seen from above, counted: uint8 `[bins, bins]`, x first, at most `limit` a cell.

  Bins are closed on their left, the last on both sides; points outside are left out, z is not
  used. A network sees counts / 5.

  Args:
    points: `[N, 2 or more]` metres. field: see `field_of_view`.
  """
  points = np.asarray(points, np.float64)
  edges = [np.linspace(low, high, bins + 1) for low, high in field]
  counts, _, _ = np.histogram2d(points[:, 0], points[:, 1], bins=edges)
  return np.minimum(counts, limit).astype(np.uint8)


def _unit(values: np.ndarray) -> np.ndarray:
  """Scaled to 0..1 by its own extremes; a constant map becomes 0."""
  low, high = values.min(), values.max()
  return (values - low) / (high - low) if high > low else np.zeros_like(values)


def radar_maps(
    cube: np.ndarray, angle_fft: int = FFT, velocity_fft: int = FFT,
) -> tuple[np.ndarray, np.ndarray]:
  """Range-angle and range-velocity maps of a radar cube; each runs from 0 to 1.

  No shift and no logarithm: angle and velocity 0 lie in column 0. Echoes of what stands still are
  taken off (the mean over chirps) for the angle only.

  Args:
    cube: complex `[antennas, samples, chirps]`.
    angle_fft, velocity_fft: bins; antennas and chirps are padded with zeros, or cut, to these.

  Returns:
    real `[samples, angle_fft]` and `[samples, velocity_fft]`.
  """
  spectrum = np.fft.fft(cube, axis=1)
  moving = spectrum - spectrum.mean(2, keepdims=True)
  # A DFT of four antennas padded to 256 is a small matrix product, and five times as fast so.
  moving = moving[:angle_fft]
  turn = np.exp(-2j * np.pi * np.outer(np.arange(angle_fft), np.arange(len(moving))) / angle_fft)
  angle = np.stack([
      np.abs(turn.astype(moving.dtype) @ moving[:, s]).sum(1) for s in range(moving.shape[1])])
  velocity = np.abs(np.fft.fft(spectrum, velocity_fft, axis=2)).sum(0)
  return _unit(angle), _unit(velocity)


def read_cube(path: pathlib.Path, shape: tuple[int, ...] | None = None) -> np.ndarray:
  """The radar cube `[antennas, samples, chirps]` of a .npy or .mat file.

  Args:
    shape: what it must have; None: any of three axes.

  Raises:
    ValueError: names the file, its shape and the expected one.
  """
  try:
    if path.suffix == '.mat':
      from scipy.io import loadmat
      arrays = [v for k, v in loadmat(path).items() if not k.startswith('__') and np.ndim(v) == 3]
      if len(arrays) != 1:
        raise ValueError(f'{len(arrays)} arrays of three axes')
      cube = arrays[0]
    else:
      cube = np.load(path, allow_pickle=False)
  except ImportError as error:
    raise ValueError(f"{path}: reading .mat needs scipy; pip install scipy") from error
  except (OSError, EOFError, ValueError) as error:
    raise ValueError(f'{path}: no readable radar cube ({error}); copy it again') from error
  if cube.ndim != 3 or (shape is not None and cube.shape != tuple(shape)):
    wanted = '[antennas, samples, chirps]' if shape is None else list(shape)
    raise ValueError(f'{path}: radar cube of shape {list(cube.shape)}, expected {wanted} as in the '
                     "scenario's first file; remove its row or copy the file again")
  return cube


def read_map(path: pathlib.Path) -> np.ndarray:
  """A map from 0 to 1 that was computed before. Raises ValueError naming the file."""
  try:
    values = np.load(path, allow_pickle=False)
  except (OSError, EOFError, ValueError) as error:
    raise ValueError(f'{path}: no readable radar map ({error}); copy it again') from error
  if values.ndim != 2 or not (values.min() >= -1e-6 and values.max() <= 1 + 1e-6):
    raise ValueError(f'{path}: expected a map [range, bins] from 0 to 1, found {list(values.shape)}'
                     f' from {values.min():g} to {values.max():g}; compute it again')
  return values


def resized(values: np.ndarray, size: int) -> np.ndarray:
  """A map as float32 `[size, size]`: means over blocks, or repeats."""
  values = np.asarray(values, np.float32)
  if values.shape == (size, size):
    return values
  if all(n % size == 0 for n in values.shape):
    a, b = (n // size for n in values.shape)
    return values.reshape(size, a, size, b).mean((1, 3))
  try:
    import PIL.Image
  except ImportError as error:
    raise ValueError(EXTRA) from error
  return np.asarray(PIL.Image.fromarray(values).resize((size, size), PIL.Image.Resampling.BOX))


@dataclasses.dataclass(frozen=True)
class Files:
  """The files of one frame: paths from `root`; what is None is not there.

  Attributes:
    radar: the cube, or the range-angle and the range-velocity map. shape: of the cube.
  """
  scenario: int
  image: str
  lidar: str
  radar: tuple[str, ...]
  seg: str | None = None
  shape: tuple[int, ...] | None = None

  def all(self) -> list[str]:
    return [self.image, self.lidar, *self.radar, *([self.seg] if self.seg else [])]


def read_frame(files: Files, size: int, wide: bool = False) -> dict[str, np.ndarray]:
  """One frame: `image` uint8 `[s, s, 3]`, `lidar` uint8 `[s, s, 1]` counts, `radar` uint16
  `[s, s, 2]` (65535 = 1).

  Raises:
    ValueError: names the file that is unreadable or of another shape.
  """
  image = read_image(pathlib.Path(files.image), size, files.seg and pathlib.Path(files.seg))
  points = point_file.read(files.lidar)
  counts = lidar_histogram(points, field_of_view(files.scenario, wide), size)
  if len(files.radar) == 1:
    maps = radar_maps(read_cube(pathlib.Path(files.radar[0]), files.shape))
  else:
    maps = [read_map(pathlib.Path(p)) for p in files.radar]
  maps = np.stack([resized(m, size) for m in maps], -1)
  return dict(image=image, lidar=counts[..., None],
              radar=np.rint(np.clip(maps, 0, 1) * 65535).astype(np.uint16))
