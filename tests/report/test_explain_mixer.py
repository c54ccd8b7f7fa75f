import sys

import numpy as np
import pytest

from stp_jax.report import explain_mixer


def test_planes_of_one_number_become_tiles():
  planes = np.arange(1.0, 5)[:, None, None] * np.ones((6, 6))
  np.testing.assert_array_equal(
      explain_mixer.mixed(planes), np.tile([[1, 2], [3, 4]], (4, 3, 3)))
  nine = np.arange(1.0, 10)[:, None, None] * np.ones((6, 6))
  np.testing.assert_array_equal(
      explain_mixer.mixed(nine), np.tile(np.arange(1, 10).reshape(3, 3), (9, 2, 2)))


def test_worked_example():
  np.testing.assert_allclose(explain_mixer.mixed(explain_mixer.EXAMPLE), [
      [[.82, .59], [.45, .34]], [[.75, .59], [.88, .34]],
      [[.21, .27], [.45, .34]], [[.13, .27], [.88, .34]]])


def test_command_prints_tables_and_draws(tmp_path, capsys):
  assert explain_mixer.main(['--out', str(tmp_path), '--channels', '9', '--size', '3']) == 0
  out = capsys.readouterr().out
  assert '1 2 3' in out and '4 5 6' in out and '.45 .34' in out and 'latitude' in out
  assert max(map(len, out.splitlines()[:-2])) <= 100
  assert {p.name for p in tmp_path.iterdir()} == {'mixer_tiles.png', 'mixer_worked_example.png'}
  assert all(p.stat().st_size > 5000 for p in tmp_path.iterdir())


@pytest.mark.parametrize('arguments,message', [
    (['--channels', '5'], 'choose a perfect square'),
    (['--channels', '9', '--size', '7'], 'choose a multiple of 3'),
    (['--channels', '0'], 'at least 1')])
def test_a_number_that_does_not_fit_is_one_line(tmp_path, capsys, arguments, message):
  assert explain_mixer.main(['--out', str(tmp_path / 'x'), *arguments]) == 1
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1 and not (tmp_path / 'x').exists()


def test_without_matplotlib_the_tables_are_printed(tmp_path, capsys, monkeypatch):
  import stp_jax.report
  monkeypatch.delitem(sys.modules, 'stp_jax.report.style', raising=False)
  monkeypatch.delattr(stp_jax.report, 'style', raising=False)
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  assert explain_mixer.main(['--out', str(tmp_path)]) == 0
  out = capsys.readouterr().out
  assert '3 4 3 4' in out and "pip install 'stp_jax[plots]'" in out
