"""The course's flow on a miniature of its folders: the three commands of launch/course.sbatch."""

import json
import pathlib
import shlex
import subprocess

import jax
import numpy as np
import PIL.Image
import pytest

from stp_jax import checkpoint, main, predict, predict_arrays
from stp_jax import config as config_files
from stp_jax import prepare as cli
from stp_jax.data import course, folder
from stp_jax.data.clip_store import ClipStore, StoreError
from stp_jax.models import build
from stp_jax.report import frames as pictures
from tests.data import own_frames

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_SCRIPT = _ROOT / 'launch' / 'course.sbatch'
_SIZE = (16, 24)

# One worker makes what these tests share; another would make it again.
pytestmark = pytest.mark.xdist_group('course')


def videos(root: pathlib.Path) -> None:
  """The course's layout: numbers that do not sort as text, and files that are no frames."""
  index = 0
  for part, numbers, length in (('train', (2, 10, 0), 22), ('val', (1000, 999), 22),
                                ('unlabeled', (7,), 22), ('hidden', (15010, 15009, 9000), 11)):
    for number in numbers:
      folder_ = root / part / f'video_{number}'
      for t, frame in enumerate(own_frames.film(index, length, _SIZE, 3)):
        own_frames.png(folder_ / f'image_{t}.png', frame)
      np.save(folder_ / 'mask.npy', np.zeros((length, *_SIZE), np.uint8))
      (folder_ / '.DS_Store').write_bytes(b'x')
      index += 1


@pytest.fixture(scope='module')
def done(tmp_path_factory):
  """What the three commands of the launcher leave, run one after another in this process."""
  root = tmp_path_factory.mktemp('course')
  videos(root / 'data')
  (root / 'configs').symlink_to(_ROOT / 'configs')
  told = subprocess.run(['bash', str(_SCRIPT), '--dry-run', 'data', 'run', 'scale=paper,smoke'],
                        cwd=root, capture_output=True, text=True, check=True).stdout
  commands = [shlex.split(line) for line in told.splitlines()]
  assert [c[:3] for c in commands] == [
      ['python', '-m', f'stp_jax.{name}'] for name in ('main', 'predict', 'report.frames')]
  assert [p.name for p in root.iterdir() if p.name == 'run'] == []  # it only said them
  flags = dict(a.removeprefix('--').split('=', 1) for a in commands[0][3:])
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(root)
    config = config_files.load(flags['config'])
    config.data.batch_size = config.data.eval_batch_size = 8  # devices of the test's mesh
    main.run(config, pathlib.Path(flags['workdir']))
    assert predict.main(commands[1][3:]) == 0
    assert pictures.main(commands[2][3:]) == 0
  return root


def test_the_hidden_set_as_the_course_writes_it(done):
  result = done / 'run' / 'result'
  array = np.load(result / 'video_arrays_result_hidden.npy')
  assert array.dtype == np.uint8 and array.shape == (3, 11, *_SIZE, 3)
  names = json.loads((result / 'dir_arrays_hidden.json').read_text())
  assert names == ['video_9000', 'video_15009', 'video_15010']
  predictor = predict.Predictor.load(done / 'run', step='best')
  for name, found in zip(names, array):
    given = np.stack([np.asarray(PIL.Image.open(done / 'data' / 'hidden' / name / f'image_{t}.png'))
                      for t in range(11)])
    forecast = predictor(given.astype(np.float32) / 255)
    expected = (np.clip(forecast, 0, 1) * 255).astype(np.uint8)
    assert np.abs(found.astype(int) - expected).max() <= 1 and (found == expected).mean() > 0.99
  files = sorted(p.relative_to(result).as_posix() for p in (result / 'hidden').rglob('*.png'))
  assert files == [f'hidden/video_{n}/image_21.png' for n in (15009, 15010, 9000)]
  with PIL.Image.open(result / 'hidden' / 'video_9000' / 'image_21.png') as picture:
    assert picture.mode == 'RGB'
    np.testing.assert_array_equal(np.asarray(picture), array[0, 10])


def test_the_card_is_of_the_validation_videos_and_the_best_step(done):
  card = json.loads((done / 'run' / 'report' / 'scores.json').read_text())
  assert set(card['splits']) == {'validation'} and card['splits']['validation']['windows'] == 2
  with checkpoint.manager(done / 'run') as checkpoints:
    assert card['step'] == checkpoint.watched(checkpoints, 4)['best_step']


