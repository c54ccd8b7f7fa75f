"""Where IONEX files of a day are kept, under which names, and how to fetch a range of days.

Two archives: AIUB (CODE's own, no login) and CDDIS (all centres; a free Earthdata login, so that a
plain request gets a login page, which is recognised). `STP_JAX_IONEX_AIUB`, `STP_JAX_IONEX_CDDIS`
or `--archive` name other addresses: a mirror in either layout, or a flat folder, `file:///...` too.

Names changed with GPS week 2238 (27 November 2022): `codg3230.12i.Z` became
`COD0OPSFIN_20223310000_01D_01H_GIM.INX.gz`; both are tried, the likelier first. CODE's forecasts
(C1PG and C2PG, one and two days ahead) share the name COD0OPSPRD and differ by their folder; since
autumn 2026 they are called P0D and P1D. They are kept in folders of their own.
"""

import os
import pathlib
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from stp_jax.data import fetch

AIUB = 'https://www.aiub.unibe.ch/download/CODE'
CDDIS = 'https://cddis.nasa.gov/archive/gnss/products/ionex'
PRODUCTS = ('best', 'final', 'rapid', 'predicted1', 'predicted2')
_RENAMED = np.datetime64('2022-11-27', 'D')
_RAPID = {'cod': 'cor', 'igs': 'igr', 'jpl': 'jpr', 'esa': 'esr', 'upc': 'upr', 'whu': 'whr'}
_PREDICTED = {'cod': 'c', 'igs': 'i', 'esa': 'e', 'upc': 'u', 'jpl': 'j'}


def names(day: np.datetime64, centre: str, product: str) -> list[str]:
  """File names of a day's product, the likeliest first, for maps every hour and every two.

  Args:
    day: datetime64[D]. centre: three letters. product: one of PRODUCTS but 'best'.

  Raises:
    ValueError: an unknown product, or one that the centre does not make.
  """
  centre = centre.lower()
  if len(centre) != 3 or not centre.isalnum():
    raise ValueError(f'--centre {centre}: three letters, such as cod, jpl, igs, esa, upc')
  when = day.astype('datetime64[D]').item()
  if product == 'final':
    old, kinds = centre, ['FIN']
  elif product == 'rapid':
    old, kinds = _RAPID.get(centre), ['RAP']
  elif product in ('predicted1', 'predicted2'):
    letter, ahead = _PREDICTED.get(centre), product[-1]
    old = letter and f'{letter}{ahead}p'
    kinds = ['PRD', f'P{int(ahead) - 1}D']
  else:
    raise ValueError(f'--product {product}: choose one of {" ".join(PRODUCTS)}')
  new = [f'{centre.upper()}0OPS{kind}_{when:%Y%j}0000_01D_{step}_GIM.INX.gz'
         for kind in kinds for step in ('01H', '02H')]
  short = [f'{old}g{when:%j}0.{when:%y}i'] if old else []
  # AIUB writes capitals, CDDIS small letters; .gz since late 2020.
  older = [f'{n}{end}' for s in short for n in (s.upper(), s) for end in ('.Z', '.gz')]
  return [*new, *older] if day >= _RENAMED else [*older, *new]


def addresses(day: np.datetime64, centre: str, product: str, archive: str | None = None
              ) -> Iterator[str]:
  """Where a day's product may be, the likeliest first.

  Args:
    archive: an address to use instead of the known ones: a mirror of either layout, or one folder.
  """
  centre, when = centre.lower(), day.astype('datetime64[D]').item()
  listed = names(day, centre, product)
  aiub = archive or os.environ.get('STP_JAX_IONEX_AIUB') or AIUB
  cddis = archive or os.environ.get('STP_JAX_IONEX_CDDIS') or CDDIS
  ahead = product[-1]
  for name in listed:
    capital, old = name.upper() == name or 'OPS' in name, 'OPS' not in name
    if centre == 'cod' and (capital or archive):
      if product == 'final':
        yield f'{aiub}/{when:%Y}/{name}'
      elif product == 'rapid':
        yield f'{aiub}/{name}'
        yield f'{aiub}/{when:%Y}_M/{name}'
      elif 'OPSP' in name and 'OPSPRD' not in name:
        yield f'{aiub}/IONO/PRD/{name}'
      else:
        yield f'{aiub}/IONO/P{ahead}/{when:%Y}/{name}'
    # CODE's own server has all of CODE's; CDDIS would answer with its login page, also for what it
    # does not hold. And in its one folder the name OPSPRD does not tell the two forecasts apart.
    asked = archive or centre != 'cod' or 'STP_JAX_IONEX_CDDIS' in os.environ
    if asked and (not old or not capital) and 'OPSPRD' not in name:
      yield f'{cddis}/{when:%Y}/{when:%j}/{name}'
    if archive and 'OPSPRD' not in name:
      yield f'{archive}/{name}'


