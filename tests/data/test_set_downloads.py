"""Downloads against a local server that cuts, lies, is absent or wants a login."""

import functools
import hashlib
import http.server
import io
import pathlib
import threading
import zipfile

import numpy as np
import pytest

from stp_jax import prepare as cli
from stp_jax.data import addresses, download
from stp_jax.data.clip_store import ClipStore, StoreError
from stp_jax.data.download import DownloadError
from tests.data import layouts
from tests.data.test_moving_mnist import _idx

_BODY = bytes(np.random.default_rng(0).integers(0, 256, 300_000, np.uint8))


class Server(http.server.BaseHTTPRequestHandler):
  """Serves `files`; at most `cut` bytes a connection; `plain`: no ranges; `chunked`: no length."""
  protocol_version = 'HTTP/1.1'

  def log_message(self, *_):
    pass

  def do_GET(self):
    state = self.server.state
    state['requests'].append(self.headers.get('Range'))
    if self.path in state['status']:
      self.send_error(state['status'][self.path])
      return
    body = state['files'].get(self.path)
    if body is None:
      self.send_error(404)
      return
    first, asked = 0, self.headers.get('Range')
    tag = '"' + hashlib.md5(body).hexdigest() + '"'
    fresh = self.headers.get('If-Range') in (None, tag)
    if asked and not state.get('plain') and fresh:
      first = int(asked.removeprefix('bytes=').removesuffix('-'))
      if first >= len(body):
        self.send_response(416)
        self.send_header('Content-Range', f'bytes */{len(body)}')
        self.send_header('Content-Length', '0')
        self.end_headers()
        return
      self.send_response(206)
      self.send_header('Content-Range', f'bytes {first}-{len(body) - 1}/{len(body)}')
    else:
      self.send_response(200)
    self.send_header('ETag', tag)
    rest = body[first:]
    self.close_connection = True
    if state.get('chunked'):
      self.send_header('Connection', 'close')
      self.end_headers()
      self.wfile.write(rest)
      return
    self.send_header('Content-Length', str(len(rest)))
    self.end_headers()
    self.wfile.write(rest[:state.get('cut') or len(rest)])


@pytest.fixture
def server():
  one = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Server)
  one.state = dict(files={'/a.bin': _BODY}, status={}, requests=[])
  one.url = f'http://127.0.0.1:{one.server_port}'
  thread = threading.Thread(target=one.serve_forever, kwargs=dict(poll_interval=0.01), daemon=True)
  thread.start()
  yield one
  one.shutdown()
  one.server_close()
  thread.join()


fetch = functools.partial(download.fetch, wait=0.0, timeout=10.0)
_MD5, _SHA256 = hashlib.md5(_BODY).hexdigest(), hashlib.sha256(_BODY).hexdigest()


@pytest.mark.parametrize('state, requests', [
    ({}, [None]), (dict(chunked=True), [None]),
    (dict(cut=120_000), [None, 'bytes=120000-', 'bytes=240000-'])])
def test_whole_chunked_and_cut(server, tmp_path, state, requests):
  server.state.update(state)
  path = fetch(f'{server.url}/a.bin', tmp_path / 'a.bin', expected=_SHA256)
  assert path.read_bytes() == _BODY and server.state['requests'] == requests
  assert [p.name for p in tmp_path.iterdir()] == ['a.bin']
  fetch(f'{server.url}/a.bin', path, expected=_MD5)  # cached
  assert server.state['requests'] == requests


def test_a_later_run_goes_on(server, tmp_path):
  server.state['cut'] = 70_000
  with pytest.raises(DownloadError, match=r'cut 2 times .* 140000 bytes are kept: run it again'):
    fetch(f'{server.url}/a.bin', tmp_path / 'a.bin', expected=_MD5, attempts=2)
  assert not (tmp_path / 'a.bin').exists()
  server.state['cut'] = 0
  fetch(f'{server.url}/a.bin', tmp_path / 'a.bin', expected=_MD5)
  assert server.state['requests'][-1] == 'bytes=140000-'
  assert (tmp_path / 'a.bin').read_bytes() == _BODY


