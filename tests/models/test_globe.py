"""The sun's frame is exact and undone; columns go round; zeros at the edges do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stp_jax.models import build
from stp_jax.models.globe import Globe
from stp_jax.models.layers import conv, conv3d, depthwise, transposed
from stp_jax.models.layers.periodic import periodic_columns
from stp_jax.models.simvp.translators import poolformer
from tests.models.test_forecaster import TINY


def _draw(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _longitudes(columns, first=-180.0, closed=False, west=False):
  step = 360 / columns * (-1 if west else 1)
  return first + step * np.arange(columns + closed)


def _calendar(hours):
  hours = jnp.asarray(hours, jnp.float32)
  return jnp.stack([jnp.ones_like(hours), hours], -1)


@settings(max_examples=12, deadline=None)  # a compile for each new shape
@given(columns=st.sampled_from([3, 24]), closed=st.booleans(), padding=st.sampled_from([0, 1]),
       first=st.sampled_from([-180.0, 0.0, -177.5]), west=st.booleans(),
       hours=st.lists(st.floats(0, 24, exclude_max=True), min_size=2, max_size=2))
def test_turning_is_a_permutation_and_is_undone(columns, closed, padding, first, west, hours):
  globe = Globe.of(_longitudes(columns, first, closed, west), 'sun')
  assert globe.columns == columns
  width = columns + closed + padding
  maps = np.random.default_rng(0).normal(size=(1, 2, 3, columns, 2))
  maps = maps[..., np.arange(width) % columns, :].astype(np.float32)
  shift = globe.shift(_calendar([hours]))
  seen = np.asarray(globe.seen(maps, shift))
  assert seen.shape == (1, 2, 3, columns, 2)
  for t in range(2):  # by numpy
    np.testing.assert_array_equal(
        seen[0, t], np.roll(maps[0, t, :, :columns], int(shift[0, t]), 1))
  np.testing.assert_array_equal(globe.geographic(seen, shift, width), maps)


@pytest.mark.parametrize('first, closed, west', [
    (-180.0, False, False), (-180.0, True, False), (0.0, False, False), (175.0, False, True)])
def test_noon_stands_still_in_the_middle(first, closed, west):
  longitude = _longitudes(72, first, closed, west)
  hours = np.arange(0, 24, 1 / 3)  # 5 degrees: a column
  local = (hours[:, None] + longitude / 15) % 24
  maps = np.cos((local - 12) / 12 * np.pi)[None, :, None, :, None]
  globe = Globe.of(longitude, 'sun')
  seen = np.asarray(globe.seen(jnp.asarray(maps, jnp.float32), globe.shift(_calendar([hours]))))
  np.testing.assert_allclose(seen, np.broadcast_to(seen[:, :1], seen.shape), atol=1e-5)
  assert seen[0, 0, 0, :, 0].argmax() == 36 and seen.max() == pytest.approx(1)


@pytest.mark.parametrize('longitude, frame, padding, message', [
    (None, 'sun', 'zero', 'model.frame=sun needs frames whose longitudes are known'),
    (np.arange(-20, 41, 5.0), 'sun', 'zero', 'go round .* -20 to 40 degrees in 13 columns'),
    (np.arange(-180, 170, 5.0), 'geographic', 'circular', 'model.padding=circular .* 70 columns'),
    ([0, 90, 170, 270], 'sun', 'zero', 'equal steps'), ([0.0], 'sun', 'zero', 'equal steps'),
    (np.arange(0, 360, 7.0), 'sun', 'zero', 'equal steps'),
    (None, 'moon', 'zero', "model.frame='moon': one of geographic sun"),
    (None, 'sun', 'mirror', "model.padding='mirror': one of zero circular")])
def test_what_does_not_go_round(longitude, frame, padding, message):
  with pytest.raises(ValueError, match=message):
    Globe.of(longitude, frame, padding)
  assert Globe.of(longitude) is None


@settings(max_examples=14, deadline=None)
@given(method=st.sampled_from(['rewritten', 'native']), k=st.sampled_from([1, 3, 9]),
       cells=st.sampled_from([2, 5]), turn=st.integers(0, 9), layer=st.sampled_from(
           ['plain', 'strided', 'groups', 'depth', 'dilated', 'transposed', 'volume']))
def test_layers_that_convolve_go_round(method, k, cells, turn, layer):
  """Turning the input of a layer turns its output; rows keep their zeros."""
  width, scale = 2 * cells, 1.0
  x = np.asarray(_draw(1, 4, width, 2))
  kernel = _draw(k, k, {'groups': 1, 'depth': 1, 'dilated': 1}.get(layer, 2), 2, seed=1)
  run = dict(
      plain=lambda x: conv.convolution(x, kernel),
      strided=lambda x: conv.convolution(x, kernel, stride=2),
      groups=lambda x: conv.convolution(x, kernel, groups=2),
      depth=lambda x: depthwise.depthwise(x, kernel),
      dilated=lambda x: depthwise.depthwise(x, kernel, 3),
      transposed=lambda x: transposed.transposed_convolution(
          x, kernel, stride=2, padding=(k - 1) // 2, output_padding=1),
      volume=lambda x: conv3d.depth_convolution(x[:, None], kernel[None])[:, 0])[layer]
  if layer == 'strided':
    turn, scale = 2 * turn, 1 / 2
  elif layer == 'transposed':
    scale = 2
  with conv.convolution_method(method):
    walled = np.asarray(jax.jit(run)(x))
    with periodic_columns():
      periodic = jax.jit(lambda x: run(x))  # traced here, and once
      y, turned = (np.asarray(periodic(z)) for z in (x, np.roll(x, turn, 2)))
  assert y.shape == walled.shape
  np.testing.assert_allclose(turned, np.roll(y, round(turn * scale), 2), atol=1e-4)
  if k > 1:
    assert not np.allclose(y, walled, atol=1e-4)
  reach = k * (3 if layer == 'dilated' else 1)  # far from both edges nothing changes
  middle = slice(round(reach * scale), round((width - reach) * scale))
  np.testing.assert_allclose(y[:, :, middle], walled[:, :, middle], atol=1e-4)


def test_means_of_neighbours_go_round():
  x = _draw(1, 4, 6, 2)
  with periodic_columns():
    y, turned = (poolformer.mean_of_neighbours(z) for z in (x, jnp.roll(x, 2, 2)))
  np.testing.assert_allclose(turned, jnp.roll(y, 2, 2), rtol=1e-5, atol=1e-6)
  around = x[0, :2, jnp.array([5, 0, 1])].reshape(-1, 2)  # of the corner: three columns, two rows
  np.testing.assert_allclose(y[0, 0, 0], around.mean(0), rtol=1e-5)
  np.testing.assert_allclose(y[:, :, 1:-1], poolformer.mean_of_neighbours(x)[:, :, 1:-1], rtol=1e-5)


def test_a_transposed_convolution_that_loses_columns():
  with periodic_columns(), pytest.raises(ValueError, match='make 12 columns of 6'):
    transposed.transposed_convolution(_draw(1, 4, 6, 2), _draw(3, 3, 2, 2), stride=2, padding=1)


_FAST = ('simvp', 'mau')
_SLOW = ('convlstm', 'predrnn', 'e3dlstm', 'mim', 'predrnnpp', 'predrnnv2', 'phydnet', 'tau')


@pytest.mark.parametrize('name', [*_FAST, *(pytest.param(n, marks=pytest.mark.slow)
                                            for n in _SLOW)])
def test_a_turned_world_has_a_turned_forecast(name):
  """Under circular padding by any multiple of the patch and the backbone's own stride."""
  fields = dict(TINY['simvp'], translator='tau') if name == 'tau' else TINY[name]
  make = lambda padding: build(
      dict(name='simvp' if name == 'tau' else name, fusion='concatenate', patch=2, backbone=fields,
           padding=padding),
      shape=(8, 17, 1), forcings=1, t_in=2, t_out=3, longitude=_longitudes(16, closed=True))
  model = make('circular')
  frames, planes = (_draw(1, 5, 8, 16, 1, seed=s) for s in (1, 2))
  closed = lambda x, turn: jnp.concatenate([a := jnp.roll(x, turn, 3), a[:, :, :, :1]], 3)
  variables = jax.jit(model.init)(jax.random.key(0), closed(frames, 0), closed(planes, 0))
  forecast = jax.jit(lambda turn, padding: make(padding).apply(
      variables, closed(frames, turn), closed(planes, turn)).prediction, static_argnums=1)
  turn = 2 * model.backbone.multiple
  one, other = forecast(0, 'circular'), forecast(turn, 'circular')
  np.testing.assert_array_equal(one[:, :, :, 16], one[:, :, :, 0])
  np.testing.assert_allclose(other[:, :, :, :16], jnp.roll(one[:, :, :, :16], turn, 3),
                             rtol=1e-4, atol=1e-5)
  if name == 'simvp':  # the wall at 180 degrees
    walled, other = forecast(0, 'zero'), forecast(turn, 'zero')
    assert not np.allclose(other[:, :, :, :16], jnp.roll(walled[:, :, :, :16], turn, 3), atol=1e-3)


