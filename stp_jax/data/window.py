"""Frames given and forecast where a config leaves them open (0): what the clips allow."""

from collections.abc import Sequence

import ml_collections

from stp_jax.data.clip_store import ClipStore


def fitted(config: ml_collections.ConfigDict, stores: Sequence[ClipStore]
           ) -> ml_collections.ConfigDict:
  """The config with `data.t_in` and `data.t_out` as numbers; `config` itself if they are.

  Both open: `data.preferred`, or half and half of the longest window that training and test splits
  have. One open: up to the preferred number beside the other. Deterministic, so that a run that
  continues agrees.

  Args:
    stores: the run's, or none: clips that are long enough.

  Raises:
    ValueError: clips too short for any window; says how long they are.
  """
  data, wanted = config.data, config.data.preferred
  if data.t_in and data.t_out:
    return config
  longest = sum(wanted) + data.t_in + data.t_out
  for splits in (data.train_splits, data.test_splits):
    lengths = [c.length for s in stores for c in s.clips if c.split in splits]
    if lengths:
      longest = min(longest, max(lengths))
  known = data.t_in + data.t_out
  if longest < max(2, known + 1):
    raise ValueError(
        f'{" ".join(str(s.path) for s in stores)}: the longest clip of a split has {longest} '
        f'frames, and t_in + t_out take {max(2, known + 1)} at least; shorten t_in or t_out, or '
        'prepare longer clips')
  if known:
    t_in, t_out = (n or min(most, longest - known)
                   for n, most in zip((data.t_in, data.t_out), wanted))
  else:
    t_in = min(wanted[0], (longest + 1) // 2)
    t_out = min(wanted[1], longest - t_in)
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.data.t_in, config.data.t_out = t_in, t_out
  return config
