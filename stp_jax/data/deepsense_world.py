"""A road before a base station, as its camera, lidar, radar, beams and a phone's GPS see it.

SIMULATED. Right-handed frame of the base station: x is negative towards the road, y along it, both
in metres; phi = atan2(y, -x) is the bearing. Beam b of 64 points to phi = 90 deg (b / 63 - 1/2), so
mirroring y, the picture, the angle and the beams belongs together.
"""

import dataclasses

import numpy as np

from stp_jax.data import deepsense_gps
from stp_jax.data.deepsense_csv import BEAMS
from stp_jax.data.deepsense_sensors import FIELD, NIGHT

# Where arctan(north / east) of the boresight stands, degrees; the loaders take this off.
HEADING = {31: -50.52, 32: 44.8, 33: 55.6, 34: -60.0}
STATION = {31: (33.41992, -111.92910), 32: (33.42094, -111.93101), 33: (33.42110, -111.93062),
           34: (33.41870, -111.92880)}
LANES = {31: (-12.0, -16.0), 32: (-11.0, -15.0), 33: (-8.5, -11.5), 34: (-9.5, -13.0)}
STEP = 0.1  # seconds between frames
_SPAN = np.pi / 2  # of all beams
_CAR = (4.3, 1.8, 1.5)  # metres along the road, across it, and high
_CAMERA = 2.2  # height of camera and lidar above the road
_REACH = 64.0  # metres over all range bins


@dataclasses.dataclass(frozen=True)
class Box:
  """An upright box that stands on the road: centre, size along x, y, z, colour."""
  x: float
  y: float
  size: tuple[float, float, float]
  colour: tuple[int, int, int]


def background(seed: int, scenario: int) -> list[Box]:
  """What stands still: houses behind the road, poles and parked cars, the same in every frame."""
  rng = np.random.default_rng((seed, scenario))
  behind = LANES[scenario][1]
  boxes = []
  y = -60.0
  while y < 60:
    width = rng.uniform(8, 18)
    grey = rng.integers(90, 170)
    boxes.append(Box(behind - rng.uniform(16, 24), y + width / 2, (6, width, rng.uniform(4, 11)), (
        int(grey), int(grey * rng.uniform(0.7, 1)), int(grey * rng.uniform(0.6, 0.9)))))
    y += width + rng.uniform(0, 6)
  for _ in range(4):
    boxes.append(Box(behind - 4.5, rng.uniform(-18, 18), (0.3, 0.3, 5.0), (70, 70, 75)))
  for _ in range(2):
    shade = int(rng.integers(60, 200))
    boxes.append(Box(behind - 7, rng.uniform(-20, 20), (_CAR[1], _CAR[0], _CAR[2]),
                     (shade, shade, shade)))
  return boxes


@dataclasses.dataclass(frozen=True)
class Pass:
  """A vehicle's drive through the scene: `y(t)`, its lane and look, and its GPS receiver's bias."""
  scenario: int
  x: float
  start: float
  speed: float  # along y, signed, m/s
  colour: tuple[int, int, int]
  bias: np.ndarray  # of its positions, metres [2]

  def where(self, frame: int) -> tuple[float, float]:
    return self.x, self.start + self.speed * STEP * frame

  def car(self, frame: int) -> Box:
    x, y = self.where(frame)
    return Box(x, y, (_CAR[1], _CAR[0], _CAR[2]), self.colour)


def drive(rng: np.random.Generator, scenario: int, frames: int, gps_noise: float) -> Pass:
  """A vehicle on one of two lanes, whose bearing stays inside the beams and the lidar's field."""
  lane = int(rng.integers(2))
  x = LANES[scenario][lane] + rng.normal(0, 0.4)
  low, high = FIELD[scenario][1]
  edge = -x * np.tan(0.98 * _SPAN / 2)
  low, high = max(low + 1, -edge), min(high - 1, edge)
  speed = min(rng.uniform(4, 12), (high - low) / (STEP * max(frames - 1, 1)))
  way = speed * STEP * (frames - 1)
  start = rng.uniform(low, max(low, high - way))  # the fastest drive fills the span
  if lane:  # the far lane runs the other way
    start, speed = start + way, -speed
  colour = tuple(int(c) for c in rng.integers(30, 255, 3))
  return Pass(scenario, x, start, speed, colour, rng.normal(0, gps_noise, 2))


