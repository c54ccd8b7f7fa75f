"""`prepare ... --download` and `convert --download` against a server that plays the archives."""

import gzip
import hashlib
import io
import json
import zipfile

import numpy as np
import pytest

from stp_jax import prepare as cli
from stp_jax.data import fetch, ionex_archive, ionex_folder, zenodo
from stp_jax.data.clip_store import ClipStore, StoreError
from tests.data import archive_server, ionex_text, tfrecord_bytes


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
  monkeypatch.setattr(fetch, 'PAUSE', 0.0)


@pytest.fixture
def archive(monkeypatch):
  with archive_server.serve() as made:
    for name, path in (('STP_JAX_IONEX_AIUB', '/CODE'), ('STP_JAX_IONEX_CDDIS', '/ionex'),
                       ('STP_JAX_ZENODO', '/api/records')):
      monkeypatch.setenv(name, made.url + path)
    yield made


def _day(day: str, seed: int, hours=2.0) -> bytes:
  text = ionex_text.text(first=day, seed=seed, hours=hours, count=round(24 / hours) + 1)
  return gzip.compress(text.encode(), mtime=0)


def _zip(files: dict[str, bytes]) -> bytes:
  made = io.BytesIO()
  with zipfile.ZipFile(made, 'w') as packed:
    for name, body in files.items():
      packed.writestr(name, body)
  return made.getvalue()


def _record(archive, number: str, files: dict[str, bytes], md5=None):
  """A record as the API gives it."""
  entries = []
  for name, body in files.items():
    archive.files[f'/api/records/{number}/files/{name}/content'] = body
    entries.append(dict(
        key=name, size=len(body), checksum=f'md5:{md5 or hashlib.md5(body).hexdigest()}',
        links=dict(self=f'{archive.url}/api/records/{number}/files/{name}/content')))
  archive.files[f'/api/records/{number}'] = json.dumps(dict(files=entries)).encode()


def _ionex(tmp_path, *words) -> int:
  return cli.main(['ionex', '--download', '--from=2012-11-18', '--to=2012-11-19',
                   f'--in={tmp_path / "files"}', f'--out={tmp_path / "store"}', '--split=test',
                   *words])


@pytest.mark.parametrize('day, centre, product, expected', [
    ('2012-11-18', 'cod', 'final', '/CODE/2012/CODG3230.12I.Z'),
    ('2012-11-18', 'jpl', 'final', '/ionex/2012/323/jplg3230.12i.Z'),
    ('2012-11-18', 'igs', 'rapid', '/ionex/2012/323/igrg3230.12i.Z'),
    ('2012-11-18', 'cod', 'rapid', '/CODE/CORG3230.12I.Z'),
    ('2012-11-18', 'cod', 'predicted1', '/CODE/IONO/P1/2012/C1PG3230.12I.Z'),
    ('2012-11-18', 'cod', 'predicted2', '/CODE/IONO/P2/2012/C2PG3230.12I.Z'),
    ('2012-11-18', 'cod', 'predicted2', '/ionex/2012/323/c2pg3230.12i.Z'),
    ('2023-01-02', 'cod', 'final', '/CODE/2023/COD0OPSFIN_20230020000_01D_01H_GIM.INX.gz'),
    ('2023-01-02', 'jpl', 'final', '/ionex/2023/002/JPL0OPSFIN_20230020000_01D_02H_GIM.INX.gz'),
    ('2026-07-15', 'cod', 'predicted1',
     '/CODE/IONO/P1/2026/COD0OPSPRD_20261960000_01D_01H_GIM.INX.gz'),
    ('2026-11-15', 'cod', 'predicted2',
     '/CODE/IONO/PRD/COD0OPSP1D_20263190000_01D_01H_GIM.INX.gz')])
def test_addresses(archive, day, centre, product, expected):
  listed = list(ionex_archive.addresses(np.datetime64(day), centre, product))
  assert archive.url + expected in listed
  # the names of its own time come first
  assert ('OPS' in listed[0]) == (day > '2022-11-27')


def test_old_and_new_names_hourly_and_two_hourly(archive, tmp_path, capsys):
  archive.files['/CODE/2012/CODG3230.12I.Z'] = _day('2012-11-18', 1)
  archive.files['/CODE/2012/COD0OPSFIN_20123240000_01D_01H_GIM.INX.gz'] = _day(
      '2012-11-19', 2, hours=1.0)
  assert _ionex(tmp_path, '--centre=cod') == 0
  store = ClipStore(tmp_path / 'store')
  assert store.name == 'ionex_cod' and [c.length for c in store.clips] == [24]
  assert sorted(p.name for p in (tmp_path / 'files' / 'cod').iterdir()) == [
      'COD0OPSFIN_20123240000_01D_01H_GIM.INX.gz', 'CODG3230.12I.Z']
  # all is there: nothing is asked for again
  archive.asked.clear()
  assert _ionex(tmp_path, '--centre=cod') == 0
  assert not archive.asked


def test_rapid_where_there_is_no_final_and_missing_days(archive, tmp_path, capsys):
  archive.files['/CODE/CORG3240.12I.Z'] = _day('2012-11-19', 2)
  assert _ionex(tmp_path, '--centre=cod') == 0
  assert '1 of 2 days are not in the archive: 2012-11-18' in capsys.readouterr().out
  assert ClipStore(tmp_path / 'store').clips[0].time == '2012-11-19T00:00'


