"""The group mamba: which module knows a case; each is imported when a case first needs it."""

import importlib
import importlib.util

from stp_jax.parity.case import Case, Result, Unsupported

GROUPS = ('mamba',)

# Module -> the models it runs; `kind model` where one name means several things.
MODULES = {
    'mamba_blocks': ('selective_scan', 'mamba_block', 'bimamba_block'),
    'mamba_models': (
        'beam_fusion', 'ffm', 'time_mamba', 'gpt_fusion', 'gru_head', 'resnet_trunk'),
    'mamba_data': (
        'beam_soft_labels', 'gps_normalize', 'lidar_histogram', 'radar_maps', 'imagenet_normalize',
        'deepsense_dataset', 'dba', 'beam_losses', 'cyclic_cosine_lr'),
    'mamba_rebuild': ('rebuild_heads', 'rebuild_losses', 'rebuild_objective'),
}


def run(case: Case) -> Result:
  """Runs a case by the module that knows its model. Unsupported: none does."""
  kind, model = case.spec['kind'], case.spec['model']
  for name, models in MODULES.items():
    full = f'stp_jax.parity.{name}'
    if model in models and importlib.util.find_spec(full):
      return importlib.import_module(full).run(case)
  raise Unsupported(f'{kind} {model} ({case.spec["variant"]})')