def beams(rng: np.random.Generator, x: float, y: float) -> np.ndarray:
  """Received power at 60 GHz of each beam, `[64]`; the best is the label."""
  centre = (np.arctan2(y, -x) / _SPAN + 0.5) * (BEAMS - 1)
  away = np.arange(BEAMS) - centre
  gain = np.exp(-0.5 * (away / 1.3) ** 2) + 0.03 * np.sinc(away / 4) ** 2
  power = gain * 60 / (x * x + y * y) * np.exp(rng.normal(0, 0.02, BEAMS))
  return power + np.abs(rng.normal(0, 2e-3, BEAMS))


def position(rng: np.random.Generator, drive: Pass, frame: int, noise: float) -> np.ndarray:
  """Latitude and longitude that the vehicle's receiver gives, degrees `[2]`."""
  x, y = drive.where(frame)
  heading = np.deg2rad(HEADING[drive.scenario])
  ahead = np.array([np.cos(heading), np.sin(heading)])
  metres = -x * ahead + y * np.array([-ahead[1], ahead[0]])
  metres = metres + drive.bias + rng.normal(0, noise / 4, 2)
  station = np.array(STATION[drive.scenario])
  d = 1e-5
  corners = deepsense_gps.utm(station + d * np.array([(0, 0), (1, 0), (0, 1)]))
  return station + np.linalg.solve((corners[1:] - corners[0]).T / d, metres)


