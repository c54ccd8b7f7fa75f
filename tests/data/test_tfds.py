"""The source tfds: with the package, on files that it wrote; without it, one line."""

import sys

import numpy as np
import pytest

from stp_jax.data import tfds_source
from stp_jax.data.clip_store import StoreError


def test_without_the_package_it_is_one_line(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
  with pytest.raises(StoreError, match=r'pip install "stp_jax\[tfds\]"') as error:
    tfds_source.prepare(in_dir=tmp_path, out=tmp_path / 's', name='x')
  assert '\n' not in str(error.value)


@pytest.fixture
def written(tmp_path):
  """A data set of tfds in array_record, written by its own library without TensorFlow."""
  tfds = pytest.importorskip('tensorflow_datasets', reason='stp_jax[tfds] is not installed')
  from array_record.python.array_record_module import ArrayRecordWriter
  features = tfds.features.FeaturesDict(dict(
      clip=tfds.features.Tensor(shape=(6, 16, 20, 3), dtype=np.uint8),
      label=tfds.features.Scalar(dtype=np.int64)))
  base = tmp_path / 'data' / 'tiny' / '1.0.0'
  base.mkdir(parents=True)
  frames, infos = {}, []
  for split, count in dict(train=4, test=2).items():
    film = np.random.default_rng(count).integers(0, 256, (count, 6, 16, 20, 3)).astype(np.uint8)
    name = tfds.core.ShardedFileTemplate(
        data_dir=base, dataset_name='tiny', split=split, filetype_suffix='array_record')
    path = name.sharded_filepath(shard_index=0, num_shards=1)
    writer = ArrayRecordWriter(str(path), 'group_size:1')
    size = 0
    for one in film:
      data = features.serialize_example(dict(clip=one, label=1))
      size += len(data)
      writer.write(data)
    writer.close()
    frames[split] = film
    infos.append(tfds.core.SplitInfo(name=split, shard_lengths=[count], num_bytes=size,
                                     filename_template=name))
  tfds.folder_dataset.write_metadata(data_dir=base, features=features, split_infos=infos,
                                     filename_template=infos[0].filename_template, check_data=False)
  return tmp_path / 'data', frames


def test_reads_what_tfds_wrote(written, tmp_path):
  data, frames = written
  store = tfds_source.prepare(in_dir=data, out=tmp_path / 's', name='tiny', validation=0.25)
  assert 'tensorflow' not in sys.modules
  assert [c.split for c in store.clips] == ['train'] * 3 + ['validation'] + ['test'] * 2
  np.testing.assert_array_equal(store.frames(5), frames['test'][1])
  with pytest.raises(StoreError, match='no feature video; there are: clip, label'):
    tfds_source.prepare(in_dir=data, out=tmp_path / 't', name='tiny', feature='video')
  with pytest.raises(StoreError, match='no split dev; there are: t'):
    tfds_source.prepare(in_dir=data, out=tmp_path / 't', name='tiny', splits='dev')
  with pytest.raises(StoreError, match='no version of the data set'):
    tfds_source.prepare(in_dir=data, out=tmp_path / 't', name='other')
