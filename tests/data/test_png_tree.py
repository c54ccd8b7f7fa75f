"""Trees of PNG frames: order, names, sizes, bad samples, resuming; and writing one."""

import itertools

import numpy as np
import PIL.Image
import pytest

from stp_jax import prepare as cli
from stp_jax.data import clip_writer, png_samples, png_tree
from stp_jax.data.clip_store import ClipStore, StoreError, verify
from stp_jax.report import png_tree as writing
from tests.data import png_trees


@pytest.fixture
def root(tmp_path):
  png_trees.tree(tmp_path / 'data' / 'pam')
  return tmp_path / 'data'


def test_a_store_per_domain_in_natural_order(root, tmp_path, capsys):
  stores = png_tree.prepare(in_dir=root, out=tmp_path / 'out', validation=0.25)
  assert [s.path.name for s in stores] == ['bair', 'hko7']
  assert 'domains=bair:' in capsys.readouterr().out
  bair, hko = stores
  assert bair.streams['frames'].shape == (8, 10, 3) and hko.streams['frames'].shape == (8, 10, 1)
  assert [c.source for c in hko.clips[:3]] == [f'hko7/train/sample{k}' for k in (1, 2, 3)]
  assert [c.split for c in bair.clips] == ['train'] * 9 + ['validation'] * 3 + ['test'] * 2
  for i, k in ((0, 1), (1, 2), (10, 11)):  # sample2 before sample10
    np.testing.assert_array_equal(bair.frames(i), png_trees.frames((k, 5)))
  sources = {split: {c.source for c in bair.clips if c.split == split} for split in bair.splits}
  assert all(not a & b for a, b in itertools.combinations(sources.values(), 2))
  assert len({c.source for c in bair.clips}) == len(bair.clips)
  for store in stores:
    verify(store.path)
  again = png_tree.prepare(in_dir=root, out=tmp_path / 'out', validation=0.25)
  assert [s.path for s in again] == [s.path for s in stores]


def test_one_domain_without_the_pam_level_resized_as_published(root, tmp_path):
  store = png_tree.prepare(in_dir=root / 'pam', out=tmp_path / 's', domain='hko', size='6x16',
                           channels=3)
  assert store.path == tmp_path / 's' and store.name == 'hko7'
  grey = PIL.Image.fromarray(png_trees.frames((2, 5), channels=1)[0, ..., 0])
  expected = np.asarray(grey.convert('RGB').resize((16, 6), PIL.Image.Resampling.BILINEAR))
  np.testing.assert_array_equal(store.frames(1)[0], expected)


def test_bad_samples_are_named_and_fatal_or_skipped(root, tmp_path, capsys):
  folder = root / 'pam' / 'train' / 'bair'
  (folder / 'sample3' / 'ground_truth2.png').unlink()
  (folder / 'sample11' / 'input2.png').write_bytes(b'\x89PNG no more')
  png_trees.frames(0)
  (folder / 'sample12' / 'input1.png').unlink()
  options = dict(in_dir=root, out=tmp_path / 's', domain='bair')
  with pytest.raises(StoreError, match=r'sample3/ground_truth2\.png: missing; .*--on-bad skip'):
    png_tree.prepare(**options)
  assert not (tmp_path / 's').exists() and not list(tmp_path.glob('*.partial'))
  store = png_tree.prepare(**options, on_bad='skip')
  said = capsys.readouterr()
  assert r'sample11/input2.png: unreadable' in said.err
  assert 'samples skipped: 3' in said.out and store.meta['card']['skipped'] == 3
  there = {c.source.split('/')[-1] for c in store.clips if c.split == 'train'}
  assert there == {f'sample{k}' for k in (1, 2, 4, 5, 6, 7, 8, 9, 10)}


def test_the_first_sample_may_be_the_bad_one(root, tmp_path):
  (root / 'pam' / 'train' / 'bair' / 'sample1' / 'ground_truth2.png').unlink()
  with pytest.raises(StoreError, match=r'sample1/ground_truth2\.png: missing'):
    png_tree.prepare(in_dir=root, out=tmp_path / 's', domain='bair')


