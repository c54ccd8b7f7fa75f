"""The pictures of a report; importing this needs the extra `plots` (matplotlib, Pillow)."""

import json
import pathlib
from collections.abc import Mapping

import numpy as np
import PIL.Image

from stp_jax.metrics.events import known_units
from stp_jax.report import names, score_card, style


def rmse_by_lead(path: pathlib.Path, card: Mapping, split: str) -> pathlib.Path:
  """RMSE of the net and every baseline against lead time, one panel per stratum with frames."""
  scores = card['splits'][split]
  kind, clock = names.primary(scores, card), names.clock(card, scores)
  hours = scores['lead_hours'] if clock else list(range(1, scores['leads'] + 1))
  strata = [s for s, size in scores['strata'].items() if size['frames'] or s == 'all']
  panels = ['all', *(s for s in ('quiet', 'storm') if s in strata)] if len(strata) > 2 else ['all']
  figure = style.figure(5.2 * len(panels) + 2.4 * (len(panels) == 1), 4.2)
  shared = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
  days = clock and scores['frames_per_day'] > 1 and hours[-1] > 24
  top = _top(scores, kind, panels, days)
  for axes, stratum in zip(shared, panels):
    # A stratum is scarce: by day it is a number, by lead it would be noise.
    by_day = days and stratum != 'all'
    size = scores['frames_per_day']
    x = [np.mean(hours[i:i + size]) for i in range(0, len(hours), size)] if by_day else hours
    for name, each in names.ordered(scores['forecasts']).items():
      values = each[stratum]['by_day' if by_day else 'by_lead'][f'{kind}rmse']
      values = [np.nan if v is None else float(v) for v in values]
      text = names.label(name, card, scores)
      seen = [v for v in values if v < top]
      if stratum == 'all' and not seen and np.isfinite(values).any():
        text += f' (off scale: {np.nanmean(values):.1f})'
      axes.plot(x, values, marker='o' if len(x) < 12 else None, markersize=4, label=text,
                **{'linewidth': 1.5, **style.LINES.get(name, {})})
    size = scores['strata'][stratum]
    axes.set_title(
        f'split {split}: {size["windows"]} windows' if stratum == 'all' else
        f'{stratum}, by day: {size["frames"]} frames' if by_day else
        f'{stratum}: {size["frames"]} frames', fontsize=10)
    axes.set_xlabel('lead time [h]' if clock else 'lead [frames]')
    axes.set_xlim(0, hours[-1])
    axes.set_ylim(0, top)
    if days:
      axes.set_xticks(np.arange(0, hours[-1] + 1, 24 if hours[-1] <= 240 else 48))
    style.tidy(axes)
  weights = ', cosine-of-latitude weights' if kind else ''
  shared[0].set_ylabel(f'RMSE [{scores["units"]}]{weights}')
  handles, labels = shared[0].get_legend_handles_labels()
  figure.legend(
      handles, labels, loc='outside lower center' if len(panels) > 1 else 'outside right center',
      ncols=3 if len(panels) > 1 else 1, frameon=False, fontsize=9)
  figure.suptitle(title(card), fontsize=11)
  figure.savefig(path)
  return path


def _top(scores: Mapping, kind: str, panels: list[str], days: bool) -> float:
  """Upper end of the RMSE axis: a forecast far above the others must not squeeze them together."""
  peaks = {}
  for name, each in scores['forecasts'].items():
    values = [float(v) for p in panels
              for v in each[p]['by_day' if days and p != 'all' else 'by_lead'][f'{kind}rmse']
              if v is not None]
    peaks[name] = max(values, default=0.0)
  floor = max(peaks.get('net', 0), peaks.get('persistence', 0)) or max(peaks.values())
  return 1.1 * max([p for p in peaks.values() if p <= 1.5 * floor], default=1.0) or 1.0


def title(card: Mapping, more: str = '') -> str:
  mode = score_card.forcings_mode(card)
  parts = [
      card.get('name', ''), f'step {card["step"]}' if 'step' in card else '',
      f'future forcings: {mode}' if mode else '', more,
      'SIMULATED DATA' if score_card.is_simulated(card) else '']
  return ' · '.join(p for p in parts if p)


