"""A file is whole or not there."""

import numpy as np
import pytest

from stp_jax import cluster, files


def test_a_file_appears_whole_and_replaces_the_old_one(tmp_path):
  path = tmp_path / 'table.csv'
  files.write_text(path, 'old')
  with files.whole(path, sync=True) as partial:
    partial.write_text('ne')
    assert path.read_text() == 'old'
    with partial.open('a') as file:
      file.write('w')
  assert path.read_text() == 'new' and list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path):
  path = tmp_path / 'table.csv'
  files.write_text(path, 'old')
  with pytest.raises(OSError, match='full'), files.whole(path) as partial:
    partial.write_text('half')
    raise OSError('the disk is full')
  assert path.read_text() == 'old' and list(tmp_path.iterdir()) == [path]


def test_arrays_are_made_once(tmp_path):
  made = []
  def make():
    made.append(1)
    return dict(a=np.arange(3))
  for _ in range(2):
    found = cluster.made_once(tmp_path / 'a.npz', make)
    np.testing.assert_array_equal(found['a'], np.arange(3))
  assert len(made) == 1
  assert cluster.made_once(tmp_path / 'b.npz', lambda: None) is None
  assert not (tmp_path / 'b.npz').exists()
