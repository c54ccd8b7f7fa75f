"""The pictures of `compare`; importing this needs the extra `plots` (matplotlib, Pillow)."""

import pathlib
import textwrap
from collections.abc import Sequence

import numpy as np
import PIL.Image

from stp_jax.report import geography, plots, score_card, style
from stp_jax.report import names as words

_TECU = 10.0  # errors, both ways, as in the paper


class Lines:
  """Magnetic equator and terminator on a panel.

  Raises:
    ValueError: a map that is not of the whole Earth; a terminator without times.
  """

  def __init__(self, found, magnetic_equator: bool = False, terminator: bool = False):
    self.frame = style.MapFrame(found.truth.shape[1:], found.latitude, found.longitude)
    self._times, self._equator, self._terminator = found.times, magnetic_equator, terminator
    if (magnetic_equator or terminator) and not self.frame.globe:
      name = '--magnetic-equator' if magnetic_equator else '--terminator'
      raise ValueError(f'{name}: the maps do not cover the whole Earth')
    if terminator and found.times is None:
      raise ValueError('--terminator: the frames of this window have no times')

  def draw(self, axes, lead: int, dark: bool):
    """Draws them; returns the terminator's artist, or None."""
    look = dict(color='#111111' if dark else '#ffffff', alpha=1.0, zorder=3)
    if self._equator:
      self.frame.line(axes, geography.magnetic_equator(), linestyle='-.', **look | {
          'linewidth': 0.9})
    if self._terminator:
      return self.frame.line(axes, geography.terminator(self._times[lead]), linestyle='--',
                             **look | {'linewidth': 1.1})
    return None

  def move(self, artist, lead: int) -> None:
    """Moves the terminator to the time of another lead."""
    if artist is not None:
      artist.set_data(*geography.wrapped(
          geography.terminator(self._times[lead]), self.frame.extent[0]).T)

  @property
  def legend(self) -> str:
    parts = ['error = forecast - truth; RMSE over the cells that are there, unweighted; grey: '
             'missing']
    if self._equator:
      parts.append('dash-dotted: magnetic equator (quasi-dipole latitude 0 of 2012)')
    if self._terminator:
      parts.append('dashed: terminator (Sun on the horizon)')
    return '; '.join(parts)


def _scales(found) -> plots.Scales:
  """Common colours of all maps, and of all errors; those of TEC are fixed."""
  many = len(found.forecasts)
  scales = plots.Scales(dict(
      truth=np.concatenate([found.truth] * many), times=found.times, units=found.units,
      forecast=np.concatenate([f.values for f in found.forecasts]), latitude=found.latitude))
  if found.units == 'TECU':
    scales.difference = dict(cmap='RdBu_r', vmin=-_TECU, vmax=_TECU)
  return scales


def _heading(found) -> str:
  data = ', '.join(dict.fromkeys(d['name'] for d in found.data))
  issued = ''
  if found.times is not None:
    step = np.timedelta64(round(60 * found.cadence_hours), 'm')
    issued = f' · issued {str(found.times[0] - step).replace("T", " ")} UT'
  return f'{data}, split {found.split}, window {found.index}{issued}' + (
      ' · SIMULATED DATA' if score_card.is_simulated(dict(data=found.data)) else '')


def _when(found, lead: int) -> str:
  cadence = found.cadence_hours if found.times is not None else 0
  return plots.when(dict(truth=found.truth, times=found.times), lead, cadence)


def _rmse(found, forecast) -> list[str]:
  """Titles of the error panels, by lead."""
  error = forecast.values - found.truth
  units = '' if found.units == '1' else f' {found.units}'
  titles = []
  for frame in error:
    there = frame[np.isfinite(frame)].astype(np.float64)
    value = np.sqrt(np.mean(there ** 2)) if there.size else None
    titles.append(f'RMSE {words.number(value)}{units}')
  return titles


def _name(text: str, width: int = 24) -> str:
  """A row's label on as many lines as it takes."""
  parts = textwrap.wrap(text.replace('_', '_\u200b'), width, break_on_hyphens=True)
  return '\n'.join(parts).replace('\u200b', '')


def _panel_width(lines: Lines, shape: Sequence[int]) -> float:
  return 2.7 if lines.frame.named else max(1.6, min(3.2, 1.7 * shape[1] / shape[0]))


