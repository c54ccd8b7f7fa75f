"""Fetching: resumed, checked, cached, and honest about login pages and dead lines."""

import gzip
import hashlib
import pathlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stp_jax.data import fetch
from tests.data import archive_server

DATA = np.random.default_rng(0).integers(0, 256, 50_000).astype(np.uint8).tobytes()
MD5, SHA = hashlib.md5(DATA).hexdigest(), hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
  monkeypatch.setattr(fetch, 'PAUSE', 0.0)


@pytest.fixture
def archive():
  with archive_server.serve() as made:
    made.files['/x.bin'] = DATA
    yield made


def _get(archive, path, name='/x.bin', **options):
  return fetch.fetch(archive.url + name, path, progress=False, **options)


def test_a_file_comes_whole_once(archive, tmp_path):
  path = _get(archive, tmp_path / 'deep' / 'x.bin', md5=MD5, sha256=SHA, size=len(DATA))
  assert path.read_bytes() == DATA
  assert [p.name for p in path.parent.iterdir()] == ['x.bin']
  _get(archive, path, md5=MD5.upper())
  assert len(archive.asked) == 1
  path.write_bytes(DATA[:-1] + b'!')  # damaged on disk: fetched again
  assert _get(archive, path, sha256=SHA).read_bytes() == DATA
  assert len(archive.asked) == 2


def test_a_broken_line_is_continued(archive, tmp_path):
  archive.moods['/x.bin'] = ['cut', 'busy', 'cut']
  assert _get(archive, tmp_path / 'x.bin', md5=MD5).read_bytes() == DATA
  ranges = [r for _, r in archive.asked]
  half = len(DATA) // 2
  assert ranges == [None, f'bytes={half}-', f'bytes={half}-', f'bytes={half + half // 2}-']


def test_the_next_call_goes_on(archive, tmp_path):
  archive.moods['/x.bin'] = ['cut'] + ['busy'] * (fetch.ATTEMPTS - 1)
  with pytest.raises(fetch.FetchError, match=r'x.bin: .*503.* goes on where it stopped'):
    _get(archive, tmp_path / 'x.bin')
  assert not (tmp_path / 'x.bin').exists()
  assert (tmp_path / 'x.bin.part').stat().st_size == len(DATA) // 2
  assert _get(archive, tmp_path / 'x.bin', md5=MD5).read_bytes() == DATA
  assert archive.asked[-1][1] == f'bytes={len(DATA) // 2}-'


@pytest.mark.parametrize('change', ['etag', 'norange', 'no tag', 'shorter'])
def test_a_beginning_that_fits_no_longer_is_dropped(archive, tmp_path, change):
  archive.moods['/x.bin'] = ['cut'] + ['busy'] * (fetch.ATTEMPTS - 1)
  with pytest.raises(fetch.FetchError):
    _get(archive, tmp_path / 'x.bin')
  expected = DATA
  if change == 'etag':
    archive.etag, expected = '"two"', DATA[::-1]
  elif change == 'norange':
    archive.moods['/x.bin'] = ['norange']
  elif change == 'no tag':
    (tmp_path / 'x.bin.part.json').unlink()
  else:
    expected = DATA[:100]
  archive.files['/x.bin'] = expected
  assert _get(archive, tmp_path / 'x.bin').read_bytes() == expected


@settings(max_examples=25, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(['cut', 'busy', 'norange']), max_size=fetch.ATTEMPTS - 1))
def test_any_mood_gives_the_same_bytes(archive, tmp_path, moods):
  archive.moods['/x.bin'] = list(moods)
  path = tmp_path / 'x.bin'
  assert _get(archive, path, sha256=SHA).read_bytes() == DATA
  path.unlink()


@pytest.mark.parametrize('mood, message', [
    ('login', r'the login page of localhost:\d+, not data; log in'),
    ('page', r'a web page of 127\.0\.0\.1:\d+, not data'),
    ('denied', r'asks for a login \(401\)')])
