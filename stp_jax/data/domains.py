"""Several clip stores as the domains of one run: `hko7:STORE1+bair:STORE2`.

Stores of different type, scale, size and channels mix in one batch: every item brings frames of one
type and shape and, as scalars, how its numbers become the model's,

  model value = clip(raw * scale + offset, 0, 1), where raw != missing

so that 8-bit images are raw / 255, rain is min(mm, maximum) / maximum or dBZ / 70 and electron
content is min(TECU, 200) / 200: each store's own `normalisation`. Frames of another size are
resized as they are read (an antialiased bilinear filter; a mean over the valid pixels), so that
no disk holds them twice.
"""

import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from stp_jax.data import clip_store, pipeline, resize
from stp_jax.data.clip_store import ClipStore, StoreError
from stp_jax.data.domain_spec import NO_MISSING, Domain, data_spec, describe
from stp_jax.data.spec import DataSpec

__all__ = [
  'Domain', 'DomainSource', 'assert_disjoint', 'data_spec', 'describe', 'open_domains', 'parse',
  'sources', 'weights']
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as image libraries do


def parse(text: str | Iterable[str]) -> list[tuple[str, pathlib.Path]]:
  """Names and paths of `name:STORE+name:STORE`, or of a list of such items.

  An item without a name is a store, named by its folder, or a folder of such stores.

  Raises:
    ValueError: nothing named, or a name that stands twice.
    StoreError: a folder that is no store and holds none.
  """
  items = text.split('+') if isinstance(text, str) else list(text)
  found: list[tuple[str, pathlib.Path]] = []
  for item in filter(None, (i.strip() for i in items)):
    name, colon, path = item.partition(':')
    if colon:
      found.append((name, pathlib.Path(path)))
      continue
    folder = pathlib.Path(item)
    inside = [folder] if (folder / 'meta.json').exists() else sorted(
        p.parent for p in folder.glob('*/meta.json'))
    if not inside:
      raise StoreError(f'{folder}: neither a clip store nor a folder of clip stores; make one with '
                       'python -m stp_jax.prepare')
    found += [(p.name, p) for p in inside]
  if not found:
    raise ValueError('domains: name at least one, as name:STORE+name:STORE')
  names = [name for name, _ in found]
  twice = sorted({n for n in names if names.count(n) > 1 or not n})
  if twice:
    raise ValueError(f'domains: {" ".join(map(repr, twice))} is empty or stands twice; give every '
                     'store a name of its own')
  return found


def named(config_data, stores: Sequence[ClipStore]) -> dict[str, ClipStore]:
  """Stores by the config's names; others by their folders', a single one without a name: frames.

  Raises:
    ValueError: two of one name.
  """
  names = list(config_data.domains)
  if len(names) != len(stores):
    names = [s.path.name for s in stores] if len(stores) > 1 or names else ['frames']
  if len(set(names)) < len(stores):
    raise ValueError(f'data.domains: two stores are called {max(names, key=names.count)}; name '
                     'them by domains=NAME:STORE+NAME:STORE')
  return dict(zip(names, stores))


def open_domains(text: str | Iterable[str]) -> list[tuple[str, ClipStore]]:
  """(name, store) of every domain; see `parse`. StoreError names the domain."""
  opened = []
  for name, path in parse(text):
    try:
      opened.append((name, ClipStore(path)))
    except StoreError as error:
      raise StoreError(f'domain {name}: {error}') from error
  return opened