def test_the_store_has_the_courses_splits(done):
  (path,) = (done / 'runs' / 'stores').iterdir()
  store = ClipStore(path)
  assert [(c.split, c.source) for c in store.clips] == [
      ('hidden', 'hidden/video_9000[0:11]'), ('hidden', 'hidden/video_15009[0:11]'),
      ('hidden', 'hidden/video_15010[0:11]'), ('train', 'train/video_0[0:22]'),
      ('train', 'train/video_2[0:22]'), ('train', 'train/video_10[0:22]'),
      ('unlabeled', 'unlabeled/video_7[0:22]'), ('validation', 'val/video_999[0:22]'),
      ('validation', 'val/video_1000[0:22]')]
  with PIL.Image.open(done / 'data' / 'train' / 'video_10' / 'image_21.png') as last:
    np.testing.assert_array_equal(store.frames(5, 21, 1)[0], np.asarray(last))


def test_pictures_of_clips_without_truth(done, capsys):
  assert predict.main([f'--checkpoint={done / "run"}', '--split=hidden+validation', '--limit=0',
                       f'--store={next((done / "runs" / "stores").iterdir())}',
                       f'--out={done / "png"}']) == 0
  (folder_,) = (done / 'png').glob('*/run')
  truth = [len(list(folder_.glob(f'sample{k}/ground_truth*.png'))) for k in range(1, 6)]
  assert truth == [0, 0, 0, 11, 11]
  assert len(list(folder_.glob('sample1/output*.png'))) == 11
  assert predict.main([f'--checkpoint={done / "run"}', '--split=nowhere', '--format=npy',
                       f'--store={next((done / "runs" / "stores").iterdir())}',
                       f'--out={done / "x"}']) == 1
  error = capsys.readouterr().err
  assert 'no split nowhere; choose --split from hidden' in error and not (done / 'x').exists()


def test_clips_that_are_too_short_are_named(tmp_path, capsys):
  own_frames.clips(tmp_path / 'in', [3, 6, 12, 2], size=_SIZE)
  store = folder.prepare(in_dir=tmp_path / 'in', out=tmp_path / 's', split='test')
  found = predict_arrays.checked(store, ['test'], 3, 2)
  assert [(w.clip, w.start, w.truth, w.name) for w in found] == [
      (0, 0, False, 'clip1'), (1, 0, True, 'clip2'), (2, 0, True, 'clip3'), (2, 5, True, 'clip3-2')]
  assert 'left out: 1 clips shorter than 3 frames: clip4' in capsys.readouterr().err
  # A clip that is long enough for its input alone is forecast from its last frames.
  assert predict_arrays.windows(store, ['test'], 4, 20)[0][1][:3] == (2, 8, False)
  ((batch, _),) = predict_arrays.batches(store, found[:1], 3, 2, 1)
  np.testing.assert_array_equal(batch['frames'][0, :3], store.frames(0))
  np.testing.assert_array_equal(batch['frames'][0, 3:], store.frames(0)[2:].repeat(2, 0))
  with pytest.raises(ValueError, match='no clip of 13 frames in split test; the longest has 12'):
    predict_arrays.checked(store, ['test'], 13, 1)


def test_values_outside_are_clipped_and_do_not_wrap(done):
  spec = checkpoint.load(done / 'run').spec
  found = predict_arrays.coded(np.array([-0.2, 0.0, 0.5, 0.999, 1.0, 1.7, np.nan]), spec)
  assert found.dtype == np.uint8 and found.tolist() == [0, 0, 127, 254, 255, 255, 0]


@pytest.mark.parametrize('spoil, message', [
    (lambda r: (r / 'val/video_999/image_5.png').unlink(), r'video_999/image_5.png: missing'),
    (lambda r: (r / 'val/video_999/image_0.png').unlink(), r'video_999/image_0.png: missing'),
    (lambda r: (r / 'hidden/video_9000/image_3.png').write_bytes(b'no'),
     r'image_3.png: unreadable .*--on-bad skip'),
    (lambda r: (r / 'train').rename(r / 'training'), r'no folder train in it \(there is hidden')])
def test_bad_folders(tmp_path, spoil, message):
  videos(tmp_path / 'data')
  spoil(tmp_path / 'data')
  with pytest.raises(StoreError, match=message):
    course.prepare(in_dir=tmp_path / 'data', out=tmp_path / 's')
  assert not list(tmp_path.glob('s*'))


def test_prepare_names_the_next_command(tmp_path, capsys):
  videos(tmp_path / 'data')
  (tmp_path / 'result').mkdir()
  path = tmp_path / 'data' / 'hidden' / 'video_9000' / 'image_3.png'
  path.write_bytes(path.read_bytes()[:50])
  assert cli.main(['course', '--in', str(tmp_path), '--out', str(tmp_path / 's'),
                   '--on-bad', 'skip']) == 0
  text = capsys.readouterr().out
  assert f'--config=configs/course.py --store={tmp_path / "s"}' in text
  assert 'skipped: hidden/video_9000[3]' in text
  assert cli.main(['course', '--in', str(tmp_path / 'none'), '--out', str(tmp_path / 't')]) == 1
  assert 'no such folder' in capsys.readouterr().err


