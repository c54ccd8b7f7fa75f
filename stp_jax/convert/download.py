"""The Channel Mixer Layer's trained weights (Zenodo 13349678), each as a run of ours.

    python -m stp_jax.convert --download iono_zoo --out=ZOO

fetches and unpacks into `ZOO/original`, then converts every experiment that holds a
`checkpoint.pth` into `ZOO/<its folder>`. What is there is neither fetched nor converted again.
"""

import copy
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from stp_jax.convert import runs
from stp_jax.data import zenodo
from stp_jax.data.clip_store import StoreError

RECORDS = {'iono_zoo': zenodo.IONO_ZOO}
OUT = 'runs/iono_zoo'


def fetch_and_convert(
    name: str, out: str | pathlib.Path, *, archive: str | None = None,
    options: Mapping[str, Any] | None = None, say: Callable[[str], None] = print,
) -> tuple[list[pathlib.Path], dict[str, str]]:
  """Fetches a zoo of RECORDS and converts it.

  Args:
    out: the folder of all runs. archive: see `zenodo.files`. options: of `runs.to_ours`.
    say: told a line per experiment.

  Returns:
    The runs, and the experiments that could not be converted with the reason.

  Raises:
    StoreError: see `zenodo.download`; no experiment among the files.
  """
  out = pathlib.Path(out)
  folder = zenodo.download(RECORDS[name], out / 'original', base=archive)
  found = sorted(folder.rglob('checkpoint.pth'))
  if not found:
    raise StoreError(f'{folder}: no checkpoint.pth in it; has the record changed?')
  made, failed = [], {}
  for path in found:
    parts = [p for p in path.parent.relative_to(folder).parts if p not in ('work_dirs', 'iono')]
    target = out / ('_'.join(parts) or 'run')
    if (target / 'checkpoints').is_dir():
      say(f'{target}: converted before')
      made.append(target)
      continue
    try:
      runs.to_ours(str(path), str(target), **copy.deepcopy(dict(options or {})))
    except (ValueError, OSError, TypeError) as error:
      failed[str(path)] = str(error).splitlines()[0]
      say(f'{path}: NOT CONVERTED: {failed[str(path)]}')
      continue
    say(f'{target}: from {path.relative_to(folder)}')
    made.append(target)
  return made, failed