def test_a_server_without_ranges_and_a_file_that_changed(server, tmp_path):
  (tmp_path / 'a.bin.part').write_bytes(_BODY[:1000])
  server.state['plain'] = True
  fetch(f'{server.url}/a.bin', tmp_path / 'a.bin', expected=_MD5)
  server.state.update(plain=False, cut=1000)
  with pytest.raises(DownloadError):
    fetch(f'{server.url}/a.bin', tmp_path / 'b.bin', attempts=1)
  other = _BODY[::-1]
  server.state.update(cut=0, files={'/a.bin': other})
  assert fetch(f'{server.url}/a.bin', tmp_path / 'b.bin').read_bytes() == other
  (tmp_path / 'c.bin.part').write_bytes(_BODY)  # killed between the last byte and the name
  server.state['files'] = {'/a.bin': _BODY}
  assert fetch(f'{server.url}/a.bin', tmp_path / 'c.bin', expected=_MD5).read_bytes() == _BODY


def test_what_cannot_be_had(server, tmp_path):
  page = b'\n<!DOCTYPE html><html><title>Earthdata Login</title></html>'
  server.state['files'] |= {'/login.npz': page}
  server.state['status'] = {'/locked': 401, '/busy': 503}
  for name, expected, match in [
      ('a.bin', '0' * 32, f'its checksum is {_MD5}, 0000'),
      ('login.npz', '', 'a web page came instead of the file'),
      ('nothing.bin', '', 'HTTP 404, not found'), ('locked', '', 'HTTP 401, it wants a login'),
      ('busy', '', r'cut 5 times \(HTTP 503\)')]:
    with pytest.raises(DownloadError, match=match) as error:
      fetch(f'{server.url}/{name}', tmp_path / name, expected=expected)
    assert '\n' not in str(error.value) and server.url in str(error.value)
  assert not list(tmp_path.iterdir())
  (tmp_path / 'a.bin').write_bytes(b'old')
  with pytest.raises(DownloadError, match='delete it to fetch it anew'):
    fetch(f'{server.url}/a.bin', tmp_path / 'a.bin', expected=_MD5)
  server_gone = 'http://127.0.0.1:9/a.bin'
  with pytest.raises(DownloadError, match='cut 2 times'):
    fetch(server_gone, tmp_path / 'x.bin', attempts=2)


def test_html_is_told_from_data():
  assert download.looks_like_html(b'\xef\xbb\xbf  <!-- x --> <HTML lang="en">')
  assert not download.looks_like_html(b'<xml/>') and not download.looks_like_html(b'\x1f\x8b<html')


def test_prepare_downloads_unpacks_and_prepares(server, tmp_path, capsys):
  layouts.taxibj(tmp_path / 'made')
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w') as archive:
    archive.write(tmp_path / 'made/taxibj/dataset.npz', 'taxibj/dataset.npz')
  server.state['files']['/taxibj_dataset.zip'] = buffer.getvalue()
  words = ['taxibj', '--download', '--mirror', server.url, '--in', str(tmp_path / 'cache')]
  assert cli.main([*words, '--out', str(tmp_path / 's')]) == 0
  assert len(ClipStore(tmp_path / 's').clips) == 7
  before = len(server.state['requests'])
  assert cli.main([*words, '--out', str(tmp_path / 's2')]) == 0
  assert len(server.state['requests']) == before
  assert not list((tmp_path / 'cache').glob('*.unpacking'))


