"""GS2PM's stages: what learns, what stays to the bit, and what evaluation says of it."""

import json
import pathlib

import jax
import numpy as np
import pytest

from stp_jax import checkpoint, evaluate, predict, sharding, tasks, train
from stp_jax import config as config_files
from stp_jax.data import datasets, synthetic
from stp_jax.data.clip_store import ClipStore
from tests import stores

WORDS = 'smoke,size=16,t_in=2,t_out=2,steps=2,batch_size=8'

# One worker makes what these tests share; another would make it again.
pytestmark = pytest.mark.xdist_group('masked_runs')


@pytest.fixture(scope='module')
def domains(tmp_path_factory):
  """Two domains: 8-bit pictures of another size, and 16-bit maps with holes."""
  folder = tmp_path_factory.mktemp('domains')
  synthetic.prepare(in_dir=None, out=folder / 'a', size='20x16', channels=1, length=6, clips=12)
  stores.make(folder / 'b', days=(2, 1, 1), holes=9)
  return f'a:{folder / "a"}+b:{folder / "b"}'


def config_of(words, domains, **overrides):
  return config_files.load(f'configs/gs2pm.py:{WORDS},domains={domains},{words}', {
      k: str(v) for k, v in overrides.items()})


@pytest.fixture(scope='module')
def pretrained(domains, tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs') / 'pretrained'
  train.train(config_of('', domains), folder)
  return folder


def flat(run):
  variables = checkpoint.load(run).variables
  return {jax.tree_util.keystr(p, simple=True, separator='/'): np.asarray(x)
          for p, x in jax.tree_util.tree_leaves_with_path(dict(variables))}


def moved(one, other):
  return {k for k, v in one.items() if v.tobytes() != other[k].tobytes()}


def test_pretraining_learns_both_branches(pretrained):
  rows = [json.loads(x) for x in (pretrained / 'metrics.jsonl').read_text().splitlines()]
  rows = [r for r in rows if 'loss' in r]
  for row in rows:
    np.testing.assert_allclose(
        row['loss'], row['term/prediction'] + row['term/reconstruction'], rtol=1e-5)
  assert len(rows) == 2


def test_a_batch_has_the_shapes_that_are_told(domains):
  config = config_of('', domains)
  opened = datasets.open_stores(config)
  stores.check_batch_shapes(
      tasks.build(config, tasks.find('masked').data_spec(config, opened)), opened)


def test_the_prompt_alone_learns(pretrained, domains, tmp_path):
  """Every other weight and statistic stays to the bit; nothing but the prompt has moments."""
  state = train.train(config_of(f'stage=prompt,init_from={pretrained}', domains), tmp_path / 'run')
  changed = moved(flat(pretrained), flat(tmp_path / 'run'))
  sides = ('up', 'down', 'left', 'right')
  assert changed == {f'params/backbone/prompt/pad_{side}' for side in sides}
  prompt = sum(x.size for x in jax.tree.leaves(state.params['backbone']['prompt']))
  moments = sum(x.size for x in jax.tree.leaves(state.opt_state) if x.ndim)
  assert moments == 2 * prompt


@pytest.mark.slow
def test_statistics_drift_as_upstream_where_asked(pretrained, domains, tmp_path):
  train.train(config_of(f'stage=prompt,init_from={pretrained},freeze_statistics=false', domains),
              tmp_path / 'run')
  changed = moved(flat(pretrained), flat(tmp_path / 'run'))
  assert any(k.startswith('batch_stats/') for k in changed)
  assert all('prompt' in k for k in changed if k.startswith('params/'))


@pytest.mark.slow
def test_everything_learns_in_full_tuning(pretrained, domains, tmp_path):
  only = domains.split('+')[1]
  train.train(config_of(f'stage=full,init_from={pretrained}', only), tmp_path / 'run')
  before, after = flat(pretrained), flat(tmp_path / 'run')
  still = {k for k in before if k.startswith('params/')} - moved(before, after)
  assert not still, still


def test_runs_are_compared_domain_by_domain(pretrained, domains, tmp_path, capsys):
  train.train(config_of(f'stage=prompt,init_from={pretrained}', domains.split('+')[0]),
              tmp_path / 'tuned')
  assert evaluate.main(['--checkpoint', f'{pretrained},{tmp_path / "tuned"}', '--limit', '3',
                        '--store', domains.replace('+', ','), '--out', str(tmp_path / 'out')]) == 0
  text = capsys.readouterr().out
  assert '## a' in text and '## b' in text and 'tuned (prompt)' in text
  assert 'every other one is bit-identical' in text
  card = json.loads((tmp_path / 'out' / 'scores.json').read_text())
  assert len(card['changed']['tuned']['differing']) == 4
  one = card['runs'][0]['domains']['b']
  assert one['windows'] == 3 and len(one['net']['by_lead']['csi']) == 2
  assert {'mse', 'psnr', 'ssim', 'pod', 'far', 'csi', 'hss'} <= set(one['persistence'])
  for name in ('README.md', 'leads_a.png', 'example_b.png'):
    assert (tmp_path / 'out' / name).stat().st_size > 500


@pytest.mark.slow
def test_scores_do_not_depend_on_the_batch(pretrained, domains, tmp_path):
  cards = [evaluate.evaluate(pretrained, batch_size=size, out=tmp_path / str(size))
           for size in (1, 5)]
  for domain in ('a', 'b'):
    one, other = (c['runs'][0]['domains'][domain]['net'] for c in cards)
    for key in ('mse', 'ssim', 'csi', 'upstream_psnr'):
      np.testing.assert_allclose(one[key], other[key], rtol=1e-5)


def test_forecasts_as_pictures(pretrained, domains, tmp_path):
  assert predict.main(['--checkpoint', str(pretrained), '--store', domains.split('+')[0], '--split',
                       'test', '--limit', '2', '--out', str(tmp_path)]) == 0
  sample = tmp_path / 'a' / 'pretrained' / 'sample2'
  assert {p.name for p in sample.iterdir()} == {
      *(f'{part}{i}.png' for part in ('input', 'output', 'ground_truth') for i in (1, 2)),
      'sample2.gif'}


def test_sharded_layers_equal_whole_ones(domains):
  """One step with parameters and moments over 8 devices, against one device."""
  config = config_of('', domains)
  named = [ClipStore(item.partition(':')[2]) for item in domains.split('+')]
  spec = tasks.find('masked').data_spec(config, named)
  task = tasks.build(config, spec)
  tx, schedule = train.optimizers.make(config.optimizer, 4, 4, task.label)
  batch = dict(frames=np.random.default_rng(0).integers(
      0, 256, (8, task.length, *spec.shape)).astype(np.uint16),
               scale=np.full(8, 1 / 255, np.float32), offset=np.zeros(8, np.float32),
               missing=np.full(8, -1, np.int32))
  results = []
  for shape, devices in [((1, 1), jax.devices()[:1]), ((1, 8), jax.devices())]:
    mesh = sharding.make_mesh(*shape, devices=devices)
    init = train.make_init(task, tx, False, seed=1)
    shapes = jax.eval_shape(init)
    shardings = sharding.state_shardings(mesh, shapes, 64)
    state = jax.jit(init, out_shardings=shardings)()
    step = jax.jit(train.make_train_step(task, tx, schedule, 0.0, mesh), static_argnums=2,
                   in_shardings=(shardings, sharding.batch_sharding(mesh)),
                   out_shardings=(shardings, sharding.replicated(mesh)))
    after, metrics = step(state, batch, task.stage(0))
    results.append((jax.device_get(after.params), float(metrics['loss']),
                    sharding.bytes_per_device(shapes, shardings)))
  (one, loss, whole), (other, sharded_loss, part) = results
  np.testing.assert_allclose(loss, sharded_loss, rtol=1e-5)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other)):
    np.testing.assert_allclose(a, b, atol=1e-5)
  assert part < whole / 4


