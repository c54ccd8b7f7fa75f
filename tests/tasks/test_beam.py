"""The beam task: what is hidden, mirrored and refused, and every word's training step."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stp_jax import config as config_files
from stp_jax import optimizers, schedules, sharding, sweep, tasks, train
from stp_jax.config import WordError
from stp_jax.convert import beam as convert_beam
from stp_jax.data import beam_windows, pipeline
from stp_jax.data.spec import DataSpec
from stp_jax.models.beam.inputs import MODALITIES, normalize_image
from stp_jax.tasks import beam_augment, beam_inputs
from tests import beam_stores, stores


@pytest.fixture(scope='module')
def store(tmp_path_factory):
  return beam_stores.make(tmp_path_factory.mktemp('beams') / 'store')


def build(store, words='', **overrides):
  config = beam_stores.config(store, words, **overrides)
  task = tasks.find(config.task.name)
  return task(config, task.data_spec(config, [store]))


def batch_of(task, store, split='train'):
  found = task.sources([store], [split])
  return next(pipeline.eval_batches(found, task.spec, task.config.data, task.t_in))


def test_a_sample_is_its_window_and_its_labels(store):
  task = build(store)
  found = task.sources([store], ['train'])
  assert sum(map(len, found)) == 8
  item = found[0][3]
  clip = store.frames(0, 3, 2, 'image')
  np.testing.assert_array_equal(item['image'], clip)
  assert item['beam'] == store.frames(0, 4, 1, 'beam').reshape(-1)
  assert item['gps'].shape == (2, 2) and item['scenario'] == 31 and item['row'] == 4
  assert DataSpec.from_json(task.spec.to_json()).streams == task.spec.streams
  stores.check_batch_shapes(task, [store])


def test_what_is_lost_is_zero_or_noise_after_the_normalisation(store):
  task = build(store)
  inputs = task.physical(batch_of(task, store))
  there = beam_inputs.present(MODALITIES, ('image', 'radar'), 8)
  np.testing.assert_array_equal(there, [[0, 1, 0, 1]] * 8)
  hidden = beam_inputs.hide(inputs, MODALITIES, there, 'zero')
  assert np.abs(normalize_image(hidden['image'])).max() < 1e-5 and not hidden['radar'].any()
  np.testing.assert_array_equal(hidden['lidar'], inputs['lidar'])
  noisy = beam_inputs.hide(inputs, MODALITIES, there, 'random', jax.random.key(1))
  seen = normalize_image(noisy['image'])
  assert seen.min() > -1e-5 and seen.max() < 1 + 1e-5 and seen.std() > 0.2
  # The noise of an example follows from its number, not from its place in a batch.
  last = {k: v[3:4] for k, v in inputs.items()}
  again = beam_inputs.hide(last, MODALITIES, there[3:4], 'random', jax.random.key(1), np.array([3]))
  np.testing.assert_array_equal(again['radar'][0], noisy['radar'][3])
  some = beam_inputs.present(MODALITIES, ('image', 'lidar'), 4000, 0.3, jax.random.key(0))
  assert abs(some.mean(0)[:2] - 0.7).max() < 0.04 and some[:, 2:].min() == 1


def test_augmented_examples_stay_in_range_and_mirror_their_beams(store):
  task = build(store, 'augment')
  batch = {k: v for k, v in batch_of(task, store).items() if k not in ('mask', 'index', 'row')}
  changed, beam = task.training_inputs(batch, jax.random.key(3))
  assert 0 <= changed['image'].min() and changed['image'].max() <= 255
  assert 0 <= changed['radar'].min() and changed['radar'].max() <= 1
  counts = np.asarray(changed['lidar']) * 5
  np.testing.assert_allclose(counts, np.round(counts), atol=1e-5)
  assert counts.sum() < 0.97 * 5 * np.asarray(task.physical(batch)['lidar']).sum()
  turned = beam_augment.flip(batch, jax.random.key(0), 1.0)
  np.testing.assert_array_equal(turned['beam'], 63 - batch['beam'])
  np.testing.assert_array_equal(turned['image'], batch['image'][..., ::-1, :])
  # A run without some modalities flips the others.
  part = {k: v for k, v in batch.items() if k in ('lidar', 'beam', 'scenario')}
  assert set(beam_augment.flip(part, jax.random.key(0), 1.0)) == set(part)
  assert set(np.unique(np.asarray(beam) - batch['beam'])) != {0}


def test_bad_input_is_one_clear_line(store, tmp_path):
  def refused(message, call, *args, **more):
    with pytest.raises((ValueError, TypeError), match=message) as error:
      call(*args, **more)
    assert '\n' not in str(error.value)

  refused("no 'sonar'; choose some of image lidar radar gps", build, store, 'missing=sonar')
  refused("no 'radar'", build, store, 'modalities=image+gps,missing=radar')
  refused('task.loss=.l1.: choose one of focal ce', build, store, **{'task.loss': 'l1'})
  refused('task.beam.fill', beam_inputs.hide, {}, (), jnp.ones((1, 0)), 'ones')
  blind = beam_stores.make(tmp_path / 'blind', leave_out=('image',))
  refused(r"blind: no stream 'image' \(it has lidar radar", build(store).sources, [blind], ['test'])
  other = beam_stores.make(tmp_path / 'other', size=8)
  refused(r'other: image uint8\[8, 8, 3\], but .*\[16, 16, 3\]; prepare both alike',
          beam_windows.make_spec, [store, other])
  refused('no sample in split nothing; the stores have test train', build(store).sources, [store],
          ['nothing'])
  refused('samples of 2 frames, the run asks for 5',
          build(store, **{'data.t_in': '5'}).sources, [store], ['train'])
  refused('samples of 1 beams, the run asks for 3',
          build(store, **{'data.t_out': '3'}).sources, [store], ['train'])
  with pytest.raises(WordError, match='stage=rebuild starts from a trained run'):
    config_files.load(f'{beam_stores.CONFIG}:stage=rebuild')


WORDS = ('', 'model=transfuser,augment,window=10to5', 'ffm=off,modalities=lidar+radar',
         'tfm=off,missing=image+gps,missing_rate=0.5,missing_type=random',
         'stage=rebuild,init_from=x,missing_type=random,translation=0',
         'stage=rebuild,init_from=x,sources=image,targets=lidar+radar,window=20to5')


@pytest.mark.parametrize('words', WORDS)
def test_every_word_traces_through_the_training_step(words):
  config = config_files.load(f'{beam_stores.CONFIG}:smoke{"," if words else ""}{words}')
  with config.unlocked():
    config.model.backbone.update(widths=(4, 8), depths=(1, 1), image_depths=(1, 1))
  spec = convert_beam.data_spec((16, 16), config.data.t_in, config.data.t_out)
  task = tasks.build(config, spec)
  tx, schedule = optimizers.make(config.optimizer, 10, 10, task.label)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  step = train.make_train_step(task, tx, schedule, 0.9, mesh)
  state = jax.eval_shape(train.make_init(task, tx, True, 0))
  after, metrics = jax.eval_shape(lambda s, b: step(s, b, 0), state, task.batch_shapes(4))
  assert jax.tree.structure(after) == jax.tree.structure(state) and metrics['loss'].shape == ()


def test_sweeps_are_configs_in_an_order_that_runs():
  counts = []
  for name in ('table1', 'table2', 'table3', 'table4'):
    seen = set()
    path, _, _, found = sweep.read(f'{beam_stores.CONFIG}:sweep={name}')
    assert sweep.labels(found) == [s['name'] for s in found]  # by which init_from finds them
    for settings in found:
      words, = sweep.arguments(path, '', settings)
      config = config_files.load(words.removeprefix('--config='))
      assert config.name not in seen and (not config.init_from or
                                          config.init_from.removeprefix('runs/') in seen)
      seen.add(config.name)
    counts.append(len(seen))
  assert counts == [6, 4, 9, 17]
  with pytest.raises(sweep.SweepError, match='choose one of table1 table2 table3 table4'):
    sweep.read(f'{beam_stores.CONFIG}:sweep=table5')


def test_the_published_schedule():
  """Ten epochs up from 2.5e-6, fifteen down from 1e-4, then tens down from 1.25e-4."""
  rates = lambda words: [
      float(schedules.make(optimizers.DEFAULTS | dict(config_files.load(
          f'{beam_stores.CONFIG}:scale=paper{words}').optimizer), 500, 10)[0](10 * epoch))
      for epoch in (0, 10, 24, 25, 34, 35)]
  low = 2.5e-6
  found = rates('')
  np.testing.assert_allclose([*found[:2], found[3], found[5]], [low, 1e-4, 1.25e-4, 1.25e-4],
                             rtol=1e-5)
  assert low < found[2] < 1e-5 and low < found[4] < 1e-5
  np.testing.assert_allclose(rates(',stage=rebuild,init_from=x'), 1e-4)


def test_every_field_of_the_section_is_read():
  """A field that nobody reads is a promise that nobody keeps."""
  config = config_files.load(f'{beam_stores.CONFIG}:smoke')
  text = ''.join(p.read_text() for p in pathlib.Path('stp_jax').rglob('*beam*.py'))
  text += pathlib.Path('stp_jax/tasks/rebuild.py').read_text()
  for field in (*config.task.beam, *config.task.rebuild):
    assert re.search(rf"(options|rebuilding)(\.{field}\b|\['{field}'\])", text), field