def test_the_published_network_and_recipe():
  config = config_files.load('configs/course.py:scale=paper')
  model = build(config.model.to_dict(), shape=(160, 240, 3), t_in=11, t_out=11)
  shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 11, 160, 240, 3), 'f4'))
  assert sum(x.size for x in jax.tree.leaves(shapes['params'])) == 7112355
  assert (config.data.t_in, config.data.t_out, config.data.batch_size, config.epochs) == (
      11, 11, 4, 300)
  o = config.optimizer
  assert (o.name, o.learning_rate, o.schedule, o.plateau_factor, o.plateau_patience, o.min_lr,
          o.clip_value, o.clip_norm) == ('adam', 1e-4, 'plateau', 0.5, 4, 0.0, 10.0, 0.0)
  assert config.validation.to_dict() == dict(
      epochs=1, metric='loss', direction='min', patience=15, min_delta=0.0)


def test_the_launcher(tmp_path):
  subprocess.run(['bash', '-n', str(_SCRIPT)], check=True)
  wrong = subprocess.run(['bash', str(_SCRIPT)], capture_output=True, text=True)
  assert wrong.returncode == 2 and 'DATA [RUN] [WORDS]' in wrong.stderr
  told = subprocess.run(['bash', str(_SCRIPT), '--dry-run', '/my data'], capture_output=True,
                        text=True, check=True).stdout
  assert shlex.split(told.splitlines()[0])[3] == (
      '--config=configs/course.py:data=/my data,scale=paper')
  # Its three steps with stand-ins: the second sees what the first says.
  for name, code in (('ok', 0), ('requeue', 75), ('bad', 1)):
    folder_ = tmp_path / name
    folder_.mkdir()
    (folder_ / 'python').write_text(
        f'#!/bin/sh\necho "$2" >> {folder_}/log\n[ "$2" = stp_jax.main ] && exit {code}\nexit 0\n')
    (folder_ / 'python').chmod(0o755)
    ran = subprocess.run(['bash', str(_SCRIPT), 'data'], capture_output=True,
                         env=dict(PATH=f'{folder_}:/usr/bin:/bin'))
    assert ran.returncode == code
    assert len((folder_ / 'log').read_text().split()) == (1 if code else 3)


@pytest.mark.parametrize('names, frame, array, message', [
    (['a'], 'last', None, '1 names, but .* holds 2 clips'),
    (['a', 'a'], 'last', None, 'a is there twice'),
    (['a', '../b'], 'last', None, "'../b' is no name of a folder"),
    (['a', 'b'], '4', None, '0 to 3'),
    (None, 'last', None, 'no such file of names'),
    (['a', 'b'], 'last', np.zeros((2, 4, 6, 8), np.uint8), r'uint8\[2, 4, 6, 8\]; pictures'),
    (['a', 'b'], 'last', np.zeros((2, 4, 6, 8, 1), np.int16), 'int16')])
def test_bad_arrays_of_pictures(tmp_path, names, frame, array, message):
  path = tmp_path / 'video_arrays_result_x.npy'
  np.save(path, np.zeros((2, 4, 6, 8, 1), np.uint8) if array is None else array)
  if names is not None:
    (tmp_path / 'dir_arrays_x.json').write_text(json.dumps(names))
  with pytest.raises((ValueError, OSError), match=message):
    pictures.write(path, tmp_path / 'out', frame=frame)
  assert not (tmp_path / 'out').exists()


def test_all_pictures_of_grey_floats(tmp_path):
  values = np.random.default_rng(0).uniform(-0.2, 1.2, (2, 3, 6, 8, 1)).astype(np.float32)
  np.save(tmp_path / 'video_arrays_result_x.npy', values)
  (tmp_path / 'n.json').write_text('["b/c", "a"]')
  written = pictures.write(tmp_path / 'video_arrays_result_x.npy', tmp_path / 'out', frame='all',
                           names=str(tmp_path / 'n.json'), first=5)
  assert [p.relative_to(tmp_path / 'out').as_posix() for p in written[:3]] == [
      'b/c/image_5.png', 'b/c/image_6.png', 'b/c/image_7.png']
  with PIL.Image.open(written[4]) as picture:
    assert picture.mode == 'L'
    np.testing.assert_array_equal(
        np.asarray(picture), np.rint(np.clip(values[1, 1, ..., 0], 0, 1) * 255))
