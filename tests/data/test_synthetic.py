"""Synthetic clips: what they depend on, how they move, what is refused, and a whole run on them."""

import numpy as np
import pytest

from stp_jax import config as config_files
from stp_jax import main, predict, prepare
from stp_jax.data import clip_store, synthetic


def test_a_clip_follows_from_seed_and_index_alone(tmp_path):
  few = synthetic.prepare(out=tmp_path / 'few', size='16x24', channels=2, length=5, clips=4)
  many = synthetic.prepare(out=tmp_path / 'many', size='16x24', channels=2, length=5, clips=8)
  assert few.splits == ['test', 'train', 'validation'] and len(few.clips) == 4 + 1 + 1
  for i in range(4):
    np.testing.assert_array_equal(few.frames(i), many.frames(i))
  assert few.frames(0).shape == (5, 16, 24, 2) and few.frames(0).dtype == np.uint8
  assert not np.array_equal(few.frames(0), few.frames(1))
  options = dict(length=5, height=16, width=24)
  assert not np.array_equal(synthetic.clip(0, 0, **options), synthetic.clip(1, 0, **options))
  spec = synthetic.data_spec(size='16x24', channels=2, clips=4)
  stream = few.streams['frames']
  assert (spec.shape, spec.dtype, spec.scale, spec.units) == (
      stream.shape, stream.dtype, stream.scale, stream.units)
  clip_store.assert_disjoint([few], ['train'])


def test_shapes_move_and_stay_inside():
  frames = synthetic.clip(3, 1, length=60, height=40, width=56, shapes=1).astype(float)[..., 0]
  mass = frames.sum((1, 2))
  assert mass.min() > 0.9 * mass.max()  # nothing leaves the frame
  y = (frames.sum(2) * np.arange(40)).sum(1) / mass
  x = (frames.sum(1) * np.arange(56)).sum(1) / mass
  steps = np.hypot(np.diff(y), np.diff(x))
  assert steps.max() < 0.07 * 40 and steps.mean() > 0.015 * 40


@pytest.mark.parametrize('option, message', [
    ('--size=4', 'size=4: a side or HEIGHTxWIDTH'), ('--channels=0', 'channels=0: choose 1 to 16'),
    ('--length=1', 'length=1: choose 2'), ('--in=x', 'read no files')])
def test_bad_options_are_one_line(tmp_path, capsys, option, message):
  assert prepare.main(['synthetic', f'--out={tmp_path / "s"}', option]) == 1
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1 and not (tmp_path / 's').exists()


def test_a_run_on_frames_without_clock_and_forcings(tmp_path, capsys):
  """Three channels of integers, from the store to the report and a prediction."""
  config = config_files.load(
      'configs/video.py:smoke,dataset=bair,size=16x24,model=convlstm,steps=2')
  config.data.cache, config.data.batch_size = str(tmp_path / 'stores'), 8
  main.run(config, tmp_path / 'run')
  text = capsys.readouterr().out
  assert '1: image' in text and 'SIMULATED' in text and 'persistence (last frame)' in text
  forecast = predict.Predictor.load(tmp_path / 'run')(np.full((4, 16, 24, 3), 0.5, np.float32))
  assert forecast.shape == (5, 16, 24, 3) and np.isfinite(forecast).all()