def test_mixed_sizes_are_named_unless_resized(root, tmp_path):
  png_trees.sample(root / 'pam' / 'train' / 'bair' / 'sample13', 1, size=(6, 6))
  with pytest.raises(StoreError, match=r'sample13/input1\.png: 6x6, but sample1 has 8x10'):
    png_tree.prepare(in_dir=root, out=tmp_path / 's', domain='bair')
  assert png_tree.prepare(in_dir=root, out=tmp_path / 's', domain='bair', size='8').frames(
      12).shape == (4, 8, 8, 3)


@pytest.mark.parametrize('change, domain, message', [
    (lambda p: None, 'kth', r'no domain kth; there are bair hko7'),
    (lambda p: (p / 'train' / 'kth').mkdir(), 'all', r'train/kth: this domain is empty.*bair hko7'),
    (lambda p: png_trees.sample(p / 'train' / 'hko7' / 'sample1', 1), 'all',
     r'hko and hko7 are one domain'),
    (lambda p: (p / 'train' / 'bair' / 'sample13').mkdir(), 'bair', r'sample13/input1\.png: miss'),
    (lambda p: png_trees.sample(p / 'train' / 'hko' / 'sample13', 1), 'hko7', r'in colour')])
def test_domains_that_cannot_be_used(root, tmp_path, change, domain, message):
  change(root / 'pam')
  with pytest.raises(StoreError, match=message):
    png_tree.prepare(in_dir=root, out=tmp_path / 's', domain=domain)
  assert not (tmp_path / 's').exists()


def test_the_command_says_it_in_one_line(tmp_path, capsys):
  assert cli.main(['png_tree', '--in', str(tmp_path), '--out', str(tmp_path / 's')]) == 1
  assert capsys.readouterr().err.count('\n') == 1


def test_a_killed_run_continues(root, tmp_path, monkeypatch):
  monkeypatch.setattr(clip_writer, '_SHARD_BYTES', 3 * 4 * 8 * 10 * 3)
  read, calls = png_tree.read_sample, []

  def dying(path, **kwargs):
    calls.append(path)
    if len(calls) > 8:
      raise KeyboardInterrupt
    return read(path, **kwargs)
  options = dict(in_dir=root, domain='bair', threads=1)
  with monkeypatch.context() as patch:
    patch.setattr(png_tree, 'read_sample', dying)
    with pytest.raises(KeyboardInterrupt):
      png_tree.prepare(out=tmp_path / 'a', **options)
  # A line cut off by the kill is dropped.
  with (tmp_path / 'a.partial' / 'journal.jsonl').open('a') as file:
    file.write('{"clips": [')
  calls.clear()
  with monkeypatch.context() as patch:
    patch.setattr(png_tree, 'read_sample', lambda p, **k: calls.append(p) or read(p, **k))
    resumed = png_tree.prepare(out=tmp_path / 'a', **options)
  whole = png_tree.prepare(out=tmp_path / 'b', **options)
  assert 0 < len(calls) < 14
  assert list(resumed.clips) == list(whole.clips)
  for i in range(14):
    np.testing.assert_array_equal(resumed.frames(i), whole.frames(i))
  assert ClipStore(tmp_path / 'a').meta['card'] == ClipStore(tmp_path / 'b').meta['card']


def test_a_written_tree_reads_back_clipped(tmp_path):
  values = np.linspace(-0.5, 1.5, 2 * 6 * 8).reshape(2, 6, 8, 1).astype(np.float32)
  values[0, 0, 0] = np.nan
  samples = ({'input': values, 'output': values + k, 'ground_truth': values} for k in (0, 1))
  folders = writing.write_tree(tmp_path, samples, dataset='pam', domain='bair', name='gs2pm')
  assert folders[1] == tmp_path / 'pam' / 'bair' / 'gs2pm' / 'sample2'
  read = png_samples.read_sample(folders[0], channels=1)
  expected = np.rint(np.clip(np.nan_to_num(values), 0, 1) * 255)
  np.testing.assert_array_equal(read, np.concatenate([expected, expected]))
  output = np.asarray(PIL.Image.open(folders[1] / 'output2.png'))
  assert (output == 255).all()  # all above 1: upstream's cast would wrap
  with PIL.Image.open(folders[0] / 'sample1.gif') as gif:
    assert gif.n_frames == 4 and min(gif.size) >= 128
  with pytest.raises(ValueError, match='sample1'):
    writing.write_tree(
        tmp_path, [{'input': values, 'output': values[:, :3]}], dataset='d', name='n')
