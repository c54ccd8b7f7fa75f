"""A PyTorch file and everything that it, its folder and its shapes tell."""

import dataclasses
from typing import Any

import ml_collections

from stp_jax import convert
from stp_jax.convert import (
    encoder_forecaster,
    gs2pm,
    hyperparameters,
    infer,
    rules,
    torch_checkpoint,
)


@dataclasses.dataclass
class Source:
  """A PyTorch file and what it and its folder tell.

  Attributes:
    model: our name of its model. image: channels of a frame.
    fields: dotted config field -> value, in the order they were found.
  """
  path: str
  read: torch_checkpoint.TorchCheckpoint
  told: hyperparameters.Told
  model: str
  image: int
  upstream: str
  fields: dict[str, Any] = dataclasses.field(default_factory=dict)


def examine(source: str, config: ml_collections.ConfigDict | None, upstream: str = '') -> Source:
  """Reads a file, its arguments and its shapes.

  Args:
    config: that says which model it is; None: its arguments or its keys say so.

  Raises:
    CheckpointError, ConversionError: one line each.
  """
  read = torch_checkpoint.load(source)
  found = infer.model_of(read.weights)
  try:
    # A config was named on purpose: the folder does not overrule it.
    arguments = {} if config is not None else {
        **read.hyperparameters, **hyperparameters.find(source)}
    told = hyperparameters.read(arguments, tuple(convert.FAMILIES))
  except rules.ConversionError as error:
    raise rules.ConversionError(f'{source}: {error}') from error
  model = config.model.name if config is not None else told.model or found
  if model is None:
    raise rules.ConversionError(
        f'{source}: keys of no model known here ({next(iter(read.weights))} ...); known: '
        f'{" ".join(convert.FAMILIES)}')
  if found and told.model and told.model != found:
    raise rules.ConversionError(
        f'{source}: its arguments name {told.model}, its keys are those of {found}')
  try:
    image, width = infer.channels(model, read.weights, told.image)
  except (KeyError, IndexError):  # of another model: the conversion names the keys
    image, width = 1, 1
  if not upstream and model in gs2pm.MODELS:
    upstream = 'gs2pm'
  elif not upstream:
    fork = not (read.lightning or image > 1) if told.fork is None else told.fork
    # The fork has none of these: their frames are no maps of its ionosphere.
    fork = fork and model not in encoder_forecaster.FAMILIES
    upstream = 'channel_mixer' if fork else 'openstl'
  fields = dict(told.fields)
  if config is None:
    fields['model.name'] = model
    fields.setdefault('optimizer.clip_norm', 0.0)  # upstream clips where it is told to
    if 'model.fusion' not in fields:
      fusion, channels = infer.fusion(image, width)
      fields |= {'model.fusion': fusion} | (
          {} if fusion == 'none' else {'data.channels': str(channels)})
  fields |= infer.fields(model, read.weights, image)
  if model == 'crevnet' and (told.frame or (64, 64)) != (64, 64):
    fields['model.backbone.any_size'] = True
  return Source(source, read, told, model, image, upstream, fields)
