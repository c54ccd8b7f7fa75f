"""Trees of PNG frames for tests."""

import pathlib

import numpy as np
import PIL.Image


def frames(seed, *, count=4, size=(8, 10), channels=3) -> np.ndarray:
  """uint8 `[count, H, W, C]`."""
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (count, *size, channels)).astype(np.uint8)


def sample(folder: pathlib.Path, seed, *, inputs=2, **kwargs) -> np.ndarray:
  """Writes one sample folder and returns its frames."""
  folder.mkdir(parents=True)
  made = frames(seed, **kwargs)
  names = [f'input{i + 1}' for i in range(inputs)]
  names += [f'ground_truth{i + 1}' for i in range(len(made) - inputs)]
  for name, frame in zip(names, made):
    PIL.Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame).save(
        folder / f'{name}.png')
  return made


def tree(root: pathlib.Path, *, train=('bair', 'hko'), test=('bair', 'hko7'), count=12) -> None:
  """A tree with grey hko and RGB bair, `count` training samples and 2 test samples each."""
  for split, domains, number in (('train', train, count), ('test', test, 2)):
    for domain in domains:
      for k in range(1, number + 1):
        sample(root / split / domain / f'sample{k}', (k, len(split)),
               channels=1 if domain.startswith('hko') else 3)