@pytest.mark.parametrize('words, overrides, message', [
    ('', {'task.stage': 'finetune'}, 'task.stage=.finetune.: choose one of pretrain prompt full'),
    ('', {'model.name': 'simvp'}, 'has no mask and no prompt'),
    ('stage=prompt', {}, 'init_from=RUN'),
    ('model=unet,stage=prompt,init_from=x', {}, 'unet has no prompt; choose stage=full'),
    ('', {'model.padding': 'circular'}, 'leave model.frame and model.padding'),
    ('', {'task.term_weights.recon': '0.5'}, 'pretraining has the terms prediction reconstr'),
    ('model=cinema', {}, 'choose one of gs2pm')])
def test_bad_settings(words, overrides, message, domains, tmp_path):
  with pytest.raises(ValueError, match=message):
    train.train(config_of(words, domains, **overrides), tmp_path / 'run')


def test_a_checkpoint_of_another_scale_is_named(pretrained, domains, tmp_path):
  config = config_of(f'stage=full,init_from={pretrained}', domains)
  config.model.backbone.hid_T = 24
  with pytest.raises(ValueError, match='pretrained: a checkpoint of another architecture: missing'):
    train.train(config, tmp_path / 'run')
  assert not list(pathlib.Path(tmp_path / 'run').glob('checkpoints/[0-9]*'))