def cloud(rng: np.random.Generator, boxes: list[Box], car: Box, points: int) -> np.ndarray:
  """Lidar points `[N, 3]`: faces turned to the sensor, the ground, and strays."""
  parts = []
  for box in [*boxes, car]:
    depth, width, height = box.size
    distance = np.hypot(box.x, box.y)
    # As many as the solid angle of the face has beams; a far house is not more than a near car.
    count = int(np.clip(points * 1.2 * width * height / distance**2, 4, points / 4))
    y = box.y + width * rng.uniform(-0.5, 0.5, count)
    face = box.x + depth / 2
    side = rng.uniform(size=count) < 0.25
    x = np.where(side, face - depth * rng.uniform(size=count), face)
    y = np.where(side, box.y - np.sign(box.y) * width / 2, y)
    parts.append(np.stack([x, y, height * rng.uniform(size=count) - _CAMERA], 1))
  count = points // 3
  distance, bearing = 5 * rng.integers(1, 8, count), rng.uniform(-1.3, 1.3, count)
  parts.append(np.stack([-distance * np.cos(bearing), distance * np.sin(bearing),
                         np.full(count, -_CAMERA)], 1))
  parts.append(np.stack([rng.uniform(-70, 0, count // 8), rng.uniform(-40, 40, count // 8),
                         rng.uniform(-2, 4, count // 8)], 1))
  cloud = np.concatenate(parts)
  return cloud + rng.normal(0, 0.04, cloud.shape)


def radar(
    rng: np.random.Generator, boxes: list[Box], drive: Pass, frame: int, shape,
) -> np.ndarray:
  """A radar cube, complex64 `[antennas, samples, chirps]`: car, still clutter, noise."""
  antennas, samples, chirps = shape
  a, s, c = np.arange(antennas), np.arange(samples), np.arange(chirps)
  x, y = drive.where(frame)
  echoes = [(box.x, box.y, 0.0, 10 * box.size[1] * box.size[2]) for box in boxes]
  # The body moves as one; wheels and shaking keep it visible where it crosses at a right angle.
  echoes += [(x, y + d, drive.speed, 250.0) for d in (-1.6, 0.0, 1.6)]
  echoes += [(x, y + d, drive.speed + rng.normal(0, 5), 80.0) for d in (-1.4, 1.4)]
  cube = 8 * (rng.normal(size=shape) + 1j * rng.normal(size=shape))
  for ex, ey, speed, strength in echoes:
    distance, bearing = np.hypot(ex, ey), np.arctan2(ey, -ex)
    radial = speed * np.sin(bearing) + (rng.normal(0, 0.6) if speed else 0)
    wave = strength * 12 / distance * np.exp(2j * np.pi * rng.uniform())
    cube = cube + wave * (
        np.exp(1j * np.pi * a * np.sin(bearing))[:, None, None]
        * np.exp(2j * np.pi * distance / _REACH * s)[:, None]
        * np.exp(2j * np.pi * radial / 30 * c))
  return cube.astype(np.complex64)


def picture(rng: np.random.Generator, boxes: list[Box], car: Box, size, night: bool) -> np.ndarray:
  """The camera's view in daylight or at night (dark, with headlights), uint8 `[H, W, 3]`."""
  import PIL.Image
  import PIL.ImageDraw

  width, height = size
  focal = width / 2 / np.tan(np.deg2rad(50))
  horizon = 0.42 * height
  image = PIL.Image.new('RGB', size, (150, 180, 215))
  draw = PIL.ImageDraw.Draw(image)

  def pixel(x, y, z):  # y to the right, so that a larger bearing, and beam, is further right
    return (width / 2 + focal * y / -x, horizon + focal * (_CAMERA - z) / -x)

  draw.rectangle([0, horizon, width, height], fill=(118, 116, 104))
  draw.polygon([pixel(-5, -60, 0), pixel(-5, 60, 0), pixel(-19, 60, 0), pixel(-19, -60, 0)],
               fill=(84, 84, 88))
  for y in np.arange(-30, 30, 4.0):
    line = [pixel(-x, y + d, 0) for x, d in ((12.3, 0), (12.3, 2), (12.5, 2), (12.5, 0))]
    draw.polygon(line, fill=(210, 205, 180))
  lights = []
  for box in sorted([*boxes, car], key=lambda b: b.x):
    depth, along, tall = box.size
    near, far = box.x + depth / 2, box.x - depth / 2
    left, right = box.y - along / 2, box.y + along / 2
    side = left if box.y > 0 else right  # the end wall that the camera sees
    darker = tuple(int(0.6 * c) for c in box.colour)
    draw.polygon([pixel(near, side, 0), pixel(far, side, 0), pixel(far, side, tall),
                  pixel(near, side, tall)], fill=darker)
    draw.polygon([pixel(near, left, 0), pixel(near, right, 0), pixel(near, right, tall),
                  pixel(near, left, tall)], fill=box.colour)
    if box is car:
      draw.polygon([pixel(near, left + 0.8, 0.8), pixel(near, right - 0.8, 0.8),
                    pixel(near, right - 1, 1.35), pixel(near, left + 1, 1.35)], fill=(40, 45, 55))
      lights = [pixel(near, left + 0.1, 0.6), pixel(near, right - 0.1, 0.6)]
      for wheel in (left + 0.8, right - 0.8):
        u, v = pixel(near, wheel, 0.3)
        r = 0.33 * focal / -near
        draw.ellipse([u - r, v - r, u + r, v + r], fill=(20, 20, 20))
  pixels = np.asarray(image, np.float64)
  if night:
    rows, columns = np.mgrid[:height, :width]
    glow = sum(np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / (0.012 * width) ** 2 / 2)
               for u, v in lights)
    pixels = 0.12 * pixels * (0.6, 0.7, 1.0) + 230 * glow[..., None] * (1.0, 0.95, 0.8)
  return np.clip(np.rint(pixels + rng.normal(0, 2.5, pixels.shape)), 0, 255).astype(np.uint8)


def enhanced(dark: np.ndarray) -> np.ndarray:
  """A night picture brightened as the published ones were: visible, pale and noisy."""
  return np.clip(np.rint(255 * (dark / 255) ** 0.55), 0, 255).astype(np.uint8)


def is_night(scenario: int) -> bool:
  return scenario in NIGHT
