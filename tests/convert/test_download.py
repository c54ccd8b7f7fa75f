"""`convert --download iono_zoo`: the record's experiments become runs, once."""

import hashlib
import io
import json
import zipfile

import pytest

from stp_jax import predict
from stp_jax.convert import __main__ as command
from stp_jax.data import zenodo
from tests.data import archive_server

pytest.importorskip('torch', reason="needs pip install 'stp_jax[convert]'")


def test_a_zoo_is_fetched_and_converted_once(tmp_path, capsys):
  from tests.convert import test_work_dir
  test_work_dir._experiment(tmp_path / 'made')
  packed = io.BytesIO()
  with zipfile.ZipFile(packed, 'w') as archive:
    for name in ('checkpoint.pth', 'model_param.json'):
      archive.write(tmp_path / 'made' / name, f'work_dirs/iono/convlstm/mix_4channel/{name}')
    archive.writestr('work_dirs/iono/broken/checkpoint.pth', b'no weights')
  body = packed.getvalue()
  with archive_server.serve() as server:
    server.files['/w.zip'] = body
    server.files[f'/records/{zenodo.IONO_ZOO}'] = json.dumps(dict(files=[dict(
        key='work_dirs.zip', size=len(body), checksum=f'md5:{hashlib.md5(body).hexdigest()}',
        links=dict(self=f'{server.url}/w.zip'))])).encode()
    words = ['--download', 'iono_zoo', f'--out={tmp_path / "zoo"}',
             f'--archive={server.url}/records', '--frame=12x12']
    assert command.main(words) == 1  # one of the two cannot be read, which is said
    text = capsys.readouterr().out
    assert 'broken/checkpoint.pth: NOT CONVERTED' in text and '1 runs, 1 not converted' in text
    predictor = predict.Predictor.load(tmp_path / 'zoo' / 'convlstm_mix_4channel')
    assert (predictor.t_in, predictor.t_out) == (2, 3)
    server.asked.clear()
    command.main(words)
    assert 'converted before' in capsys.readouterr().out
    assert [path for path, _ in server.asked] == [f'/records/{zenodo.IONO_ZOO}']
    assert command.main(['--download', 'iono_zoo', f'--out={tmp_path / "other"}',
                         f'--archive={server.url}/nothing']) == 1
    assert 'no such Zenodo record' in capsys.readouterr().err
