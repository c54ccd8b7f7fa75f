"""One look for every picture: figures without global state, thin axes, colours by forecast."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from stp_jax.report import geography

# Okabe and Ito's colours keep apart for colour-blind eyes; dashes keep lines apart in print.
LINES = {
    'net': dict(color='black', linewidth=2.4, zorder=5),
    'net_observed': dict(color='black', linewidth=1.2, linestyle=(0, (1, 1)), zorder=4),
    'net_persist': dict(color='black', linewidth=1.2, linestyle=(0, (1, 1)), zorder=4),
    'persistence': dict(color='#D55E00', linestyle='--'),
    'damped_persistence': dict(color='#E69F00', linestyle='-.'),
    'hourly_climatology': dict(color='#999999', linestyle=':'),
    'scaled_climatology': dict(color='#56B4E9', linestyle='-.'),
    'ar_blend': dict(color='#0072B2', linestyle='-'),
    'optical_flow': dict(color='#009E73', linestyle='-.'),
    'iri': dict(color='#009E73', linestyle='-'),
    'recurrence_27d': dict(color='#CC79A7', linestyle='--'),
    'c1pg': dict(color='#CC79A7', linestyle='-'),
    'c2pg': dict(color='#F0E442', linestyle='-'),
    'climatology': dict(color='#999999', linestyle=':'),
}
# Of radar maps: white where it is dry, then blue, green, yellow, red and violet with intensity.
_RADAR = ('#ffffff', '#a6d3f2', '#3f8fd6', '#1b4fa0', '#2fae4e', '#8fd14f', '#fff04a', '#fbb12d',
          '#e8432e', '#a4141f', '#8e2a9c')
_LEVELS = {'dBZ': (5, 10, 15, 20, 25, 30, 35, 40, 45, 50),
           'mm/h': (0.1, 0.5, 1, 2, 4, 8, 12, 20, 40, 80)}


def radar(kind: str, factor: float = 1.0) -> dict:
  """What `imshow` takes for radar maps: colours in steps, the same in every picture.

  Args:
    kind: 'dBZ' or 'mm/h'. factor: value in that unit = value of the map * factor.
  """
  levels = np.array(_LEVELS[kind]) / factor
  colours = matplotlib.colors.ListedColormap(_RADAR[1:-1]).with_extremes(
      under=_RADAR[0], over=_RADAR[-1])
  colours.colorbar_extend = 'max'
  return dict(cmap=colours, norm=matplotlib.colors.BoundaryNorm(levels, len(_RADAR) - 2))


def figure(width: float, height: float) -> Figure:
  """A figure in inches that belongs to no window system and needs no closing."""
  made = Figure(figsize=(width, height), layout='constrained', dpi=110)
  FigureCanvasAgg(made)
  return made


def tidy(axes: Axes, grid: bool = True) -> None:
  """No frame on the right and top, a faint grid behind the lines."""
  axes.spines[['top', 'right']].set_visible(False)
  if grid:
    axes.grid(color='#dddddd', linewidth=0.6)
    axes.set_axisbelow(True)


class MapFrame:
  """Where a map stands: `extent` for `imshow` with north up, axis labels and ticks."""

  def __init__(self, shape, latitude=None, longitude=None):
    height, width = shape
    self.named = latitude is not None and longitude is not None and (
        len(latitude) == height and len(longitude) == width)
    if self.named:
      lat, lon = np.asarray(latitude, float), np.asarray(longitude, float)
      dlat, dlon = abs(lat[1] - lat[0]) / 2, abs(lon[1] - lon[0]) / 2
      # Row 0 may be the north or the south end: `flip` brings north to the top either way.
      self.flip = lat[0] < lat[-1]
      self.extent = (lon[0] - dlon, lon[-1] + dlon, lat.min() - dlat, lat.max() + dlat)
      # Coasts this coarse are for maps of the whole Earth.
      self.globe = lon[-1] - lon[0] > 300 and np.ptp(lat) > 120 and abs(lat).max() <= 90
    else:
      self.globe = False
      self.flip, self.extent = False, (-0.5, width - 0.5, height - 0.5, -0.5)

  def shown(self, values: np.ndarray) -> np.ndarray:
    """What an image of matplotlib takes: north up, missing what is missing masked."""
    values = values[::-1] if self.flip else values
    if values.ndim == 3:
      return np.clip(np.nan_to_num(values), 0, 1)
    return np.ma.masked_invalid(values)

  def draw(self, axes: Axes, values: np.ndarray, left: bool, bottom: bool, **options):
    """Draws `[H, W]`, or a picture `[H, W, 3]` in 0..1; labels only at the left and bottom edge."""
    values = self.shown(values)
    image = axes.imshow(
        values, extent=self.extent, origin='upper', interpolation='nearest',
        aspect='auto' if self.named else 'equal', **options)
    axes.set_facecolor('#bbbbbb')  # missing
    if self.named:
      west, east, south, north = self.extent
      step = 90 if east - west > 200 else None
      if step:
        axes.set_xticks(np.arange(-180, 361, step))
      if north - south > 100:
        axes.set_yticks(np.arange(-60, 61, 30))
      if self.globe:
        # Dark on the pale middle of a difference, pale on the dark lower end of other scales.
        dark = str(options.get('cmap', '')).startswith(('RdBu', 'gray_r'))
        self.line(axes, geography.coastline(), color='#444444' if dark else '#f4f4f4')
      axes.set_xlim(west, east)
      axes.set_ylim(south, north)
    axes.tick_params(labelleft=left, labelbottom=bottom, labelsize=8)
    if left:
      axes.set_ylabel('latitude [°N]' if self.named else 'row', fontsize=8)
    if bottom:
      axes.set_xlabel('longitude [°E]' if self.named else 'column', fontsize=8)
    return image

  def line(self, axes: Axes, line: np.ndarray, **look):
    """Draws `[N, 2]` longitude and latitude, cut at the map's edge; returns the artist."""
    drawn = geography.wrapped(line, self.extent[0])
    made = axes.plot(*drawn.T, **{'linewidth': 0.5, 'alpha': 0.8, 'zorder': 2, **look})[0]
    made.set_in_layout(False)  # it never leaves the panel; measuring it anew takes long
    return made


__all__ = ['LINES', 'MapFrame', 'figure', 'matplotlib', 'tidy']
