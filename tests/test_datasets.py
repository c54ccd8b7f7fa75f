"""A published layout, `prepare`, and `main` with the data set's word: it trains and is scored."""

import json
import pathlib
import re

import numpy as np
import pytest

from configs import video_presets
from stp_jax import config as config_files
from stp_jax import main
from stp_jax import prepare as cli
from stp_jax.data import addresses, datasets
from tests.data import layouts

# One worker compiles what these share.
pytestmark = pytest.mark.xdist_group('published')


@pytest.mark.parametrize('name, make, words', [
    ('taxibj', layouts.taxibj, ()),
    ('kth', lambda r: layouts.kth(r, frames=range(1, 31), persons=(1, 2, 3, 18)), ('--size', '16')),
    pytest.param('hko7', layouts.hko7, ('--size', '16'), marks=pytest.mark.slow),
    pytest.param('weatherbench', lambda r: layouts.weather(r, size=(16, 32)), (
        '--train', '2015', '--validation', '2016', '--test', '2017'), marks=pytest.mark.slow),
    pytest.param('bair', lambda r: layouts.bair(r, (3, 1), 16), (), marks=pytest.mark.slow),
    pytest.param('sevir', layouts.sevir, ('--size', '16'), marks=pytest.mark.slow)])
def test_prepare_and_train(tmp_path, name, make, words):
  make(tmp_path / 'in')
  assert cli.main([name, '--in', str(tmp_path / 'in'), '--out', str(tmp_path / 's'), *words]) == 0
  config = config_files.load(f'configs/video.py:dataset={name},smoke,model=convlstm,steps=2')
  config.data.stores = (str(tmp_path / 's'),)
  config.data.batch_size = config.data.eval_batch_size = 8  # eight devices stand in for a mesh
  config.data.eval_stride = max(config.data.eval_stride, 8)
  main.run(config, tmp_path / 'run')
  card = json.loads((tmp_path / 'run' / 'report' / 'scores.json').read_text())
  forecasts = card['splits']['test']['forecasts']
  assert {'net', 'persistence'} <= set(forecasts)
  assert all(np.isfinite(f['all']['rmse']) for f in forecasts.values())


def test_every_set_has_its_row_and_its_word():
  page = (pathlib.Path(__file__).resolve().parents[1] / 'docs' / 'datasets.md').read_text()
  rows = [line.split('|') for line in page.splitlines() if line.startswith('| `')][1:]
  named = {n: row for row in rows for n in re.findall(r'`(\w+)`', row[1])}
  elsewhere = {'deepsense', 'deepsense_filter', 'deepsense_scenes', 'synthetic', 'course'}
  assert set(datasets.IMPORTERS) - elsewhere <= set(named)
  for name in addresses.SETS:
    assert '*' in named[name][1], name
  words = {w for row in rows for w in re.findall(r'`(\w+)`', row[2])}
  assert set(video_presets.DATASETS) <= words
  for row in rows:
    assert 'real data' in row[7] or 'layout only' in row[7] or 'tfds wrote' in row[7], row[1]


@pytest.mark.parametrize('dataset', video_presets.LIKE)
@pytest.mark.parametrize('scale', ['small', 'paper'])
def test_the_new_words_make_configs(dataset, scale):
  for model in ('simvp', 'tau', 'convlstm', 'phydnet', 'trajgru', 'mau'):
    config = config_files.load(
        f'configs/video.py:dataset={dataset},scale={scale},model={model}')
    known = video_presets.DATASETS[dataset]
    assert (config.data.t_in, config.data.t_out) == (known.t_in, known.t_out)
    assert config.data.stride == config.data.eval_stride == video_presets.STRIDE.get(dataset, 1)
