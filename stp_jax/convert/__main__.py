"""PyTorch weights to one of our checkpoints, and back.

    python -m stp_jax.convert latest.pth --out=RUN
    python -m stp_jax.convert best.ckpt --config=configs/iono_mixer.py:model=simvp,scale=paper \\
        --out=RUN [--store=STORE]
    python -m stp_jax.convert WORK_DIR --out=RUN
    python -m stp_jax.convert --to-torch --checkpoint=RUN --out=weights.pth
    python -m stp_jax.convert --download iono_zoo [--out=ZOO]
    python -m stp_jax.convert resnet resnet34.pth --out=resnet34.npz
    python -m stp_jax.convert lpips --alexnet=alexnet.pth --heads=alex.pth --out=lpips.npz

Which model it is and how large, the file tells: its keys and shapes, the arguments in
`model_param.json` beside it or in the folder above, Lightning's hyperparameters; or a config does.
What was set is printed; `--config.a.b=v` sets other fields, and has the last word. RUN then
evaluates, predicts, starts training (`init_from=RUN`) or, where the file holds the optimizer, goes
on with it. The folder of a whole experiment is converted, its saved inputs are forecast again and
compared with its saved predictions, and these are scored.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from stp_jax import config as config_files
from stp_jax.config import split_overrides
from stp_jax.convert import beam_rebuild, download, published, runs


def _frame(text: str) -> tuple[int, int] | None:
  if not text:
    return None
  try:
    height, width = (int(n) for n in text.lower().split('x'))
  except ValueError as error:
    raise argparse.ArgumentTypeError(f'{text}: write HxW, 72x72') from error
  return height, width


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
      prog='python -m stp_jax.convert', description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  add = parser.add_argument
  add('source', nargs='?', help='.pth, .ckpt or .npz of a PyTorch model, or an experiment folder')
  add('--config', default='', help='config file and words of the model; default: the file tells')
  add('--out', default='', help='folder of the new run, or file with --to-torch')
  add('--store', default='', help='clip store(s), joined by commas: scaling and training means')
  add('--upstream', default='', choices=('', *published.UPSTREAMS),
      help='whose code trained the weights; default: what its arguments tell, or channel_mixer')
  add('--frame', default=None, type=_frame, help='HxW of the frames, where nothing else tells')
  add('--limit', type=int, default=256, help='windows of a folder to forecast again; 0 = all')
  add('--to-torch', action='store_true', help='the other way')
  add('--checkpoint', help='run to write as PyTorch weights')
  add('--download', default='', choices=('', *download.RECORDS),
      help='fetch published weights first, and convert them all')
  add('--archive', default=None, help='with --download: another server with the API of Zenodo')
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Converts; a bad input is one line on stderr and exit code 1."""
  argv = list(sys.argv[1:] if argv is None else argv)
  if argv[:1] == ['resnet']:
    from stp_jax.convert import resnet
    return resnet.main(argv[1:])
  if argv[:1] == ['lpips']:
    from stp_jax.convert import lpips
    return lpips.main(argv[1:])
  parser = _parser()
  try:
    rest, overrides = split_overrides(argv)
  except ValueError as error:
    parser.error(str(error))
  args = parser.parse_args(rest)
  if args.to_torch and not args.checkpoint:
    parser.error('--to-torch needs --checkpoint=RUN')
  if not args.to_torch and not args.source and not args.download:
    parser.error('name a PyTorch file or an experiment folder')
  if not args.out and not args.download:
    parser.error('the following arguments are required: --out')
  try:
    if args.to_torch:
      print(runs.to_torch(args.checkpoint, args.out))
      return 0
    lines: list[str] = []
    options = dict(
        config=config_files.load(args.config, overrides) if args.config else None,
        stores=[s for s in args.store.split(',') if s], upstream=args.upstream,
        overrides=overrides, frame=args.frame, say=lines.append)
    if args.download:
      del options['say']
      made, failed = download.fetch_and_convert(
          args.download, args.out or download.OUT, archive=args.archive, options=options)
      print(f'{len(made)} runs, {len(failed)} not converted')
      return 1 if failed else 0
    if pathlib.Path(args.source).is_dir() and beam_rebuild.is_folder(args.source):
      print(beam_rebuild.to_ours(
          args.source, args.out, config=runs.base_config(args.source, options['config']),
          stores=options['stores'], overrides=overrides, frame=args.frame))
    elif pathlib.Path(args.source).is_dir():
      from stp_jax.convert import work_dir
      print(work_dir.convert(args.source, args.out, limit=args.limit, **options))
    else:
      print(runs.to_ours(args.source, args.out, **options))
    print('\n'.join(lines))
  except (ValueError, OSError, ImportError, TypeError) as error:
    # A keyword that a backbone does not have is the user's; any other TypeError is ours.
    if isinstance(error, TypeError) and 'unknown field' not in str(error):
      raise
    print(f'convert: {str(error).splitlines()[0]}', file=sys.stderr)
    return 1
  return 0


if __name__ == '__main__':
  sys.exit(main())