class DomainSource(pipeline.Windows):
  """Random access to windows of one domain.

  An item is `frames` uint8 or uint16 `[T, H, W, C]` of the run's shape and, as scalars, `scale`,
  `offset` float32, `missing`, `domain` int32.
  """

  def __init__(self, domain: Domain, store: ClipStore, windows: np.ndarray, length: int,
               spec: DataSpec):
    super().__init__(store, windows, length)
    self.domain, self._spec = domain, spec

  def __repr__(self) -> str:
    return (f'DomainSource({self.domain.name}, {self.store!r}, windows={len(self)}, '
            f'length={self._length})')

  def __getitem__(self, index) -> dict[str, np.ndarray]:
    clip, start = self._windows[index].tolist()
    domain = self.domain
    frames = self.store.frames(clip, start, self._length)
    missing = None if domain.missing == NO_MISSING else domain.missing
    if domain.ceiling is not None:
      high = (frames > domain.ceiling) & (frames != domain.missing)
      frames = np.where(high, np.asarray(domain.ceiling, frames.dtype), frames)
    *size, channels = self._spec.shape
    if channels == 1:
      frames = _grey(frames, missing)
    if frames.shape[1:3] != tuple(size):
      frames = resize.frames(frames[:, :domain.rows, :domain.columns], tuple(size), missing)
    if frames.shape[3] != channels:
      frames = np.repeat(frames, channels, 3)
    return dict(
        frames=frames.astype(self._spec.dtype, copy=False), scale=np.float32(domain.scale),
        offset=np.float32(domain.offset), missing=np.int32(domain.missing),
        domain=np.int32(domain.number))


def _grey(frames: np.ndarray, missing: int | None) -> np.ndarray:
  if frames.shape[3] == 1:
    return frames
  grey = np.rint(frames.astype(np.float32) @ _LUMA).astype(frames.dtype)
  if missing is not None:
    grey = np.where((frames == missing).any(3), np.asarray(missing, frames.dtype), grey)
  return grey[..., None]


def sources(
    named: Sequence[tuple[str, ClipStore]], spec: DataSpec, splits: Sequence[str], length: int,
    stride: int = 1, *, every: bool = True,
) -> list[DomainSource]:
  """A source per domain with windows in `splits`, in the order given.

  Args:
    spec: of `data_spec`. every: a domain without a window is an error; else it is left out.

  Raises:
    StoreError: such a domain: names its splits, its longest clip and the domains that have some.
  """
  counted = [(name, store, store.windows(splits, length, stride)) for name, store in named]
  for name, store, windows in counted:
    if len(windows) or not (every or not any(len(w) for *_, w in counted)):
      continue
    longest = max((c.length for c in store.clips if c.split in splits), default=0)
    why = (f'its longest clip there has {longest}' if longest else
           f'it has the splits {" ".join(store.splits)}')
    others = ' '.join(n for n, _, w in counted if len(w)) or 'no domain'
    raise StoreError(f'domain {name}: {store.path} has no window of {length} frames in '
                     f'{"+".join(splits)}: {why}; {others} has some')
  return [DomainSource(describe(name, i, store), store, windows, length, spec)
          for i, (name, store, windows) in enumerate(counted) if len(windows)]


def weights(found: Sequence[DomainSource], mixing: str | Sequence[float] = 'proportional'
            ) -> list[float]:
  """Shares of the sources in a batch; they sum to 1.

  Args:
    mixing: proportional (to the windows, as published), balanced, or a number for each.

  Raises:
    ValueError: an unknown word, or another count of numbers.
  """
  given = dict(proportional=[len(s) for s in found], balanced=[1.0] * len(found))
  if isinstance(mixing, str):
    if mixing not in given:
      raise ValueError(f'mixing={mixing}: proportional, balanced, or a number for each domain')
    mixing = given[mixing]
  numbers = np.asarray(list(mixing), float)
  if len(numbers) != len(found) or (numbers < 0).any() or not numbers.sum():
    raise ValueError(f'mixing={tuple(mixing)}: {len(found)} numbers of at least 0, one for each of '
                     + ' '.join(s.domain.name for s in found))
  return (numbers / numbers.sum()).tolist()


def assert_disjoint(named: Sequence[tuple[str, ClipStore]], train: Iterable[str]) -> None:
  """No domain's training clips share time or a source with its other clips.

  Domains are told apart: a radar and an ionosphere may be of one day.
  """
  for name, store in named:
    try:
      clip_store.assert_disjoint([store], train)
    except StoreError as error:
      raise StoreError(f'domain {name}: {error}') from error