def days(first: str, last: str) -> np.ndarray:
  """datetime64[D] of the dates `first` to `last`, both included.

  Raises:
    ValueError: what is no date, or a range that ends before it begins.
  """
  ends = []
  for option, value in (('from', first), ('to', last)):
    try:
      if value is None:
        raise ValueError
      ends.append(np.datetime64(value, 'D'))
    except ValueError:
      raise ValueError(f'--{option} {value}: write a date, 2012-11-18') from None
  if ends[1] < ends[0]:
    raise ValueError(f'--from {first} --to {last}: ends before it begins')
  if (ends[1] - ends[0]).astype(int) > 20_000:
    raise ValueError(f'--from {first} --to {last}: more than 20,000 days')
  return np.arange(ends[0], ends[1] + 1)


def kept(day: np.datetime64, centre: str, product: str, folder: str | pathlib.Path
         ) -> pathlib.Path | None:
  """One day's file in the folder that `fetch_day` fills, final before rapid; None: not there."""
  for kind in _kinds(product):
    for name in names(day, centre, kind):
      for path in (_place(folder, centre, kind) / name, pathlib.Path(folder) / name):
        if path.exists() and not (path.parent == pathlib.Path(folder) and 'OPSPRD' in name):
          return path
  return None


def _kinds(product: str) -> tuple[str, ...]:
  return ('final', 'rapid') if product == 'best' else (product,)


def _place(folder: str | pathlib.Path, centre: str, kind: str) -> pathlib.Path:
  """Forecasts stand in folders of their own: the name OPSPRD does not tell the two apart."""
  return pathlib.Path(folder) / (
      f'{centre.lower()}-{kind}' if kind.startswith('pred') else centre.lower())


def fetch_day(day: np.datetime64, centre: str, product: str, folder: str | pathlib.Path, *,
              archive: str | None = None) -> pathlib.Path | None:
  """One day's file, from the folder or the archive; None where no archive has it.

  Raises:
    FetchError: an archive that does not answer, or answers with a login page.
  """
  refused = None
  archive = archive.rstrip('/') if archive else None
  for kind in _kinds(product):
    if path := kept(day, centre, kind, folder):
      return path
    for url in dict.fromkeys(addresses(day, centre, kind, archive)):
      try:
        return fetch.fetch(url, _place(folder, centre, kind) / url.rsplit('/', 1)[1],
                           progress=False)
      except fetch.NotThere:
        continue
      except fetch.FetchError as error:
        refused = refused or error  # another archive may give it without a login
        if 'login' not in str(error):
          raise
  if refused:
    raise refused
  return None


def download(first: str, last: str, centre: str, folder: str | pathlib.Path, *,
             product: str = 'best', archive: str | None = None) -> list[pathlib.Path]:
  """The files of all days that an archive has; says which days it lacks.

  Args:
    first, last: dates, both included. folder: where files are kept, see the module.
    product: 'best' is final, else rapid. archive: see `addresses`.

  Raises:
    FetchError: no day at all, or see `fetch_day`. ValueError: an option that cannot be read.
  """
  wanted = days(first, last)
  names(wanted[0], centre, 'final' if product == 'best' else product)
  found, lacking = [], []
  for day in tqdm(wanted, f'fetching {centre} {product}', unit='day'):
    path = fetch_day(day, centre, product, folder, archive=archive)
    (lacking.append(day) if path is None else found.append(path))
  if not found:
    tried = next(iter(addresses(wanted[0], centre, 'final' if product == 'best' else product,
                                archive)), 'no address')
    raise fetch.NotThere(f'{centre} {product}: no file from {first} to {last}; looked for {tried} '
                         'and others. Is the date right, and the product of this centre?')
  if lacking:
    some = ' '.join(map(str, lacking[:5])) + (' ...' if len(lacking) > 5 else '')
    print(f'{len(lacking)} of {len(wanted)} days are not in the archive: {some}')
  return found
