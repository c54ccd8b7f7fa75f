"""PyTorch checkpoints of the originals as ours, and back.

`python -m stp_jax.convert latest.pth --config=... --out=RUN`. One short module per family.
"""

from stp_jax.convert import convlstm, crevnet, dmvfn, e3dlstm, mau, phydnet, prednet, predrnn, simvp
from stp_jax.convert.rules import ConversionError, Family

FAMILIES: dict[str, Family] = dict(
    convlstm=convlstm.FAMILY,
    crevnet=crevnet.FAMILY,
    dmvfn=dmvfn.FAMILY,
    e3dlstm=e3dlstm.FAMILY,
    mau=mau.FAMILY,
    phydnet=phydnet.FAMILY,
    prednet=prednet.FAMILY,
    simvp=simvp.FAMILY,
    **predrnn.FAMILIES,
)


def family_of(model: str) -> Family:
  """The name map of `config.model.name`; ConversionError where there is none."""
  if model not in FAMILIES:
    raise ConversionError(f'no PyTorch names for model {model!r}; known: {" ".join(FAMILIES)}')
  return FAMILIES[model]
