"""Point clouds: the vertices of a .ply file, ASCII or binary, as `[N, 3]`."""

import pathlib

import numpy as np

_TYPES = {
    'char': 'i1', 'int8': 'i1', 'uchar': 'u1', 'uint8': 'u1', 'short': 'i2', 'int16': 'i2',
    'ushort': 'u2', 'uint16': 'u2', 'int': 'i4', 'int32': 'i4', 'uint': 'u4', 'uint32': 'u4',
    'float': 'f4', 'float32': 'f4', 'double': 'f8', 'float64': 'f8'}
_ORDER = {'ascii': '', 'binary_little_endian': '<', 'binary_big_endian': '>'}


def _header(data: bytes) -> tuple[str, int, list[tuple[str, str]], int]:
  """Format, number of vertices, their properties, and where the body begins."""
  end = data.find(b'end_header')
  start = data.find(b'\n', end) + 1
  if not data.startswith(b'ply') or end < 0 or not start:
    raise ValueError('no PLY header')
  form, count, fields, element = '', None, [], None
  for line in data[:end].decode('ascii', 'replace').splitlines():
    words = line.split()
    if words[:1] == ['format']:
      form = words[1]
    elif words[:1] == ['element']:
      if element is None and words[1] != 'vertex':
        raise ValueError(f'element {words[1]} stands before vertex')
      element = words[1]
      count = int(words[2]) if element == 'vertex' else count
    elif words[:1] == ['property'] and element == 'vertex':
      if words[1] not in _TYPES:
        raise ValueError(f'vertex property of type {words[1]}')
      fields.append((words[2], _TYPES[words[1]]))
  if form not in _ORDER:
    raise ValueError(f'format {form or "missing"}')
  if count is None or not {'x', 'y', 'z'} <= {name for name, _ in fields}:
    raise ValueError('no vertices with x, y, z')
  return form, count, fields, start


def read(path: str | pathlib.Path) -> np.ndarray:
  """x, y, z of all vertices, float64 `[N, 3]`; other properties and elements are skipped.

  Raises:
    ValueError: names the file and what is wrong with it.
  """
  data = pathlib.Path(path).read_bytes()
  try:
    form, count, fields, start = _header(data)
    columns = [[name for name, _ in fields].index(axis) for axis in 'xyz']
    if form == 'ascii':
      rows = data[start:].split(b'\n')[:count]
      table = np.array([row.split()[:len(fields)] for row in rows], np.float64)
      if table.shape != (count, len(fields)) and count:
        raise ValueError(f'{len(table)} of {count} vertices')
      return table.reshape(count, len(fields))[:, columns]
    kind = np.dtype([(name, _ORDER[form] + code) for name, code in fields])
    if len(data) - start < count * kind.itemsize:
      raise ValueError(f'shorter than {count} vertices')
    table = np.frombuffer(data, kind, count, start)
    return np.stack([table[axis].astype(np.float64) for axis in 'xyz'], -1)
  except (ValueError, IndexError) as error:
    raise ValueError(f'{path}: no readable point cloud ({error}); copy the file again') from error


def write(path: str | pathlib.Path, points: np.ndarray) -> None:
  """Writes `[N, 3]` as a binary file of float32."""
  header = (f'ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n'
            'property float x\nproperty float y\nproperty float z\nend_header\n')
  pathlib.Path(path).write_bytes(header.encode() + np.asarray(points, '<f4').tobytes())
