import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from stp_jax.metrics import video


def _pair(shape=(2, 3, 17, 20, 2), seed=0):
  rng = np.random.default_rng(seed)
  truth = rng.uniform(size=shape).astype(np.float32)
  truth = (truth + np.roll(truth, 1, 2) + np.roll(truth, 1, 3)) / 3
  return (truth + 0.1 * rng.normal(size=shape)).astype(np.float32), truth


@pytest.mark.parametrize('data_range', [1.0, 2.0])
def test_ssim_is_scikit_image(data_range):
  prediction, truth = _pair()
  ours = np.asarray(video.ssim(prediction, truth, data_range=data_range))
  for b, t in np.ndindex(2, 3):
    theirs = structural_similarity(
        truth[b, t].astype(float), prediction[b, t].astype(float), channel_axis=-1,
        data_range=data_range)
    assert ours[b, t] == pytest.approx(theirs, abs=2e-6)


def test_ssim_keeps_its_digits_on_a_high_level():
  prediction, truth = _pair((1, 1, 24, 24, 1))
  prediction, truth = prediction * 0.01 + 0.9, truth * 0.01 + 0.9
  theirs = structural_similarity(
      truth[0, 0, ..., 0].astype(float), prediction[0, 0, ..., 0].astype(float), data_range=1.0)
  assert float(video.ssim(prediction, truth, data_range=1.0)[0, 0]) == pytest.approx(
      theirs, abs=1e-6)


def test_data_range_matters_and_is_asked_for():
  prediction, truth = _pair()
  one, two = (float(video.ssim(prediction, truth, data_range=r).mean()) for r in (1.0, 2.0))
  assert two > one + 0.005
  with pytest.raises(TypeError):
    video.ssim(prediction, truth)
  with pytest.raises(ValueError, match='smaller than its 7x7 window'):
    video.ssim(prediction[:, :, :6], truth[:, :, :6], data_range=1.0)


def test_psnr_is_scikit_image_and_infinite_for_identical_frames():
  prediction, truth = _pair()
  ours = np.asarray(video.psnr(prediction, truth))
  theirs = peak_signal_noise_ratio(truth[1, 2], prediction[1, 2], data_range=1.0)
  assert ours[1, 2] == pytest.approx(theirs, rel=1e-5)
  assert np.all(np.isposinf(np.asarray(video.psnr(truth, truth))))


def test_hand_numbers():
  truth = np.full((1, 1, 2, 2, 1), 3.0, np.float32)
  prediction = truth + np.array([1, -1, 2, 0], np.float32).reshape(1, 1, 2, 2, 1)
  assert float(video.mse(prediction, truth)[0, 0]) == pytest.approx(1.5)
  assert float(video.mae(prediction, truth)[0, 0]) == pytest.approx(1.0)
  assert float(video.rmse(prediction, truth)[0, 0]) == pytest.approx(1.5**0.5)
  assert float(video.snr(prediction, truth)[0, 0]) == pytest.approx(10 * np.log10(9 / 1.5))
  assert float(video.squared_error_sum(prediction, truth)[0, 0]) == 6
  assert float(video.absolute_error_sum(prediction, truth)[0, 0]) == 4


@pytest.mark.parametrize('name', ['mse', 'mae', 'rmse', 'psnr', 'snr', 'ssim'])
def test_masked_pixels_never_count(name):
  prediction, truth = _pair((1, 2, 20, 18, 1))
  valid = np.ones(truth.shape, bool)
  valid[:, :, -4:] = False
  score = getattr(video, name)
  options = dict(data_range=1.0) if name == 'ssim' else {}
  cropped = score(prediction[:, :, :-4], truth[:, :, :-4], **options)
  broken = np.where(valid, truth, np.nan)
  np.testing.assert_allclose(score(prediction, broken, valid, **options), cropped, atol=2e-6)
  assert not np.allclose(score(prediction, truth, **options), cropped, atol=1e-4)
  nothing = score(prediction, truth, np.zeros_like(valid), **options)
  assert np.all(np.isnan(np.asarray(nothing)))


def test_upstream_protocol_conventions():
  prediction, truth = (x[..., :1] for x in _pair((2, 3, 16, 18, 1)))
  prediction = prediction * 1.6 - 0.3  # leaves 0..1
  ours = video.upstream(prediction, truth, layout='NTHWC')
  error = prediction.astype(float) - truth
  assert ours['mse'] == pytest.approx((error**2).mean((0, 1)).sum(), rel=1e-5)
  assert ours['mae'] == pytest.approx(abs(error).mean((0, 1)).sum(), rel=1e-5)
  assert ours['rmse'] == pytest.approx(ours['mse']**0.5)
  assert ours['rmse_tecu'] == pytest.approx(200 * (error**2).mean()**0.5, rel=1e-5)
  clipped = np.clip(prediction, 0, 1)
  ssim = [
      structural_similarity(t[..., 0], p[..., 0], data_range=2.0)
      for p, t in zip(clipped.reshape(6, 16, 18, 1), truth.reshape(6, 16, 18, 1))]
  assert ours['ssim'] == pytest.approx(np.mean(ssim), abs=2e-6)
  np.testing.assert_allclose(ours['per_frame_upstream_ssim'], ssim[:3], atol=2e-6)
  first = video.upstream(np.moveaxis(prediction, -1, 2), np.moveaxis(truth, -1, 2))
  for key, value in first.items():
    assert value == pytest.approx(ours[key])
  normed = video.upstream(prediction, truth, 0.1, 2.5, spatial_norm=True, layout='NTHWC')
  assert normed['mse'] == pytest.approx(6.25 * (error**2).mean(), rel=1e-5)


def test_upstream_channel_groups():
  prediction, truth = _pair((2, 2, 9, 8, 4))
  ours = video.upstream(
      prediction, truth, spatial_norm=True, channel_names=('u', 'v'), layout='NTHWC')
  error = prediction.astype(float) - truth
  u, v = (np.sqrt((error[..., s]**2).mean()) for s in (slice(0, 2), slice(2, 4)))
  assert ours['rmse_v'] == pytest.approx(v, rel=1e-5)
  assert ours['rmse'] == pytest.approx((u + v) / 2, rel=1e-5)
  with pytest.raises(ValueError, match='4 channels in 3 groups'):
    video.upstream(
        prediction, truth, spatial_norm=True, channel_names='abc', layout='NTHWC')


def test_upstream_refuses_other_shapes_and_names():
  prediction, truth = _pair()
  with pytest.raises(ValueError, match='both must be'):
    video.upstream(prediction[:1], truth)
  with pytest.raises(ValueError, match='unknown metrics'):
    video.upstream(prediction, truth, metrics=('mse', 'lpips'))


def test_per_example_has_both_protocols():
  prediction, truth = _pair((2, 3, 16, 18, 1))
  scores = video.per_example(prediction, truth)
  published = video.upstream(prediction, truth, layout='NTHWC')
  assert all(v.shape == (2, 3) for v in scores.values())
  for ours, theirs in (('mse_sum', 'mse'), ('mae_sum', 'mae'), ('upstream_ssim', 'ssim'),
                       ('upstream_psnr', 'psnr'), ('upstream_snr', 'snr')):
    assert float(scores[ours].mean()) == pytest.approx(published[theirs], rel=1e-5)
  assert 'ssim' not in video.per_example(prediction[:, :, :5], truth[:, :, :5])