def test_predictions_are_a_centre_of_their_own(archive, tmp_path):
  for ahead in (1, 2):
    for day in (18, 19):
      name = f'/CODE/IONO/P{ahead}/2012/COD0OPSPRD_2012{305 + day}0000_01D_01H_GIM.INX.gz'
      archive.files[name] = _day(f'2012-11-{day}', 10 * ahead + day)
  stores = []
  for ahead in (1, 2):
    assert cli.main(['ionex', '--download', '--from=2012-11-18', '--to=2012-11-19', '--centre=cod',
                     f'--product=predicted{ahead}', f'--in={tmp_path / "files"}',
                     f'--out={tmp_path / str(ahead)}', '--split=test']) == 0
    stores.append(ClipStore(tmp_path / str(ahead)))
  assert [s.name for s in stores] == ['ionex_cod-predicted1', 'ionex_cod-predicted2']
  assert not np.array_equal(stores[0].frames(0), stores[1].frames(0))


def test_any_other_archive(archive, tmp_path):
  archive.files['/mirror/jplg3230.12i.gz'] = _day('2012-11-18', 1)
  archive.files['/mirror/2012/324/jplg3240.12i.Z'] = _day('2012-11-19', 2)
  assert _ionex(tmp_path, '--centre=jpl', f'--archive={archive.url}/mirror/') == 0
  assert ClipStore(tmp_path / 'store').clips[0].length == 24


def test_a_login_page_is_named_and_nothing_stays(archive, tmp_path, capsys):
  path = '/ionex/2012/323/jplg3230.12i.Z'
  archive.files[path] = b'x'
  archive.moods[path] = ['login'] * 9
  assert _ionex(tmp_path, '--centre=jpl') == 1
  error = capsys.readouterr().err
  assert 'the login page of localhost' in error and 'Earthdata' in error
  assert not (tmp_path / 'store').exists()


@pytest.mark.parametrize('words, message', [
    (['--from=2012-11-18'], '--to None: write a date'),
    (['--from=yesterday', '--to=2012-11-18'], '--from yesterday: write a date'),
    (['--from=2012-11-19', '--to=2012-11-18'], 'ends before it begins'),
    (['--from=2012-11-18', '--to=2012-11-18', '--centre=code'], 'three letters'),
    (['--from=2012-11-18', '--to=2012-11-18', '--product=ultra'], '--product ultra: choose'),
    (['--from=2012-11-18', '--to=2012-11-18'], 'cod best: no file from 2012-11-18')])
def test_bad_words(archive, tmp_path, capsys, words, message):
  assert cli.main(['ionex', '--download', f'--in={tmp_path / "f"}', f'--out={tmp_path / "s"}',
                   *words]) == 1
  assert message in capsys.readouterr().err


def test_names_are_read_by_the_folder_reader():
  for product in ('final', 'rapid', 'predicted1', 'predicted2'):
    for day in ('2012-11-18', '2026-11-18'):
      for name in ionex_archive.names(np.datetime64(day), 'cod', product):
        assert ionex_folder._NAME.search(name), name


def test_zenodo_files_are_verified_and_unpacked_once(archive, tmp_path):
  packed = _zip({'a/x.txt': b'one', 'y.txt': b'two'})
  _record(archive, '7', {'data.zip': packed, 'README.md': b'text'})
  folder = zenodo.download('7', tmp_path)
  assert (folder / 'a' / 'x.txt').read_bytes() == b'one'
  asked = len(archive.asked)
  zenodo.download('7', tmp_path)
  assert len(archive.asked) == asked + 1  # only the list of files
  _record(archive, '8', {'data.zip': packed}, md5='0' * 32)
  with pytest.raises(StoreError, match=r'md5 .* is expected'):
    zenodo.download('8', tmp_path / 'other')
  _record(archive, '9', {'data.zip': _zip({'../out.txt': b'bad'})})
  with pytest.raises(StoreError, match='leads outside the folder'):
    zenodo.download('9', tmp_path / 'third')
  assert not (tmp_path / 'out.txt').exists()
  with pytest.raises(StoreError, match='no such Zenodo record'):
    zenodo.download('10', tmp_path / 'fourth')
  archive.files['/api/records/11'] = b'{"files": 3}'
  with pytest.raises(StoreError, match='no list of a record'):
    zenodo.download('11', tmp_path / 'fifth')


def test_iono_electron_from_its_record(archive, tmp_path):
  record = lambda day, n: tfrecord_bytes.record(tfrecord_bytes.example(
      tfrecord_bytes.sequence(day, n, 1)))
  files = {'iono_electron/train/a': record('2001-03-01', 4) + record('2001-04-01', 4),
           'iono_electron/test/b': record('2002-03-01', 4)}
  _record(archive, zenodo.IONO_ELECTRON, {'iono_electron.zip': _zip(files)})
  words = ['iono_electron', '--download', f'--in={tmp_path / "in"}', f'--out={tmp_path / "store"}']
  assert cli.main(words) == 0
  assert ClipStore(tmp_path / 'store').name == 'iono_electron'
  assert cli.main(words) == 0