def test_domains_that_do_not_exist(domains, tmp_path):
  with pytest.raises(ValueError, match='no clip store'):
    train.train(config_of('', f'{domains}+c:{tmp_path / "none"}'), tmp_path / 'run')
  with pytest.raises(ValueError, match='write name:STORE'):
    config_files.load(f'configs/gs2pm.py:domains={tmp_path}')


@pytest.mark.soak
def test_the_large_one_takes_a_step_on_eight_devices():
  """441,917,059 parameters and their moments over eight devices; 12 GB of memory, minutes."""
  config = config_files.load(
      'configs/gs2pm.py:scale=large,size=32,channels=3,batch_size=8,remat=full')
  spec = synthetic.data_spec(size='32', channels=3)
  task = tasks.build(config, spec)
  tx, schedule = train.optimizers.make(config.optimizer, 4, 4, task.label)
  mesh = sharding.make_mesh(1, 8)
  init = train.make_init(task, tx, False, seed=1)
  shapes = jax.eval_shape(init)
  assert sum(x.size for x in jax.tree.leaves(shapes.params)) > 440e6
  shardings = sharding.state_shardings(mesh, shapes)
  whole = sharding.bytes_per_device(shapes, jax.tree.map(
      lambda _: sharding.replicated(mesh), shapes))
  part = sharding.bytes_per_device(shapes, shardings)
  print(f'{part / 2**20:,.0f} of {whole / 2**20:,.0f} MiB of state a device: 1/{whole / part:.2f}')
  assert part <= whole / 6
  state = jax.jit(init, out_shardings=shardings)()
  held = {d: 0 for d in mesh.devices.flat}
  for leaf in jax.tree.leaves(state):
    if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended):
      for shard in leaf.addressable_shards:
        held[shard.device] += shard.data.nbytes
  assert max(held.values()) == part
  step = jax.jit(train.make_train_step(task, tx, schedule, 0.0, mesh), static_argnums=2,
                 in_shardings=(shardings, sharding.batch_sharding(mesh)),
                 out_shardings=(shardings, sharding.replicated(mesh)), donate_argnums=0)
  frames = np.random.default_rng(0).integers(0, 256, (8, task.length, *spec.shape), np.uint8)
  batch = dict(frames=frames, forcings=np.zeros((8, task.length, 0), np.float32))
  state, metrics = step(state, batch, task.stage(0))
  assert np.isfinite(metrics['loss']) and metrics['grad_norm'] > 0 and metrics['skipped'] == 0
