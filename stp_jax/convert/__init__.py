"""PyTorch checkpoints of the originals as ours, and back.

`python -m stp_jax.convert latest.pth --config=... --out=RUN`. One short module per family.
"""

from stp_jax.convert import (
    beam,
    convlstm,
    convlstmnet,
    crevnet,
    dmvfn,
    e3dlstm,
    encoder_forecaster,
    gs2pm,
    gs2pm_cuts,
    lmc,
    mau,
    motionrnn,
    peephole_convlstm,
    phydnet,
    prednet,
    predrnn,
    simvp,
    simvp_v1,
    trajgru,
    unet,
)
from stp_jax.convert.rules import ConversionError, Family

# Of forecast models; those of beam networks are in `beam`.
FAMILIES: dict[str, Family] = dict(
    convlstm=convlstm.FAMILY,
    crevnet=crevnet.FAMILY,
    dmvfn=dmvfn.FAMILY,
    e3dlstm=e3dlstm.FAMILY,
    lmc=lmc.FAMILY,
    mau=mau.FAMILY,
    motionrnn=motionrnn.FAMILY,
    peephole_convlstm=peephole_convlstm.FAMILY,
    phydnet=phydnet.FAMILY,
    prednet=prednet.FAMILY,
    simvp=simvp.FAMILY,
    simvp_v1=simvp_v1.FAMILY,
    trajgru=trajgru.FAMILY,
    unet=unet.FAMILY,
    **convlstmnet.FAMILIES,
    **encoder_forecaster.FAMILIES,
    **gs2pm.FAMILIES,
    **gs2pm_cuts.FAMILIES,
    **predrnn.FAMILIES,
)


def family_of(model: str) -> Family:
  """The name map of `config.model.name`; ConversionError where there is none."""
  known = FAMILIES | beam.FAMILIES
  if model not in known:
    raise ConversionError(f'no PyTorch names for model {model!r}; known: {" ".join(known)}')
  return known[model]