class Scales:
  """Common colour scales of truth, forecast and error."""

  def __init__(self, example: Mapping):
    truth, forecast = np.asarray(example['truth']), np.asarray(example['forecast'])
    both = np.concatenate([truth[np.isfinite(truth)], forecast[np.isfinite(forecast)]])
    self.colour = truth.ndim == 4  # a picture: its error is the mean of red, green and blue
    self.error = (forecast - truth).mean(-1) if self.colour else forecast - truth
    spread = self.error[np.isfinite(self.error)]
    low = 0.0 if both.size and both.min() >= 0 else float(both.min(initial=0))
    self.value = dict(cmap='viridis', vmin=low, vmax=float(both.max(initial=low + 1e-6)))
    if example.get('units') == 'of full scale' and example.get('latitude') is None:
      self.value = dict(cmap='gray', vmin=0.0, vmax=1.0)  # frames of a film
    kind, times = known_units(str(example.get('units', ''))), example.get('times')
    if kind == 'mm' and times is not None and np.size(times) > 1:
      # Rain that fell between two maps: the colours are those of its rate.
      step = np.diff(np.asarray(times).astype('datetime64[m]')[:2]).astype(float)[0]
      self.value = style.radar('mm/h', 60 / step)
    elif kind in ('dBZ', 'mm/h'):
      self.value = style.radar(kind)
    # A few pixels must not bleach the rest: beyond the 99.8th percentile the colour stays.
    width = float(np.percentile(abs(spread), 99.8)) if spread.size else 1.0
    self.difference = dict(cmap='RdBu_r', vmin=-max(width, 1e-6), vmax=max(width, 1e-6))


def when(example: Mapping, lead: int, cadence: float) -> str:
  """Title of a lead: hours ahead and, where the frames have a clock, the time."""
  ahead = (lead + 1) * cadence
  text = f'frame {lead + 1}' if not cadence else (
      f'+{ahead:g} h' if cadence >= 1 else f'+{round(60 * ahead)} min')
  times = example.get('times')
  if times is None or np.size(times) == 0:
    return text
  times = np.asarray(times).astype('datetime64[m]')
  first = len(times) - len(example['truth'])  # times may cover the input too
  return f'{text}\n{str(times[first + lead]).replace("T", " ")} UT'


def maps(path: pathlib.Path, card: Mapping, example: Mapping) -> pathlib.Path:
  """Truth, forecast and error at up to four lead times, common scales, north up."""
  truth = np.asarray(example['truth'])
  cadence = card.get('cadence_hours') if example.get('times') is not None else 0
  leads = sorted({round(x) for x in np.linspace(0, len(truth) - 1, min(4, len(truth)))})
  frame = style.MapFrame(truth.shape[1:3], example.get('latitude'), example.get('longitude'))
  scales, units = Scales(example), example.get('units', '')
  figure = style.figure((2.9 if frame.named else 2.1) * len(leads) + 1.6, 6.6)
  grid = figure.subplots(3, len(leads), squeeze=False)
  forecast = np.asarray(example['forecast'])
  rows = (('truth', truth, scales.value), ('forecast', forecast, scales.value),
          ('forecast - truth', scales.error, scales.difference))
  for i, (name, values, look) in enumerate(rows):
    for j, lead in enumerate(leads):
      image = frame.draw(grid[i, j], values[lead], left=j == 0, bottom=i == 2, **look)
      if i == 0:
        grid[i, j].set_title(when(example, lead, cadence), fontsize=9)
    grid[i, 0].set_ylabel(f'{name}\n{grid[i, 0].get_ylabel()}', fontsize=9)
    if i == 1 and not scales.colour:
      figure.colorbar(_mappable(scales.value), ax=list(grid[:2].flat), label=unit('', units),
                      fraction=0.05, pad=0.01)
    if i == 2:
      figure.colorbar(image, ax=list(grid[2]), label=unit('error', units), extend='both',
                      fraction=0.05, pad=0.01)
  figure.suptitle(title(card), fontsize=11)
  figure.savefig(path)
  return path


def _mappable(look: Mapping):
  normal = look.get('norm') or style.matplotlib.colors.Normalize(look['vmin'], look['vmax'])
  return style.matplotlib.cm.ScalarMappable(normal, look['cmap'])


def unit(what: str, units: str) -> str:
  text = {'TECU': 'total electron content', 'dBZ': 'reflectivity', 'mm': 'rain',
          'mm/h': 'rain rate'}.get(known_units(units) or units, 'value')
  return (what or text) + ('' if units in ('', '1') else f' [{units}]')


