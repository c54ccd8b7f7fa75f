"""Part of `pytest -m soak`: a long bfloat16 run of the network that used to end in NaN.

Upstream's README: 20 frames to 5 beams with one Mamba a block is NaN after four epochs, with
clipping and a fifth of the rate after seven; 10 to 5 after six. Its gated block of two Mambas is
stable, but nothing comes out of it at the start. Ours starts alive, so it must be shown.
"""

import json

import numpy as np
import pytest

from stp_jax import config as config_files
from stp_jax import train

STEPS = 2000


@pytest.mark.soak
def test_2000_steps_in_bfloat16_without_a_skipped_one(tmp_path):
  config = config_files.load(
      f'configs/beam_fusion.py:window=20to5,steps={STEPS},batch_size=8', {
          'dtype': 'bfloat16', 'data.cache': str(tmp_path), 'checkpoint_every': '1000'})
  with config.unlocked():
    config.data.dataset_options.update(size=32, samples=400, adaptation=0, test=0)
    config.model.backbone.update(widths=(8, 16, 16, 16), n_layer=2, anchors=(2, 2), hidden=(32, 32))
  train.train(config, tmp_path / 'run')
  rows = [json.loads(r) for r in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
  rows = [r for r in rows if 'loss' in r]
  loss, norm = (np.array([r[k] for r in rows]) for k in ('loss', 'grad_norm'))
  print(f'{len(rows)} steps, skipped {rows[-1]["skipped"]:g}, loss {loss[:100].mean():.4f} -> '
        f'{loss[-100:].mean():.4f}, gradient norm at most {norm.max():.3g}')
  assert len(rows) == STEPS and rows[-1]['skipped'] == 0
  assert np.isfinite(norm).all() and loss[-100:].mean() < 0.5 * loss[:20].mean()
