"""Set up before jax is imported: CPU only, eight fake devices, a compile cache, parsed flags."""

import gc
import os
import pathlib

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = (
    os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'
    # A third less time: tests compile much and compute little.
    ' --xla_backend_optimization_level=0'
    # The older emitter of fused loops halves what is left of it.
    ' --xla_cpu_use_fusion_emitters=false'
    # Two workers have two cores: splitting every small program into 32 parts costs a sixth.
    ' --xla_cpu_parallel_codegen_split_count=1').strip()
_ROOT = pathlib.Path(__file__).resolve().parents[1]
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(_ROOT / '.cache' / 'jax'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '0')
os.environ.setdefault('MPLBACKEND', 'agg')

import pytest  # noqa: E402
from absl import flags  # noqa: E402

# Tracing makes millions of small objects that live long: looking through them all for garbage
# again and again took a sixth of the time.
gc.set_threshold(100_000, 20, 100)

# Grain's workers read absl flags; outside app.run nobody has parsed them.
flags.FLAGS.mark_as_parsed()


@pytest.fixture
def realdata() -> pathlib.Path:
  """Real maps and indices, which are not committed; a test that needs them is skipped by name."""
  path = pathlib.Path(os.environ.get('STP_JAX_REALDATA')
                      or _ROOT.parent / 'shared' / 'realdata')
  if not path.is_dir():
    pytest.skip(f'{path} is not here: this test reads real ionosphere maps; STP_JAX_REALDATA names '
                'another folder')
  return path
