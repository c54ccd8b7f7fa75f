"""The files of a Zenodo record, by its API: names, sizes and md5 come from the record itself.

`STP_JAX_ZENODO` names another server that speaks the same API.
"""

import json
import os
import pathlib
from collections.abc import Sequence

from stp_jax.data import fetch, unpack
from stp_jax.data.clip_store import StoreError

API = 'https://zenodo.org/api/records'
IONO_ELECTRON, IONO_ZOO = '13165939', '13349678'  # maps and scalars; trained weights


def files(record: str, base: str | None = None) -> list[dict]:
  """`name`, `url`, `size`, `md5` (or None) of every file of a record.

  Raises:
    FetchError: no such record, or an answer that is no list of files.
  """
  base = (base or os.environ.get('STP_JAX_ZENODO') or API).rstrip('/')
  url = f'{base}/{record}'
  try:
    answer = json.loads(fetch.text(url))
    found = answer.get('files', answer.get('entries'))
    found = found.get('entries') if isinstance(found, dict) else found
    if isinstance(found, dict):  # keyed by name
      found = list(found.values())
    result = []
    for entry in found:
      kind, _, value = (entry.get('checksum') or '').partition(':')
      links = entry['links']
      name = pathlib.PurePosixPath(entry['key']).name
      result.append(dict(
          name=name, url=links.get('content') or links['self'], size=int(entry['size']),
          md5=value if kind == 'md5' else None))
    if not result:
      raise KeyError('files')
    return result
  except fetch.NotThere:
    raise fetch.NotThere(f'{url}: no such Zenodo record') from None
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    if isinstance(error, StoreError):
      raise
    raise fetch.FetchError(f'{url}: no list of a record\'s files ({type(error).__name__}: {error})'
                           ) from None


def download(record: str, folder: str | pathlib.Path, *, base: str | None = None,
             suffixes: Sequence[str] = ('.zip',)) -> pathlib.Path:
  """Fetches the record's archives into `folder/archives` and unpacks them into `folder/files`.

  Returns:
    `folder/files`. What is there already is neither fetched nor unpacked again.

  Raises:
    StoreError: see `fetch.fetch`; a damaged archive, or one that would write outside its folder.
  """
  folder = pathlib.Path(folder)
  wanted = [f for f in files(record, base) if f['name'].lower().endswith(tuple(suffixes))]
  if not wanted:
    raise fetch.FetchError(f'Zenodo record {record}: no {" or ".join(suffixes)} among its files')
  for file in wanted:
    path = fetch.fetch(file['url'], folder / 'archives' / file['name'], md5=file['md5'],
                       size=file['size'])
    unpack.unpack_zip(path, folder / 'files')
  return folder / 'files'
