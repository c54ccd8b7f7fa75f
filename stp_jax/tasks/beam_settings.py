"""Ways to score a beam run: which sensors are there, what stands in for lost ones, who answers."""

import dataclasses
import itertools
from collections.abc import Sequence

from stp_jax.tasks import beam_inputs


@dataclasses.dataclass(frozen=True)
class Setting:
  """One way of evaluating: which modalities are there, what stands in for the others."""
  there: tuple[str, ...]
  fill: str = 'zero'
  rebuilt: bool = False
  before: bool = False  # by the run that rebuilding started from

  def label(self, names: Sequence[str]) -> str:
    """Words for a card: 'without image, zeros, rebuilt'."""
    lost = [n for n in names if n not in self.there]
    before = ', before' if self.before else ''
    if not lost:
      return f'all modalities{before}'
    kind = {'zero': 'zeros', 'random': 'noise'}[self.fill]
    return f'without {"+".join(lost)}, {kind}{", rebuilt" if self.rebuilt else ""}{before}'


def settings(task, before: bool = False) -> tuple[list[Setting], list[Setting]]:
  """What every sample is scored with, and what some are: every subset of the modalities.

  Args:
    before: the run that rebuilding started from is scored too.
  """
  names, options = task.modalities, task.options
  without = lambda lost: tuple(n for n in names if n not in lost)
  main = [Setting(names)]
  if options.missing_test:
    main.append(Setting(without(options.missing_test), options.fill))
  if task.config.task.name == 'rebuild':
    main += [Setting(without(task.targets_of), fill, rebuilt)
             for fill in beam_inputs.FILLS for rebuilt in (False, True)]
    if before:
      main += [Setting(names, before=True), *(
          Setting(without(task.targets_of), fill, before=True) for fill in beam_inputs.FILLS)]
  subsets = [Setting(kept, fill) for fill in beam_inputs.FILLS
             for size in range(len(names) - 1, 0, -1)
             for kept in itertools.combinations(names, size)] if options.robustness else []
  return list(dict.fromkeys(main)), [Setting(names), *subsets] if subsets else []