def figure(path: pathlib.Path, found, leads: Sequence[int], lines: Lines) -> None:
  """Rows: truth, every run, every run's error; columns: leads."""
  frame, scales = lines.frame, _scales(found)
  many, across = len(found.forecasts), len(leads)
  made = style.figure(_panel_width(lines, found.truth.shape[1:]) * across + 1.9,
                      1.62 * (1 + 2 * many) + 1.1)
  grid = made.subplots(1 + 2 * many, across, squeeze=False)
  rows = [('truth', found.truth, scales.value, None)]
  rows += [(f.title, f.values, scales.value, None) for f in found.forecasts]
  rows += [(f'error: {f.title}', f.values - found.truth, scales.difference, _rmse(found, f))
           for f in found.forecasts]
  for i, (name, values, look, titles) in enumerate(rows):
    for j, lead in enumerate(leads):
      axes = grid[i, j]
      frame.draw(axes, values[lead], left=j == 0, bottom=i == len(rows) - 1, **look)
      lines.draw(axes, lead, dark=titles is not None)
      axes.set_ylabel(_name(name) if j == 0 else '', fontsize=9)
      if titles or i == 0:
        axes.set_title(titles[lead] if titles else _when(found, lead), fontsize=9)
  _bars(made, list(grid[:1 + many].flat), list(grid[1 + many:].flat), scales, found.units,
        1 + many, many)
  made.suptitle(_heading(found), fontsize=12)
  width = round(15 * made.get_figwidth())
  made.supxlabel('\n'.join(textwrap.wrap(lines.legend, width)), fontsize=8.5)
  made.savefig(path)


def _bars(made, maps, differences, scales, units: str, high: int, low: int) -> None:
  """The two colour bars, of one thickness whatever they stand beside."""
  for axes, look, label, extend, rows in (
      (maps, scales.value, plots.unit('', units), 'neither', high),
      (differences, scales.difference, plots.unit('error', units), 'both', low)):
    made.colorbar(plots._mappable(look), ax=axes, label=label, extend=extend, pad=0.01,
                  fraction=0.04, aspect=11 * rows, extendfrac=0.05 / rows)


def film(path: pathlib.Path, found, lines: Lines, milliseconds: int = 250) -> None:
  """A GIF over all leads: a row for every run, with truth, forecast and error side by side."""
  frame, scales = lines.frame, _scales(found)
  many = len(found.forecasts)
  made = style.figure(3.75 * _panel_width(lines, found.truth.shape[1:]) + 2.4, 2.15 * many + 1.4)
  grid = made.subplots(many, 3, squeeze=False)
  images = []
  for i, forecast in enumerate(found.forecasts):
    columns = ((found.truth, scales.value), (forecast.values, scales.value),
               (forecast.values - found.truth, scales.difference))
    for j, (values, look) in enumerate(columns):
      axes = grid[i, j]
      image = frame.draw(axes, values[0], left=j == 0, bottom=i == many - 1, **look)
      images.append((axes, image, values, lines.draw(axes, 0, dark=j == 2),
                     _rmse(found, forecast) if j == 2 else None))
      if i == 0 and j < 2:
        axes.set_title(('truth', 'forecast')[j], fontsize=10)
    grid[i, 0].set_ylabel(_name(forecast.title), fontsize=9)
    grid[i, 2].set_title(images[-1][4][0], fontsize=10)
  made.colorbar(plots._mappable(scales.value), ax=list(grid[:, :2].flat), pad=0.01, fraction=0.04,
                label=plots.unit('', found.units), aspect=14 * many)
  made.colorbar(plots._mappable(scales.difference), ax=list(grid[:, 2]), pad=0.02, fraction=0.06,
                label=plots.unit('error', found.units), extend='both', aspect=14 * many,
                extendfrac=0.05 / many)
  heading = made.suptitle('x\nx', fontsize=11)
  made.supxlabel('\n'.join(textwrap.wrap(lines.legend, round(15 * made.get_figwidth()))),
                 fontsize=8.5)
  colours, pictures = plots.palette(scales), []
  for lead in range(len(found.truth)):
    for axes, image, values, artist, titles in images:
      image.set_data(frame.shown(values[lead]))
      lines.move(artist, lead)
      if titles:
        axes.set_title(titles[lead], fontsize=10)
    heading.set_text(_heading(found) + '\n' + _when(found, lead).replace('\n', ' · '))
    made.canvas.draw()
    if lead == 0:
      made.set_layout_engine('none')  # only the data moves from here on
    picture = PIL.Image.fromarray(np.asarray(made.canvas.buffer_rgba())[..., :3].copy())
    pictures.append(picture.quantize(palette=colours, dither=PIL.Image.Dither.NONE))
  pictures[0].save(path, save_all=True, append_images=pictures[1:], loop=0,
                   duration=[milliseconds] * (len(pictures) - 1) + [5 * milliseconds])
