"""What attributes say of packed values: unsigned bytes, and what stands for none; see `folder`.

The conventions of NetCDF and CF: `_Unsigned` for types that NetCDF-3 lacks, `_FillValue`,
`missing_value` (one or more) and `valid_range`, `valid_min`, `valid_max`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

_NAMES = ('_FillValue', 'missing_value', 'valid_range', 'valid_min', 'valid_max')
_NONE = np.zeros(0)
_ROUNDING = 1e-3  # of a step: limits in units, divided by a scale, are not whole numbers


@dataclasses.dataclass(frozen=True)
class Packed:
  """Values as files have them -> of their true type, with one value for all that are none.

  Attributes:
    dtype: the true one. codes: what stands for none. low, high: of values, packed.
    missing: what none is behind this; None where there is no such value, or NaN.
  """
  dtype: str
  codes: tuple[float, ...] = ()
  low: float = -np.inf
  high: float = np.inf
  missing: float | None = None

  def __call__(self, values: np.ndarray) -> np.ndarray:
    """Of any shape; of the same bits where they are as they should be."""
    values = values.astype(self.dtype, copy=False)
    if len(self.codes) < 2 and not np.isfinite([self.low, self.high]).any():
      return values
    kind = values.dtype.kind
    exact = lambda x: np.asarray(x, np.float64).astype(self.dtype) if kind == 'f' else x
    wrong = np.isin(values, np.asarray(self.codes, np.float64).astype(self.dtype))
    wrong |= (values < exact(self.low)) | (values > exact(self.high))
    none = np.nan if self.missing is None else self.missing
    return np.where(wrong, np.asarray(none).astype(self.dtype), values) if wrong.any() else values

  def told(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of the values behind this: of their type, with one `_FillValue` at most."""
    found = {k: v for k, v in attributes.items() if k not in (*_NAMES, '_Unsigned')}
    return found if self.missing is None else found | {'_FillValue': self.missing}

  @property
  def notes(self) -> list[str]:
    """For the card: what is missing, where more than one value is."""
    found = [f'{c:g}' for c in self.codes] if len(self.codes) > 1 else []
    if np.isfinite([self.low, self.high]).any():
      found.append(f'what lies outside {self.low:g} to {self.high:g} as stored')
    return [f'no value: {", ".join(found)}'] if found else []


def _numbers(value) -> np.ndarray:
  """An attribute as numbers `[N]`, none where it is something else."""
  if value is None:
    return _NONE
  try:
    value = np.ravel(np.asarray(value))
    return value if value.dtype.kind in 'iuf' else value.astype(np.float64)
  except (TypeError, ValueError):
    return _NONE


def of(attributes: Mapping[str, Any], dtype: np.dtype, stated: float | None = None) -> Packed:
  """How values of a type are read.

  Args:
    stated: the value that the user says is none: what attributes say of that is then not asked.
  """
  dtype = np.dtype(dtype).newbyteorder('=')
  word = attributes.get('_Unsigned', '')
  word = (word.decode() if isinstance(word, bytes) else str(word)).lower()
  turned = (dtype.kind, word) in (('i', 'true'), ('u', 'false'))
  if turned:
    dtype = np.dtype(f'{"u" if dtype.kind == "i" else "i"}{dtype.itemsize}')
  if stated is not None or dtype.kind not in 'iuf':
    return Packed(dtype.name)
  # They are written in the type of the file.
  told = {k: v.astype(dtype) if turned and v.dtype.kind in 'iu' else v for k in _NAMES
          if len(v := _numbers(attributes.get(k)))}
  low, high = _limits(told, attributes, dtype)
  codes = np.concatenate([told.get(k, _NONE) for k in _NAMES[:2]]).astype(float)
  codes = tuple(dict.fromkeys(codes[~np.isnan(codes)].tolist()))
  if dtype.kind == 'f':
    return Packed(dtype.name, codes, low, high, codes[0] if codes else None)
  least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
  codes = tuple(c for c in codes if least <= c <= most and c == int(c))
  low, high = -np.inf if low <= least else low, np.inf if high >= most else high
  outside = float(most) if np.isfinite(high) else float(least) if np.isfinite(low) else None
  return Packed(dtype.name, codes, low, high, codes[0] if codes else outside)


def _limits(told: Mapping[str, np.ndarray], attributes: Mapping[str, Any], dtype: np.dtype
            ) -> tuple[float, float]:
  """The least and the greatest value, as stored."""
  both = told.get('valid_range', _NONE)
  low, high = map(float, both) if len(both) == 2 else (np.nan, np.nan)
  low, high = (float(told[k][0]) if k in told else x
               for k, x in (('valid_min', low), ('valid_max', high)))
  low, high = -np.inf if np.isnan(low) else low, np.inf if np.isnan(high) else high
  scale, offset = (float(np.append(_numbers(attributes.get(k)), x)[0])
                   for k, x in (('scale_factor', 1.0), ('add_offset', 0.0)))
  # Limits of a wider type than packed integers are in units.
  if dtype.kind != 'f' and any(told[k].dtype.kind == 'f' for k in _NAMES[2:] if k in told) and (
      {'scale_factor', 'add_offset'} & set(attributes)):
    low, high = sorted((x - offset) / (scale or 1.0) for x in (low, high))
    low, high = low - _ROUNDING, high + _ROUNDING
  return low, high