def test_prepare_downloads_into_the_users_cache(server, tmp_path, monkeypatch, capsys):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  files = {}
  for name in ('train', 't10k'):
    _idx(tmp_path / 'x.gz', seed=len(name))
    files[f'/{name}-images-idx3-ubyte.gz'] = (tmp_path / 'x.gz').read_bytes()
  server.state['files'] |= files
  changed = tuple(f._replace(checksum=hashlib.md5(files[f'/{f.file_name}']).hexdigest())
                  for f in addresses.SETS['moving_mnist'][:2])
  monkeypatch.setitem(addresses.SETS, 'moving_mnist', changed)
  words = ['moving_mnist', '--download', '--mirror', server.url + '/', '--out', str(tmp_path / 's')]
  assert cli.main([*words, '--clips', '2', '--validation-clips', '1', '--test-clips', '1']) == 0
  assert (tmp_path / 'cache/stp_jax/data/moving_mnist/t10k-images-idx3-ubyte.gz').exists()
  assert cli.main(['human', '--download', '--out', str(tmp_path / 't')]) == 1
  assert 'no public address of human is known' in capsys.readouterr().err


def test_a_damaged_archive_leaves_nothing(server, tmp_path, capsys):
  server.state['files']['/taxibj_dataset.zip'] = b'PK\x05\x06 no archive' + bytes(40)
  assert cli.main(['taxibj', '--download', '--mirror', server.url, '--in', str(tmp_path / 'c'),
                   '--out', str(tmp_path / 's')]) == 1
  assert 'taxibj_dataset.zip: ' in capsys.readouterr().err
  assert not (tmp_path / 'c' / 'taxibj').exists()


class Killed(BaseException):
  """Nothing catches it: the process is gone."""


@pytest.mark.parametrize('inside', [('a', 'b', 'taxibj/c'), ('taxibj/a', 'taxibj/b', 'taxibj/d/c'),
                                    ('taxibj/taxibj/a', 'taxibj/b')])
@pytest.mark.parametrize('moved', range(6))
def test_a_kill_while_files_are_moved_into_place(tmp_path, monkeypatch, inside, moved):
  """Before, between and behind any two renames: the same command goes on."""
  (tmp_path / 'mirror').mkdir()
  with zipfile.ZipFile(tmp_path / 'mirror' / 'taxibj_dataset.zip', 'w') as archive:
    for name in inside:
      archive.writestr(name, name)
  expected = {pathlib.Path('taxibj') / (n if inside[0] == 'a' else n.removeprefix('taxibj/')): n
              for n in inside}
  words = 'taxibj', tmp_path / 'in', (tmp_path / 'mirror').as_uri()
  real, calls = pathlib.Path.replace, []

  def replace(self, target):
    if '.moving' in str(self) + str(target):
      if len(calls) == moved:
        raise Killed
      calls.append(target)
    return real(self, target)

  def touch(self, *a):
    raise Killed

  with monkeypatch.context() as patch:
    patch.setattr(pathlib.Path, 'replace', replace)
    patch.setattr(pathlib.Path, 'touch', touch)
    with pytest.raises(Killed):
      addresses.fetch(*words)
  for _ in range(2):
    addresses.fetch(*words)
    found = {p.relative_to(tmp_path / 'in'): p.read_text()
             for p in (tmp_path / 'in' / 'taxibj').rglob('*') if p.is_file()}
    assert found == expected
    assert sorted(p.name for p in (tmp_path / 'in').iterdir()) == [
        '.taxibj_dataset.zip.unpacked', 'taxibj', 'taxibj_dataset.zip']


def test_what_a_user_put_there_is_never_replaced(tmp_path, monkeypatch):
  (tmp_path / 'mirror').mkdir()
  with zipfile.ZipFile(tmp_path / 'mirror' / 'taxibj_dataset.zip', 'w') as archive:
    for name in 'ab':
      archive.writestr(name, name)
  words = 'taxibj', tmp_path / 'in', (tmp_path / 'mirror').as_uri()
  own = tmp_path / 'in' / 'taxibj' / 'b'
  own.parent.mkdir(parents=True)
  own.write_text('mine')
  for _ in range(2):
    with pytest.raises(StoreError, match=r'taxibj/b: is there already.* move it away'):
      addresses.fetch(*words)
    assert own.read_text() == 'mine' and [p.name for p in own.parent.iterdir()] == ['b']
  own.unlink()
  addresses.fetch(*words)
  assert own.read_text() == 'b'
