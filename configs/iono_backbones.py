"""What configs/iono_mixer.py sets for each backbone, beside what all of them share."""

# Published (Channel Mixer Layer, configs/iono): the same for every number of channels, but for
# E3D-LSTM's patch. `cell`, `head`, `memory`, `attention`, `drop_path_floor`: what the published
# code computes; the classes' own defaults are the papers'.
_FOUR = dict(features=(128,) * 4, kernel_size=5)
_SIMVP = dict(hid_S=64, hid_T=512, N_S=4, N_T=8, mlp_ratio=8.0, drop_path_floor=0.01)
PAPER = dict(
    convlstm=dict(_FOUR, cell='channel_mixer'),
    predrnn=_FOUR,
    predrnnpp=dict(_FOUR, cell='channel_mixer'),
    predrnnv2=_FOUR,
    mim=_FOUR,
    e3dlstm=dict(_FOUR, memory='upstream', attention='upstream'),
    mau=dict(features=(64,) * 4, kernel_size=5, tau=5, sr_size=4, head='transposed'),
    simvp=dict(_SIMVP, translator='gsta'),
    tau=dict(_SIMVP, translator='tau'))
PAPER_RATE = dict(
    convlstm=5e-4, predrnn=5e-4, predrnnpp=1e-4, predrnnv2=5e-4, mim=5e-4, e3dlstm=1e-4, mau=1e-3,
    simvp=1e-3, tau=1e-3)

# Minutes on two cores; our choice.
_TWO = dict(features=(32, 32), kernel_size=3)
_SIMVP = dict(hid_S=8, hid_T=96, N_S=4, N_T=3, mlp_ratio=4.0, layer_scale_init=0.3)
SMALL = dict(
    convlstm=_TWO, predrnn=_TWO, predrnnpp=_TWO, predrnnv2=_TWO, mim=_TWO,
    e3dlstm=dict(_TWO, recall=12),
    mau=dict(_TWO, sr_size=2),
    simvp=dict(_SIMVP, translator='gsta'),
    tau=dict(_SIMVP, translator='tau'))
SMOKE = {name: dict(features=(8, 8)) for name in SMALL} | dict(
    convlstm=dict(features=(8,)),
    simvp=dict(hid_S=4, hid_T=16, N_S=2, N_T=2),
    tau=dict(hid_S=4, hid_T=16, N_S=2, N_T=2))

# The auxiliary losses and the main one, as published.
TERM_WEIGHTS = dict(predrnnv2=dict(decouple=0.1), tau=dict(diff_div=0.1))
LOSS = dict(e3dlstm='mse+mae')
# Epoch by epoch the recurrent ones are fed their own forecasts more often.
SAMPLING = {name: 'standard' for name in SMALL} | dict(
    predrnnv2='reverse', simvp='off', tau='off')


def patch(model: str, scale: str, fused: bool) -> int:
  """Pixels of a patch's side."""
  if model in ('simvp', 'tau') or (model == 'mau' and scale == 'paper'):
    return 1
  if model == 'e3dlstm':  # its attention is over all places of all steps
    return 4 if fused and scale == 'paper' else 8
  return 4
