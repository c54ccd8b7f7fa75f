"""Beam runs from training to the report: cards, submission, rebuilding, batch sizes, bad input."""

import json
import pathlib

import numpy as np
import pytest

from stp_jax import checkpoint, evaluate, evaluate_beam, train
from stp_jax.report import __main__ as report_command
from tests import beam_stores

# One worker trains the runs that these tests share; another would train them again.
pytestmark = pytest.mark.xdist_group('beam_runs')


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """A beam run and a rebuild run that starts from it, two steps each."""
  root = tmp_path_factory.mktemp('runs')
  store = beam_stores.make(root / 'store', samples=(8, 4, 12))
  train.train(beam_stores.config(store, 'missing=lidar,missing_in=test', **{
      'task.beam.robustness': '4', 'eval_every': '1'}), root / 'beam')
  train.train(beam_stores.config(store, f'stage=rebuild,init_from={root / "beam"}', **{
      'task.beam.robustness': '0'}), root / 'rebuild')
  return root


def test_the_card_has_every_row(runs):
  card = evaluate.evaluate(runs / 'beam')
  out = runs / 'beam' / 'report'
  assert json.loads((out / 'score_card.json').read_text()) == json.loads(json.dumps(card))
  scores = card['splits']['test']
  assert list(scores) == ['all modalities', 'without lidar, zeros', 'positions only',
                          'most frequent beams', 'chance']
  assert scores['all modalities']['all']['samples'] == 12
  assert set(scores['chance']) == {'all', '33'} and 0.05 < scores['chance']['all']['dba'] < 0.3
  # 15 subsets; the whole one has nothing to fill.
  assert len(card['robustness']['test']) == 1 + 2 * 14
  text = (out / 'score_card.md').read_text()
  assert '| positions only ' in text and 'Every subset of the modalities, 4 samples' in text
  table = (out / 'submission_test' / 'beam_pred.csv').read_text().splitlines()
  assert table[0] == 'index,top-1 beam,top-2 beam,top-3 beam' and len(table) == 13
  best = np.array([row.split(',')[1:] for row in table[1:]], int)
  assert 1 <= best.min() and best.max() <= 64 and (best[:, 0] != best[:, 1]).all()
  assert (out / 'README.md').read_text().count('![') >= 3
  # The head of positions alone is fitted once.
  assert (runs / 'beam' / 'beam_baselines.npz').exists()


def test_scores_depend_on_no_batch_size(runs):
  one, other = (evaluate_beam.evaluate(
      _with_batch(runs / 'beam', size), out=runs / f'out{size}')['splits'] for size in (8, 16))
  one, other = (np.array([v for s in tree['test'].values() for v in s['all'].values()])
                for tree in (one, other))
  np.testing.assert_allclose(one, other, rtol=1e-9)


def _with_batch(run, size):
  loaded = checkpoint.load(run)
  loaded.config.data.eval_batch_size = size
  loaded.config.task.beam.robustness = 0
  return loaded


def test_a_rebuild_run_keeps_its_stem_and_prints_with_and_without(runs):
  before, after = (checkpoint.load(runs / n).variables['params'] for n in ('beam', 'rebuild'))
  stem = lambda tree: np.asarray(tree['image_encoder']['conv1']['kernel'])
  np.testing.assert_array_equal(stem(before), stem(after['fusion']))
  head = lambda tree: np.asarray(tree['head']['join_0']['kernel'])
  moved = np.abs(head(before) - head(after['fusion'])).max()
  assert 0 < moved < 0.05
  card = evaluate.evaluate(runs / 'rebuild')
  names = list(card['splits']['test'])
  assert names[:5] == ['all modalities', 'without image, zeros', 'without image, zeros, rebuilt',
                       'without image, noise', 'without image, noise, rebuilt']
  # The run that it started from answers as it does on its own.
  scores = card['splits']['test']
  own = evaluate_beam.evaluate(_with_batch(runs / 'beam', 8), out=runs / 'own')['splits']['test']
  assert scores['all modalities, before'] == own['all modalities']
  assert 'without image, noise, before' in names
  text = (runs / 'rebuild' / 'report' / 'score_card.md').read_text()
  assert '### image rebuilt from lidar+radar' in text and '| noise ' in text
  # Nothing of a lost target reaches a rebuilt forecast.
  rows = [json.loads(r) for r in (runs / 'rebuild' / 'metrics.jsonl').read_text().splitlines()]
  assert {'term/translation', 'term/contrast', 'term/distance', 'term/fusion'} <= set(rows[0])


def test_reports_are_made_again_and_overlaid(runs, capsys):
  evaluate_beam.evaluate(_with_batch(runs / 'beam', 8), out=runs / 'beam' / 'report')
  assert report_command.main(['--workdir', str(runs / 'beam'), '--out', str(runs / 'again')]) == 0
  assert (runs / 'again' / 'README.md').exists()
  both = f'{runs / "beam"},{runs / "rebuild"}'
  assert report_command.main(['--workdir', both, '--out', str(runs / 'both')]) == 0
  assert (runs / 'both' / 'losses.png').stat().st_size > 10_000
  assert report_command.main(['--workdir', f'{both},{runs / "none"}']) == 1
  assert 'none/metrics.jsonl: not there' in capsys.readouterr().err


def test_bad_stores_and_splits_are_one_line(runs, tmp_path, capsys):
  unlabelled = beam_stores.make(tmp_path / 'u', labels=False)
  card = evaluate_beam.evaluate(
      _with_batch(runs / 'beam', 8), store=[str(unlabelled.path)], split=['test'], out=tmp_path)
  assert card['splits'] == {'test': {}}
  assert 'the submission file alone' in (tmp_path / 'score_card.md').read_text()
  blind = beam_stores.make(tmp_path / 'blind', leave_out=('radar',))
  for arguments, message in (
      (['--store', str(blind.path)], "blind: no stream 'radar'"),
      (['--split', 'nowhere'], 'no sample in split nowhere')):
    assert evaluate.main(['--checkpoint', str(runs / 'beam'), *arguments]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error


def test_another_models_checkpoint_is_refused(runs, tmp_path):
  store = pathlib.Path(runs / 'store')
  config = beam_stores.config(type('S', (), dict(path=store)), f'init_from={runs / "beam"}')
  config.model.backbone.widths = (4, 8)
  with pytest.raises(ValueError, match='a checkpoint of another architecture') as error:
    train.train(config, tmp_path / 'other')
  assert '\n' not in str(error.value)
