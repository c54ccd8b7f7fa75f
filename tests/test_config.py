"""Config words: types, unknown ones, and that every field of a run is read by somebody."""

import pathlib

import ml_collections
import pytest

from stp_jax import config as config_files
from stp_jax import evaluate, main, models, train
from tests import stores

MIXER = 'configs/iono_mixer.py'


def test_words_have_types():
  words = config_files.parse_words('a=3,b,c=x+y', dict(a=1, b=False, c='', d=2.0))
  assert words.to_dict() == dict(a=3, b=True, c='x+y', d=2.0)


@pytest.mark.parametrize('text, message', [
    ('oops', "unknown config word 'oops'; the words and their defaults: a=1 b=False"),
    ('a', "config word 'a' needs a value"), ('a=x', 'a=x: not int'), ('b=2', 'true or false')])
def test_a_wrong_word_is_one_clear_line(text, message):
  with pytest.raises(config_files.WordError, match=message) as error:
    config_files.parse_words(text, dict(a=1, b=False))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('words, message', [
    ('model=nothing', r'choose one of convlstm .*simvp tau'), ('scale=big', 'small paper'),
    ('nonsense=1', 'unknown config word')])
def test_the_mixer_lists_its_choices(words, message):
  with pytest.raises(config_files.WordError, match=message):
    config_files.load(f'{MIXER}:{words}')


def test_fields_can_be_overridden_and_unknown_ones_are_listed():
  config = config_files.load(MIXER, {
      'optimizer.learning_rate': '3', 'data.stores': "('a',)", 'name': 'x', 'mesh.fsdp': '4'})
  assert config.optimizer.learning_rate == 3.0 and config.data.stores == ('a',)
  assert config.name == 'x' and config.mesh.fsdp == 4
  with pytest.raises(ValueError, match=r'--config\.optimizer\.lr: unknown field; known: .*eps'):
    config_files.load(MIXER, {'optimizer.lr': '1'})
  with pytest.raises(ValueError, match=r'--config\.nothing\.lr: unknown field'):
    config_files.load(MIXER, {'nothing.lr': '1'})
  with pytest.raises(ValueError, match='not a int'):
    config_files.load(MIXER, {'steps': 'many'})
  with pytest.raises(AttributeError):
    config.typo = 1
  # A backbone's keywords go to it unchanged; it refuses what it does not know.
  config = config_files.load(MIXER, {'model.backbone.drop_path': '0.1'})
  assert config.model.backbone.drop_path == 0.1
  with pytest.raises(TypeError, match="SimVP: unknown field 'typo'; it has "):
    models.build(dict(config.model, backbone=dict(typo=1)), shape=(16, 16, 1), t_in=4, t_out=4)


def test_missing_config_file():
  with pytest.raises(FileNotFoundError, match=r'nowhere\.py: no such config file'):
    config_files.load('nowhere.py:smoke')


def test_help_lists_every_word():
  text = main.words_help(pathlib.Path('configs'))
  assert 'configs/iono_mixer.py' in text and 'channels=9' in text and 'smoke=False' in text


class _Recorder(ml_collections.ConfigDict):
  """Remembers which fields were read."""
  read = set()

  def __getattr__(self, name):
    _Recorder.read.add((id(self), name))
    return super().__getattr__(name)

  def __getitem__(self, name):
    _Recorder.read.add((id(self), name))
    return super().__getitem__(name)


def test_every_field_is_read(tmp_path):
  """A field that nobody reads is a promise that nobody keeps."""
  store = stores.make(tmp_path / 's')
  plain = config_files.load(f'{MIXER}:smoke,model=convlstm,channels=4,steps=2')
  plain.data.stores, plain.eval_every = (str(store.path),), 1
  plain.optimizer.schedule = 'multistep'  # reads what onecycle does not
  plain.data.weights, plain.data.batch_size = (1.0,), 8

  def recorded(node):
    made = _Recorder(type_safe=False)
    for key, value in node.items():
      made[key] = recorded(value) if isinstance(value, ml_collections.ConfigDict) else value
    return made

  config = recorded(plain)
  _Recorder.read.clear()
  train.train(config, tmp_path / 'run')
  evaluate.evaluate(tmp_path / 'run')
  # Read by a branch that this run did not take; each has a test of its own.
  elsewhere = {
      'dataset', 'dataset_options', 'cache', 'eval_stores', 'test_splits', 'eval_batch_size',
      'keep_constants', 'words'}
  sections = [('', config), *((k, v) for k, v in config.items() if isinstance(v, _Recorder))]
  unread = [f'{section}.{key}' for section, node in sections for key in node.keys()
            if (id(node), key) not in _Recorder.read and key not in elsewhere]
  # Optimizer and sampling take their whole section and refuse unknown fields themselves.
  unread = [u for u in unread if not u.startswith(('optimizer.', 'sampling.', 'model.'))]
  assert not unread


def test_an_older_run_reads_as_it_was_meant():
  """Fields that came later take the value that changes nothing."""
  config = config_files.load('configs/iono_mixer.py').copy_and_resolve_references()
  with config.unlocked():
    del config.data.domains, config.task.stage, config.optimizer.slow, config.validation
    del config.optimizer.clip_value, config.protocol
    del config.model.frame, config.model.padding
  done = config_files.complete(config.unlock() or config)
  assert (done.data.domains, done.task.stage, dict(done.optimizer.slow)) == ((), '', {})
  assert (done.model.frame, done.model.padding) == ('geographic', 'zero')
  assert done.optimizer.clip_value == 0 and done.validation.metric == ''
  assert done.protocol == 'standard'


def test_true_and_false_are_written_as_in_words():
  config = config_files.load('configs/video.py:smoke,model=phydnet', {
      'model.backbone.squash': 'false', 'data.balanced': 'true'})
  assert config.model.backbone.squash is False and config.data.balanced is True
