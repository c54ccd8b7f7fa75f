"""Pictures of one forecast: a PNG for every lead time, and a GIF. Needs the extra `plots`."""

import pathlib
from collections.abc import Mapping

import numpy as np
import PIL.Image

from stp_jax.report import plots, style


def write(folder: pathlib.Path, card: Mapping, result: Mapping) -> list[pathlib.Path]:
  """Writes `maps/lead_<hours>h.png` (`_<minutes>min` below an hour apart) and `forecast.gif`.

  Args:
    folder: exists.
    card: `name`, `step`, `cadence_hours`, `data` as in `report.write`; titles come from it.
    result: `forecast` `[T, H, W]`, `times` `[T]`, `truth` (NaN where unknown), `latitude`,
      `longitude`, `units`.

  Returns:
    The files. The GIF shows truth and error beside the forecast where the whole truth is known.
  """
  forecast = np.asarray(result['forecast'])
  maps = folder / 'maps'
  maps.mkdir()
  known = result.get('truth') is not None and np.isfinite(result['truth']).any((1, 2)).all()
  scales = plots.Scales(dict(result, truth=result['truth'] if known else forecast))
  frame = style.MapFrame(forecast.shape[1:], result.get('latitude'), result.get('longitude'))
  figure = style.figure(7.2, 4.0)
  axes = figure.subplots()
  image = frame.draw(axes, forecast[0], left=True, bottom=True, **scales.value)
  figure.colorbar(image, ax=axes, label=plots.unit('', result.get('units', '')), pad=0.02)
  cadence, pictures, paths = card['cadence_hours'], [], []
  for lead, values in enumerate(forecast):
    image.set_data(np.ma.masked_invalid(values[::-1] if frame.flip else values))
    figure.suptitle(plots.title(card, plots.when(
        dict(result, truth=forecast), lead, cadence).replace('\n', ' · ')), fontsize=10)
    hours = (lead + 1) * cadence
    paths.append(maps / (f'lead_{hours:03g}h.png' if cadence >= 1 else
                         f'lead_{60 * hours:03.0f}min.png'))
    figure.savefig(paths[-1])
    if lead == 0:
      figure.set_layout_engine('none')  # only the data moves from here on
    with PIL.Image.open(paths[-1]) as picture:
      pictures.append(picture.convert('RGB').quantize(
          palette=plots.palette(scales), dither=PIL.Image.Dither.NONE))
  if known:
    paths.append(plots.animation(folder / 'forecast.gif', card, result))
  else:
    paths.append(folder / 'forecast.gif')
    pictures[0].save(paths[-1], save_all=True, append_images=pictures[1:], loop=0, duration=200)
  return paths