def animation(
    path: pathlib.Path, card: Mapping, example: Mapping, milliseconds: int = 200,
) -> pathlib.Path:
  """A GIF: truth, forecast and error side by side through the forecast, the last frame held."""
  truth, forecast = np.asarray(example['truth']), np.asarray(example['forecast'])
  cadence = card.get('cadence_hours') if example.get('times') is not None else 0
  frame = style.MapFrame(truth.shape[1:3], example.get('latitude'), example.get('longitude'))
  scales, units = Scales(example), example.get('units', '')
  figure = style.figure(11.5, 3.4)
  panels = figure.subplots(1, 3)
  columns = ((truth, 'truth', scales.value), (forecast, 'forecast', scales.value),
             (scales.error, 'forecast - truth', scales.difference))
  images = []
  for i, (axes, (values, name, look)) in enumerate(zip(panels, columns)):
    images.append(frame.draw(axes, values[0], left=i == 0, bottom=True, **look))
    axes.set_title(name, fontsize=10)
  if not scales.colour:
    figure.colorbar(images[1], ax=list(panels[:2]), label=unit('', units), pad=0.01)
  figure.colorbar(images[2], ax=panels[2], label=unit('error', units), extend='both', pad=0.02)
  heading = figure.suptitle('', fontsize=11)
  # The colours of a film are its own: those of the first picture, dithered.
  pictures, colours = [], None if scales.colour else palette(scales)
  dither = PIL.Image.Dither.FLOYDSTEINBERG if scales.colour else PIL.Image.Dither.NONE
  for lead in range(len(truth)):
    for image, (values, _, _) in zip(images, columns):
      image.set_data(frame.shown(values[lead]))
    heading.set_text(title(card, when(example, lead, cadence).replace('\n', ' · ')))
    figure.canvas.draw()
    if lead == 0:
      # From here on only the data moves; laying out anew would make the axes tremble.
      figure.set_layout_engine('none')
    picture = PIL.Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())
    colours = colours or picture.quantize(256)
    pictures.append(picture.quantize(palette=colours, dither=dither))
  pictures[0].save(
      path, save_all=True, append_images=pictures[1:], loop=0,
      duration=[milliseconds] * (len(pictures) - 1) + [5 * milliseconds])
  return path


def palette(scales: Scales) -> PIL.Image.Image:
  """Both colour scales and greys: one palette for all frames, or colours flicker and clump."""
  parts = []
  for look in (scales.value, scales.difference):
    colours = style.matplotlib.colormaps.get_cmap(look['cmap'])
    ends = [colours.get_under()[:3], colours.get_over()[:3]]
    parts.append(np.concatenate([colours(np.linspace(0, 1, 106))[:, :3], ends]))
  parts.append(np.linspace(0, 1, 40)[:, None].repeat(3, 1))
  image = PIL.Image.new('P', (1, 1))
  image.putpalette(np.round(np.concatenate(parts) * 255).astype(np.uint8).tobytes())
  return image


def training(path: pathlib.Path, metrics: pathlib.Path) -> pathlib.Path | None:
  """Loss, validation error, learning rate and gradient norm by step; None without any step."""
  rows = []
  for line in metrics.read_text().splitlines():
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      continue  # the half line of a run that was killed
  series: dict[str, tuple[list, list]] = {}
  for row in rows:
    for key, value in row.items():
      if key != 'step' and isinstance(value, int | float):
        steps, values = series.setdefault(key, ([], []))
        steps.append(row['step'])
        values.append(value)
  panels = [p for p in (
      ('loss', ['loss'], True), ('validation RMSE [units of the data]', ['validation/rmse'], False),
      ('learning rate', ['learning_rate'], False), ('gradient norm', ['grad_norm'], True))
      if any(k in series for k in p[1])]
  if not panels:
    return None
  figure = style.figure(4.2 * len(panels), 3.4)
  for axes, (name, keys, logarithmic) in zip(figure.subplots(1, len(panels), squeeze=False)[0],
                                              panels):
    for key in keys:
      steps, values = (np.asarray(x, float) for x in series[key])
      smooth = _smooth(values) if logarithmic else None  # what a schedule says is exact
      axes.plot(steps, values, color='#9ecae1' if smooth is not None else '#0072B2',
                linewidth=1.0, marker='.' if len(values) < 30 else None)
      if smooth is not None:
        axes.plot(steps, smooth, color='#0072B2', linewidth=1.6)
      if logarithmic and np.nanmin(values) > 0 and np.nanmax(values) > 4 * np.nanmin(values):
        axes.set_yscale('log')
    axes.set_title(name, fontsize=10)
    axes.set_xlabel('step')
    style.tidy(axes)
  figure.savefig(path)
  return path


def _smooth(values: np.ndarray) -> np.ndarray | None:
  """Running mean over a twentieth of the run; None for short or broken series."""
  width = len(values) // 20
  if width < 3 or not np.isfinite(values).all():
    return None
  padded = np.concatenate([np.full(width, values[:width].mean()), values])
  total = np.cumsum(np.concatenate([[0], padded]))
  return ((total[width:] - total[:-width]) / width)[1:]
