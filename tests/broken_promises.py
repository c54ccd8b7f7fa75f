"""Breaks each promise of docs/reliability.md in a copy of the code and runs the test that keeps it.

  python tests/broken_promises.py [NAME ...]

Prints a line per promise; exit code 1 if a test passes although its promise is broken.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

_ROOT = pathlib.Path(__file__).resolve().parents[1]
# name: file, what stands there, what breaks the promise, the test that must fail.
BREAKS = dict(
    share=('stp_jax/data/train_batches.py', 'self._parent[begin + row] for row in self._rows',
           'self._parent[begin + row] for row in range(len(self._rows))',
           'tests/test_processes.py::test_a_process_reads_its_rows_and_no_others'),
    uneven=('stp_jax/data/pipeline.py', "batch['mask'] = np.array([r < len(where) for r in rows]",
            "batch['mask'] = np.array([True for r in rows]",
            'tests/data/test_pipeline.py::test_every_window_once_and_a_padded_tail'),
    position=('stp_jax/checkpoint.py', 'iterator.seek(read_info(path)',
              '(lambda _: 0)(read_info(path)',
              'tests/test_train.py::test_nine_steps_equal_six_and_three_bit_for_bit'),
    sigterm=('stp_jax/cluster.py', '      return self.received\n', '      return False\n',
             'tests/test_train.py::test_sigterm_saves_and_asks_for_a_requeue'),
    preemption=('stp_jax/cluster.py', 'self._alone = jax.process_count() == 1',
                'self._alone = True',
                'tests/test_processes.py::test_two_processes_stopped_and_continued_on_one'),
    checksum=('stp_jax/checkpoint_health.py', 'if files.checksum(file) != check:', 'if False:',
              'tests/test_reliability.py::test_a_damaged_checkpoint_gives_way_to_the_one_before'
              '[changed]'),
    size=('stp_jax/checkpoint_health.py', "return f'{file} has {file.stat().st_size} bytes",
          "pass; f'{file} has {file.stat().st_size} bytes",
          'tests/test_reliability.py::test_inspect_tells_steps_shapes_config_and_versions'),
    half=('stp_jax/checkpoint_health.py', 'lines += remove_halves(workdir) if repair else []',
          'pass',
          'tests/test_reliability.py::test_a_half_written_checkpoint_is_removed_and_named'),
    full_disk=('stp_jax/checkpoint_health.py', '  except Exception as error:\n    # Orbax',
               '  except ZeroDivisionError as error:\n    # Orbax',
               'tests/test_reliability.py::test_a_full_disk_keeps_the_checkpoint_before'),
    inspect=('stp_jax/checkpoint_inspect.py', "jax.config.update('jax_platforms', 'cpu')", 'pass',
             'tests/test_reliability.py::test_inspect_touches_no_accelerator'),
    loop=('stp_jax/sharding.py', 'mesh is None or mesh.devices.size == 1 or any(', 'True or any(',
          'tests/test_sharding.py::test_no_collective_inside_a_time_loop'
          '[model=convlstm,channels=4-4-1]'),
    statistics=('stp_jax/models/layers/across.py',
                'return lax.pmean(x, _AXES.get()) if _AXES.get() else x', 'return x',
                'tests/test_sharding.py::test_a_chunk_rollout_shares_batch_statistics_only'),
    bytes=('stp_jax/sharding.py', "['fsdp' if i == axis", "[None if i == axis",
           'tests/test_sharding.py::test_bytes_fall_with_the_number_of_devices'),
    parts=('stp_jax/parts.py', 'jax.tree.map(lambda x: x / count, total)', 'total',
           'tests/test_sharding.py::test_parts_of_a_batch_give_its_gradient'),
    requeue=('launch/slurm.sbatch', 'scontrol requeue "$SLURM_JOB_ID"', 'true',
             'tests/test_launch.py::'
             'test_a_job_of_two_processes_is_preempted_requeued_and_ends'),
    dry_run=('launch/tpu_pod.sh', 'call() { if [ "$dry" -eq 1 ]', 'call() { if [ "$dry" -eq 2 ]',
             'tests/test_launch.py::test_dry_run_needs_nothing_and_calls_nothing[tpu_pod.sh]'),
    module=('stp_jax/trouble.py', 'not found and _finite((args, kwargs)) and not _finite(result)',
            'False', 'tests/test_reliability.py::'
            'test_a_module_that_overflows_is_named_with_step_and_samples'),
    gathered=('stp_jax/trouble.py', 'x.addressable_data(0), whole)', 'x, state)',
              'tests/test_processes.py::test_a_bad_module_is_named_on_several_processes'),
    memory=('stp_jax/train.py', 'pending.append((step + 1, metrics))',
            'pending.append((step + 1, metrics)); watch.__dict__.setdefault('
            '"kept", []).append(bytes(1) * 20000)',
            'tests/test_long_runs.py::test_five_thousand_steps_grow_nothing'),
    descriptors=('stp_jax/checkpoint_health.py', '  path.parent.mkdir(exist_ok=True)\n',
                 '  path.parent.mkdir(exist_ok=True); __import__("os").open(folder, 0)\n',
                 'tests/test_long_runs.py::test_five_thousand_steps_grow_nothing'),
    kills=('stp_jax/checkpoint.py', 'iterator.seek(read_info(path)',
           '(lambda _: 0)(read_info(path)',
           'tests/test_processes.py::test_twenty_kills_lose_no_step[1-4]'),
    fuzz=('stp_jax/data/tfrecord.py', 'if at + i >= len(data):', 'if False:',
          'tests/data/test_untrusted.py::test_fuzzed_files_are_errors[example]'),
    failed=('launch/slurm.sbatch', '--kill-on-bad-exit=0', '--kill-on-bad-exit=1',
            'tests/test_launch.py::test_who_is_requeued'),
    lock=('stp_jax/train.py', "'.lock') if chief else", "'.lock') if False else",
          'tests/test_reliability.py::test_one_run_at_a_time_writes_a_folder'),
    unsealed=('stp_jax/checkpoint_health.py', "return '' if told else _unreadable(folder)",
              "return ''",
              'tests/test_reliability.py::test_a_step_without_a_seal_is_read_through'),
    asked=('stp_jax/checkpoint.py', 'if step != newest and (problem', 'if False and (problem',
           'tests/test_reliability.py::test_a_step_asked_for_is_checked_too'),
    history=('stp_jax/writers.py', "files.write_text(path, ''.join(", "path.write_text(''.join(",
             'tests/test_reliability.py::test_a_full_disk_at_the_start_keeps_the_metrics'),
    leave=('stp_jax/cluster.py', '  os._exit(code)', '  sys.exit(code)',
           'tests/test_processes.py::'
           'test_a_process_that_fails_or_is_stopped_does_not_wait_for_the_others'),
    stopped=('stp_jax/cluster.py', '    sys.exit(REQUEUE)', '    pass',
             'tests/test_processes.py::'
             'test_one_process_that_is_stopped_outside_of_training_asks_for_a_requeue'),
    watchdog=('stp_jax/hooks.py', 'faulthandler.dump_traceback_later(', '(lambda *a, **k: None)(',
              'tests/test_reliability.py::test_a_watchdog_dumps_every_stack'),
    orphans=('stp_jax/data/orphans.py', '    os._exit(1)', '    pass',
             'tests/test_reliability.py::test_workers_die_with_their_parent'),
    npz=('stp_jax/data/archives.py', 'if count * dtype.itemsize > size:', 'if False:',
         'tests/data/test_untrusted.py::test_an_array_larger_than_its_file_is_refused'),
    pickles=('stp_jax/convert/torch_checkpoint.py', 'weights_only=True', 'weights_only=False',
             'tests/data/test_untrusted.py::test_a_torch_file_that_runs_code_is_refused'),
    paths=('stp_jax/data/clip_store.py', '      _check_names([*self.streams',
           '      list([*self.streams',
           'tests/data/test_untrusted.py::test_a_store_that_points_elsewhere_is_refused'),
    lengths=('stp_jax/data/tfrecord.py', '  if size > left:\n', '  if False:\n',
             'tests/data/test_untrusted.py::test_a_record_of_absurd_length_is_refused'),
    scores=('stp_jax/data/pipeline.py', '(jax.process_count(), jax.process_index())',
            '(jax.process_count(), 0)',
            'tests/test_processes.py::test_scores_of_several_processes_are_those_of_one[2]'),
    places=('stp_jax/cluster.py', 'share = (local,) if on_node > 1 and len(seen) >= on_node else',
            'share = None if on_node else', 'tests/test_launch.py::test_places_under_slurm'),
    missing=('stp_jax/checkpoint_health.py', "      return f'{file} is missing'",
             '      continue', 'tests/test_reliability.py::'
             'test_a_damaged_checkpoint_gives_way_to_the_one_before[missing]'),
    all_damaged=('stp_jax/checkpoint_health.py', 'step = -1 if there else None', 'step = None',
                 'tests/test_reliability.py::'
                 'test_no_whole_checkpoint_is_an_error_not_a_new_beginning'),
    max_skipped=('stp_jax/train.py', "if values['skipped'] > config.max_skipped:", 'if False:',
                 'tests/test_train.py::'
                 'test_too_many_skipped_steps_stop_the_run_and_name_a_module'),
    plan=('stp_jax/benchmark_plan.py', 'sharding.make_mesh(1, devices, ',
          'sharding.make_mesh(devices, 1, ',
          'tests/test_sharding.py::test_the_plan_holds_what_the_rule_says'),
    sweep=('stp_jax/sweep.py', "kept = [w for w in common.split(',') if w and w.partition('=')[0] "
           'not in swept]', "kept = common.split(',')",
           'tests/test_launch.py::test_a_sweep_prints_a_command_a_line'),
    bomb=('stp_jax/data/unpack.py', 'if member.file_size > RATIO * member.compress_size + SLACK:',
          'if False:', 'tests/data/test_untrusted.py::test_a_zip_that_claims_too_much_is_refused'),
    packing=('stp_jax/data/unpack.py', 'if member.compress_type not in _PACKINGS:', 'if False:',
             'tests/data/test_untrusted.py::'
             'test_packings_that_unpack_more_than_they_say_are_refused'),
    overlap=('stp_jax/data/clip_table.py', 'must(begin[1:] >= end[:-1], order', 'must(begin >= 0, '
             'order', 'tests/data/test_store_check.py::test_no_clip_reads_what_is_not_its_own'),
    journal=('stp_jax/data/store_journal.py', 'files.checksum(self._folder / n) != s', 'False',
             'tests/data/test_store_journal.py::'
             'test_a_damaged_partial_store_is_cured_by_a_rerun'),
    outside=('stp_jax/data/unpack.py', 'not target.is_relative_to(folder)', 'False',
             'tests/data/test_untrusted.py::'
             'test_a_download_that_leaves_its_folder_or_claims_too_much_is_refused'),
    headers=('stp_jax/data/npy_file.py', 'except HEADER_ERRORS as', 'except ZeroDivisionError as',
             'tests/data/test_untrusted.py::'
             'test_a_header_that_confuses_its_readers_is_one_line'))


def broken(name: str) -> tuple[bool, str]:
  """Whether the test fails with the promise broken, and its last line."""
  path, old, new, test = BREAKS[name]
  with tempfile.TemporaryDirectory() as folder:
    copy = pathlib.Path(folder) / 'code'
    shutil.copytree(_ROOT, copy, ignore=shutil.ignore_patterns(
        '.git', '__pycache__', '.cache', 'runs', 'third_party'))
    text = (copy / path).read_text()
    if text.count(old) != 1:
      return False, f'{path}: {old!r} stands there {text.count(old)} times'
    (copy / path).write_text(text.replace(old, new))
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', test, '-n', '0', '-q', '-m', '',
         '-p', 'no:cacheprovider'],  # -m: slow ones too
        cwd=copy, env=dict(os.environ, PYTHONPATH=str(copy)), capture_output=True, text=True)
  last = (done.stdout.strip().splitlines() or [done.stderr[-200:]])[-1]
  return done.returncode == 1 and 'failed' in last, last


def main(names: list[str]) -> int:
  failed = 0
  for name in names or BREAKS:
    good, last = broken(name)
    failed += not good
    print(f'{name:12} {"caught" if good else "NOT CAUGHT"}  {BREAKS[name][3]}  ({last})',
          flush=True)
  return 1 if failed else 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
