"""When a case passes: the rules of the cases' own description, and nothing else."""

import dataclasses
import fnmatch
from collections.abc import Mapping
from typing import Any

import numpy as np

from stp_jax.parity.case import Case, Result


@dataclasses.dataclass
class Verdict:
  """The outcome of a case.

  Attributes:
    failures: reasons in words; empty = ok.
    max_dy: largest difference of any compared number.
    max_rel_grad: largest relative difference of a gradient norm or array; None without gradients.
  """
  failures: list[str] = dataclasses.field(default_factory=list)
  max_dy: float = 0.0
  max_rel_grad: float | None = None

  @property
  def ok(self) -> bool:
    return not self.failures

  def see_grad(self, gap: float) -> None:
    # max(nan, x) depends on the order; a gap that is no number must stay visible.
    gap = float('inf') if np.isnan(gap) else float(gap)
    self.max_rel_grad = max(self.max_rel_grad or 0.0, gap)


def _gap(y: np.ndarray, reference: np.ndarray) -> np.ndarray:
  """|y - reference| in double precision; equal infinities and NaNs differ by 0."""
  y, reference = np.asarray(y), np.asarray(reference)
  if not (np.issubdtype(y.dtype, np.number) or y.dtype == bool):
    return (y != reference).astype(float)
  y, reference = y.astype(np.float64), reference.astype(np.float64)
  with np.errstate(invalid='ignore'):
    gap = np.abs(y - reference)
  same = (y == reference) | (np.isnan(y) & np.isnan(reference))
  return np.where(same, 0.0, np.where(np.isnan(gap), np.inf, gap))


def check_array(verdict: Verdict, name: str, y: Any, reference: Any, rule: Mapping[str, Any]
                ) -> None:
  """`|y - ref| <= abs_tol + rel_tol * |ref|` for every element, or for `fraction` of them."""
  y, reference = np.asarray(y), np.asarray(reference)
  if y.shape != reference.shape:
    verdict.failures.append(f'{name}: shape {y.shape}, expected {reference.shape}')
    return
  gap = _gap(y, reference)
  top = float(gap.max(initial=0.0))
  verdict.max_dy = max(verdict.max_dy, top)
  if rule['abs_tol'] == 'exact':
    if top > 0:
      verdict.failures.append(f'{name}: {int((gap > 0).sum())} of {gap.size} differ, exact asked')
    return
  limit = rule['abs_tol'] + rule.get('rel_tol', 0.0) * np.abs(reference.astype(np.float64))
  bad = ~(gap <= limit)
  fraction = rule.get('fraction', 1.0)
  # Counted as failures, so that a fraction of 1 is not at the mercy of rounding.
  if bad.sum() > (1 - fraction) * bad.size + 1e-9 * bool(fraction < 1):
    worst = int(np.argmax(gap / np.maximum(limit, 1e-300))) if gap.size else 0
    verdict.failures.append(
        f'{name}: {int(bad.sum())} of {bad.size} off, worst {gap.flat[worst]:.3g} '
        f'> {np.broadcast_to(limit, gap.shape).flat[worst]:.3g}')


def _check_outputs(verdict: Verdict, case: Case, result: Result) -> None:
  for rule in case.spec['compare']:
    pattern = rule['output']
    if 'file' in rule:
      references, found = case.arrays(rule['file']), result.files.get(rule['file'], {})
      names = {n: n for n in fnmatch.filter(references, pattern)}
    else:
      references, found = case.io, result.outputs
      stored = rule.get('reference', f'output/{pattern}')
      # `x/*` keeps the part after `output/` as the name; a single reference keeps the output's.
      names = {n: n.split('/', 1)[1] if '*' in stored else pattern
               for n in fnmatch.filter(references, stored)}
    if not names:
      verdict.failures.append(f'{pattern}: the case holds no reference')
    for stored, name in names.items():
      if name not in found:
        verdict.failures.append(f'{name}: not computed')
      else:
        check_array(verdict, name, found[name], references[stored], rule)


def _pointed(tree: Any, pointer: str) -> Any:
  for part in pointer.strip('/').split('/'):
    tree = tree[int(part)] if isinstance(tree, list) else tree[part]
  return tree


def _check_values(verdict: Verdict, case: Case, result: Result) -> None:
  for rule in case.spec.get('compare_values', []):
    pointer = rule['pointer']
    if pointer not in result.values:
      verdict.failures.append(f'{pointer}: not computed')
    else:
      check_array(verdict, pointer, result.values[pointer], _pointed(case.spec, pointer), rule)


def _check_grads(verdict: Verdict, case: Case, result: Result) -> None:
  rule = case.spec.get('grads')
  if not rule:
    return
  prefix = f'{rule["norms"]}/'
  norms = {k.removeprefix(prefix): float(v) for k, v in case.grads.items()
           if rule['norms'] and k.startswith(prefix)}
  floor = rule['norm_floor'] * max(norms.values(), default=0.0)
  silent, skipped = {*rule['zero'], *rule['none']}, set(rule['roundoff_only'])
  for key in [*norms, *(k for k in sorted(silent) if k not in norms)]:
    if key in skipped:
      continue
    if key not in result.grads:
      # A parameter that no output depends on need not be one of ours.
      if key not in silent:
        verdict.failures.append(f'gradient of {key}: not computed')
      continue
    norm = float(np.linalg.norm(np.asarray(result.grads[key], np.float64)))
    reference = 0.0 if key in silent else norms[key]
    gap = abs(norm - reference)
    if not gap <= (0.0 if key in silent else rule['norm_rel_tol'] * reference) + floor:
      verdict.failures.append(f'gradient norm of {key}: {norm:.6g}, expected {reference:.6g}')
    if reference > floor:
      verdict.see_grad(gap / reference)
  for item in rule['arrays']:
    key = item if isinstance(item, str) else item['array']
    if key in skipped:
      continue
    if key not in result.grads:
      verdict.failures.append(f'gradient {key}: not computed')
      continue
    reference = case.grads[f'grad/{key}']
    if np.shape(result.grads[key]) != reference.shape:
      verdict.failures.append(f'gradient {key}: shape {np.shape(result.grads[key])}, '
                              f'expected {reference.shape}')
      continue
    gap = _gap(result.grads[key], reference).max(initial=0.0)
    top = float(np.abs(reference).max(initial=0.0))
    if not gap <= rule['array_rel_tol'] * top + floor:
      verdict.failures.append(f'gradient {key}: off by {gap:.3g} of {top:.3g}')
    if top > floor:
      verdict.see_grad(gap / top)


def check(case: Case, result: Result) -> Verdict:
  """Compares outputs, values, loss, gradients and the parameter count with the case."""
  verdict = Verdict(list(result.notes))
  _check_outputs(verdict, case, result)
  _check_values(verdict, case, result)
  loss = case.spec.get('loss')
  if loss:
    if result.loss is None:
      verdict.failures.append('loss: not computed')
    else:
      check_array(verdict, 'loss', result.loss, loss['value'], {'abs_tol': loss['abs_tol']})
  _check_grads(verdict, case, result)
  expected = case.spec.get('n_params') or 0
  if (result.n_params or 0) != expected:
    verdict.failures.append(f'{result.n_params or 0} parameters, expected {expected}')
  return verdict