def _sun(anchor='none', t_in=3, t_out=2, **more):
  return build(
      dict(name='convlstm', fusion='concatenate', backbone=TINY['convlstm'], frame='sun',
           anchor=anchor, **more),
      shape=(6, 13, 1), forcings=1, t_in=t_in, t_out=t_out, frames_per_day=3,
      longitude=_longitudes(12, closed=True))


def test_an_untrained_correction_is_persistence_in_the_geographic_frame():
  """A day's lag turns a map once round; the closing column is the first, whatever it held."""
  model = _sun('persistence')
  frames, planes = _draw(2, 3, 6, 13, 1), _draw(2, 5, 6, 13, 1, seed=1)
  calendar = _calendar(np.broadcast_to(np.arange(5) * 8.0 % 24, (2, 5)))
  variables = jax.jit(model.init)(jax.random.key(0), frames, planes)  # no hour yet
  got = jax.jit(model.apply)(variables, frames, planes, calendar=calendar).prediction
  expected = frames[:, :2].at[..., 12, :].set(frames[:, :2, :, 0])
  np.testing.assert_array_equal(got, expected)
  with pytest.raises(ValueError, match='frame=sun needs the calendar'):
    jax.eval_shape(model.apply, variables, frames, planes)


def test_a_network_cannot_tell_when_and_where_from_local_time():
  """The same sky an hour later stands a column further west: so does the forecast, exactly."""
  model = build(dict(name='convlstm', backbone=TINY['convlstm'], frame='sun'), shape=(8, 24, 1),
                t_in=2, t_out=2, longitude=_longitudes(24))
  frames = _draw(1, 2, 8, 24, 1)
  variables = jax.jit(model.init)(jax.random.key(0), frames)
  hours = np.array([[3.0, 5.0, 7.0, 9.0]])
  run = jax.jit(lambda frames, hours: model.apply(
      variables, frames, calendar=_calendar(hours)).prediction)
  later = run(jnp.roll(frames, -1, 3), hours + 1)
  one = run(frames, hours)
  np.testing.assert_array_equal(later, jnp.roll(one, -1, 3))
  assert not np.allclose(run(frames, hours + 1), one, atol=1e-4)


def test_frames_that_cannot_go_round():
  with pytest.raises(ValueError, match='patches of 5, fusion none and ConvLSTM want 15'):
    model = build(dict(name='convlstm', patch=5, padding='circular', backbone=TINY['convlstm']),
                  shape=(8, 12, 1), t_in=2, t_out=1, longitude=_longitudes(12))
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2, 8, 12, 1)))
