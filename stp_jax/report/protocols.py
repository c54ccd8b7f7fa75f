"""How a forecast may see the future, and whose conventions score it: the words of a card."""

import math
from collections.abc import Mapping

from stp_jax.report import names
from stp_jax.report.names import table

FORCINGS = {
    'persist': 'unknown drivers keep their last value available at issue time',
    'observed': 'FUTURE DRIVERS OBSERVED: values measured after issue time were used',
    'forecast': "the driver file's own predictions",
    'none': 'training means',
}
# What heads a card, see `config.protocol`.
NAMES = {
    'standard': 'standard',
    'upstream': "upstream: the originals' conventions, every pixel counts the same",
}


def markdown(card: Mapping, scores: Mapping) -> list[str]:
  """The net's scores under both protocols, that of the card first."""
  net = names.net(scores)['all']
  if 'mse_sum' not in net:
    return []
  n = names.number
  standard = [
      ('RMSE', n(net['rmse']), scores['units'], 'valid pixels, each counts the same'),
      ('SSIM', n(net.get('ssim'), 4), '1', 'data range 1, 7x7 window, valid windows'),
      ('PSNR', n(net.get('psnr')), 'dB', 'data range 1'),
      ('SNR', n(net.get('snr')), 'dB', '')]
  root = None if net['mse_sum'] is None else float(net['mse_sum'])**0.5
  upstream = [
      ('mse', n(net['mse_sum'], 4), '1', 'sum over the pixels of a frame, mean over frames'),
      ('mae', n(net['mae_sum'], 4), '1', 'likewise'),
      ('rmse', n(root, 4), '1', 'root of that mse'),
      ('ssim', n(net.get('upstream_ssim'), 4), '1', 'data range 2 on frames in 0..1: too high'),
      ('psnr', n(net.get('upstream_psnr')), 'dB', 'prediction clipped to 0..1'),
      ('snr', n(net.get('upstream_snr')), 'dB', 'prediction clipped to 0..1')]
  if card.get('divisor') and card.get('shape') and root is not None:
    size = math.prod(card['shape'])
    upstream += [
        ('RMSE', n(card['divisor'] * root / size**0.5), scores['units'], 'every pixel of a frame'),
        ('MAE', n(card['divisor'] * float(net['mae_sum']) / size), scores['units'], 'likewise')]
  header = ('score of the net', 'value', 'unit', 'how')
  both = [
      ['**Protocol `standard`** (RMSE in physical units, the rest of frames scaled to 0..1)', '',
       *table(header, standard, left=(0, 2, 3))],
      ['**Protocol `upstream`** (frames scaled to 0..1, padding rows included: only to compare '
       'with published tables)', '', *table(header, upstream, left=(0, 2, 3))]]
  return [line for part in (both[::-1] if card.get('protocol') == 'upstream' else both)
          for line in part]


def modes(scores: Mapping, kind: str, units: str) -> list[str]:
  """What the other way of seeing future drivers gives."""
  lines = [
      f'Future forcings `{mode}` ({FORCINGS.get(mode, "")}): RMSE '
      f'{names.number(scores["forecasts"][name]["all"][f"{kind}rmse"])}{units}.'
      for name, mode in scores.get('modes', {}).items() if name != 'net']
  if 'modes_lacking' in scores:
    lines.append(f'Future forcings `{scores["modes_lacking"]}`: not scored, because drivers that '
                 'the net reads have gaps.')
  return lines