def test_login_pages_are_named(archive, tmp_path, mood, message):
  archive.moods['/x.bin'] = [mood]
  with pytest.raises(fetch.FetchError, match=message) as caught:
    _get(archive, tmp_path / 'x.bin')
  assert '\n' not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_what_is_not_there(archive, tmp_path):
  with pytest.raises(fetch.NotThere, match='not there'):
    _get(archive, tmp_path / 'y.bin', '/y.bin')
  with pytest.raises(fetch.NotThere):
    fetch.fetch(f'file://{tmp_path}/nothing', tmp_path / 'y', progress=False)
  with pytest.raises(fetch.FetchError, match='no address'):
    fetch.fetch('x.bin', tmp_path / 'y', progress=False)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('wrong, message', [
    (dict(md5='0' * 32), 'md5 .* is expected'), (dict(sha256='0' * 64), 'sha256 .* is expected'),
    (dict(size=7), '50000 bytes, 7 are expected')])
def test_wrong_checksums_leave_nothing(archive, tmp_path, wrong, message):
  with pytest.raises(fetch.FetchError, match=message):
    _get(archive, tmp_path / 'x.bin', **wrong)
  assert not (tmp_path / 'x.bin').exists() and not (tmp_path / 'x.bin.part').exists()


def test_packed_files_are_read_through(archive, tmp_path):
  packed = gzip.compress(DATA, mtime=0)
  archive.files['/x.gz'] = packed
  assert _get(archive, tmp_path / 'x.gz', '/x.gz').read_bytes() == packed
  for name, bad in (('/a.gz', packed[:-9]), ('/b.gz', packed[:-8] + b'\0' * 8),
                    ('/c.Z', b'\x1f\x9d\x90' + b'\xff' * 50), ('/d.zip', b'PK junk'),
                    ('/e.gz', b'')):
    archive.files[name] = bad
    with pytest.raises(fetch.FetchError, match=r'damaged packed file|no zip file|empty file'):
      _get(archive, tmp_path / name[1:], name)
  assert [p.name for p in tmp_path.iterdir()] == ['x.gz']


def test_identification_stays_with_its_host(archive, tmp_path, monkeypatch):
  seen = []
  monkeypatch.setattr(archive_server.Archive, '__setattr__', object.__setattr__)
  archive.moods['/x.bin'] = ['login']
  real = fetch._Redirects.redirect_request

  def spy(self, *a):
    made = real(self, *a)
    seen.append(dict(made.headers))
    return made

  monkeypatch.setattr(fetch._Redirects, 'redirect_request', spy)
  with pytest.raises(fetch.FetchError, match='login page'):
    _get(archive, tmp_path / 'x.bin', headers={'Authorization': 'Bearer secret'})
  assert seen and 'Authorization' not in seen[0]


class Killed(BaseException):
  """Nothing catches it: the process is gone."""


@pytest.mark.parametrize('when', ['write_text', 'open'])
def test_a_kill_before_a_new_version_begins(archive, tmp_path, monkeypatch, when):
  """Its bytes are never put behind those of the old one."""
  archive.moods['/x.bin'] = ['cut'] + ['busy'] * (fetch.ATTEMPTS - 1)
  with pytest.raises(fetch.FetchError):
    _get(archive, tmp_path / 'x.bin')
  archive.files['/x.bin'], archive.etag = DATA[::-1], '"two"'
  real = getattr(pathlib.Path, when)

  def die(self, mode='', *a, **more):
    if mode in ('wb', 'ab') or when == 'write_text':
      raise Killed
    return real(self, mode, *a, **more)

  with monkeypatch.context() as patch:
    patch.setattr(pathlib.Path, when, die)
    with pytest.raises(Killed):
      _get(archive, tmp_path / 'x.bin')
  assert _get(archive, tmp_path / 'x.bin').read_bytes() == DATA[::-1]


def test_a_tag_that_is_no_tag(archive, tmp_path):
  (tmp_path / 'x.bin.part').write_bytes(b'something')
  (tmp_path / 'x.bin.part.json').write_text('[]')
  assert _get(archive, tmp_path / 'x.bin').read_bytes() == DATA
