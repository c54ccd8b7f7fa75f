"""What configs/gs2pm.py sets for each model: `paper` sizes, `mini` and `smoke` ones (ours)."""

from stp_jax.models.gs2pm import PRESETS

# Our CPU-sized one, and the published sizes.
SCALES = dict(mini=dict(hid_S=16, hid_T=64, N_S=4, N_T=4), **PRESETS)
_GS2PM = dict(smoke=dict(hid_S=8, hid_T=16, N_T=3))
_TAU = dict(translator='tau', drop_path_floor=0.01)
_BLOCKS = dict(features=(16, 16, 16), layers=(1, 1, 1))
# The comparison; where `paper` is empty, the network's own defaults are the published sizes.
MODELS = dict(
    gs2pm=_GS2PM,
    ms2p_v2=dict(_GS2PM, name='gs2pm', fields=dict(translate='reconstruction')),
    ms2p_v1=dict(mini=SCALES['mini'], **_GS2PM),
    simvp=dict(
        fields=_TAU, paper=dict(hid_S=64, hid_T=128, N_S=4, N_T=8),
        mini=dict(hid_S=16, hid_T=64, N_S=4, N_T=4), smoke=dict(hid_S=4, hid_T=16, N_S=2, N_T=2)),
    simvp_v1=dict(mini=dict(hid_S=16, hid_T=64, N_T=2), smoke=dict(hid_S=8, hid_T=16, N_T=2)),
    unet=dict(mini=dict(features=(8, 16, 32))),
    motionrnn=dict(mini=dict(features=(16, 16))),
    trajgru=dict(mini=dict(
        features=(16, 32), stems=(8, 32), kernels=(5, 3), links=(5, 5), back_kernels=(5, 3),
        back_links=(5, 5), widths=(32, 8))),
    convlstmnet=dict(mini=_BLOCKS), escl=dict(mini=_BLOCKS),
    lmc=dict(mini=dict(features=(16, 32), layers=2, motion=(8, 16, 16, 32))),
    peephole_convlstm=dict(mini=dict(features=(16, 16))),
    gs2pm_predrnn={}, gs2pm_predrnnpp={}, gs2pm_mim={}, gs2pm_e3dlstm={})
