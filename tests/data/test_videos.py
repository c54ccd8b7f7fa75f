"""Kinetics, and KTH's films as first published: real video files. Needs PyAV (stp_jax[video])."""

import numpy as np
import pytest

from tests.data import layouts
from tests.data.test_published import refused, run, whole

av = pytest.importorskip('av', reason='stp_jax[video] is not installed')


def film(path, count, height=48, width=64, codec='mpeg4'):
  """A film whose frame t is all of grey 8 t: what codecs keep."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with av.open(str(path), 'w') as container:
    stream = container.add_stream(codec, rate=25)
    stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
    for t in range(count):
      frame = np.full((height, width, 3), 8 * t, np.uint8)
      container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
    container.mux(stream.encode())


def _kinetics(root, missing=False):
  rows = dict(train=[('a', 0), ('b', 10)], val=[('c', 3)], test=[('d', 5)])
  for split, listed in rows.items():
    text = 'label,youtube_id,time_start,time_end,split\n'
    for name, start in listed:
      text += f'abseiling,{name},{start},{start + 10},{split}\n'
      if not (missing and name == 'b'):
        film(root / 'kinetics400' / split / f'{name}_{start:06d}_{start + 10:06d}.mp4', 24)
    path = root / 'kinetics400' / 'annotations' / f'{split}.csv'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_kinetics(tmp_path, capsys):
  _kinetics(tmp_path / 'in', missing=True)
  store = run('kinetics', tmp_path / 'in', tmp_path / 's', '--size', 32)
  found = whole(store)
  assert {k: v[0] for k, v in found.items()} == {
      'train/a_000000_000010.mp4': 'train', 'val/c_000003_000013.mp4': 'validation',
      'test/d_000005_000015.mp4': 'test'}
  assert store.frames(0).shape == (8, 32, 32, 3) and store.meta['card']['skipped'] == 1
  for source, (split, frames) in found.items():
    level = frames.mean((1, 2, 3))
    assert (level[-1] - level[0]) / 7 == pytest.approx(16, abs=2)  # every 2nd frame
    if split == 'test':
      assert level[0] < 4, source  # from the beginning
  again = run('kinetics', tmp_path / 'in', tmp_path / 't', '--size', 32)
  np.testing.assert_array_equal(again.frames(0), store.frames(0))
  films = run('kinetics', tmp_path / 'in', tmp_path / 'w', '--size', 32, '--length', 0)
  assert films.frames(0).shape[0] == 12
  refused('kinetics', tmp_path / 'in', tmp_path / 'x', 'b_000010_000020.mp4: missing', '--on-bad',
          'error', '--size', 32, capsys=capsys)


def test_kths_films_with_their_list_of_sequences(tmp_path, capsys):
  name = 'person01_boxing_d1_uncomp'
  film(tmp_path / 'in/kth/boxing' / f'{name}.avi', 30)
  (tmp_path / 'in/kth/00sequences.txt').write_text(
      'Recognition of human actions\n\nperson01_boxing_d1\t\tframes\t3-9, 15-28\n')
  found = whole(run('kth', tmp_path / 'in', tmp_path / 's', '--windows', 'all', '--size', 'native'))
  assert {k: len(v[1]) for k, v in found.items()} == {
      f'boxing/{name}@3': 7, f'boxing/{name}@15': 14}
  level = found[f'boxing/{name}@15'][1].mean((1, 2, 3))
  np.testing.assert_allclose(level, 8 * np.arange(14, 28), atol=5)  # numbered from 1
  layouts.picture(tmp_path / 'in/kth/boxing/x.png', layouts.noise(0, 4, 4))
  (tmp_path / 'in/kth/boxing' / f'{name}.avi').write_bytes(b'RIFF no film')
  refused('kth', tmp_path / 'in', tmp_path / 't', f'{name}.avi: unreadable as a video',
          capsys=capsys)
