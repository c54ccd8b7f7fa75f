"""Original files -> clip store: `python -m stp_jax.prepare DATASET --in DIR --out STORE [--key V]`.

`python -m stp_jax.prepare DATASET --help` lists the options of a data set, and
`python -m stp_jax.prepare check STORE` reads every byte of a store and compares checksums.
"""

import argparse
import sys

from absl import flags

from stp_jax.data import addresses, clip_store, datasets


def main(arguments: list[str]) -> int:
  """Runs an importer; a bad input is one line on stderr and exit code 1."""
  if not arguments or arguments[0] in ('-h', '--help'):
    print(f'{__doc__}\ndata sets: {" ".join(datasets.IMPORTERS)}')
    return 0
  name, *rest = arguments
  flags.FLAGS.mark_as_parsed()
  try:
    if name == 'check':
      for path in rest:
        clip_store.verify(clip_store.ClipStore(path).path)
        print(f'{path}: every checksum is right')
      return 0
    module = datasets.importer(name)
    parser = argparse.ArgumentParser(
        prog=f'python -m stp_jax.prepare {name}', description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument('--in', dest='in_dir', help='folder of the original files')
    known = getattr(module, 'OPTIONS', {})
    parser.add_argument('--out', required=not {'check', 'download'} & set(known),
                        help='the clip store to write')
    for option, (kind, default, text) in known.items():
      words = dict(type=kind) if kind is not bool else dict(
          type=lambda v: v.lower() in ('1', 'true', 'yes'), nargs='?', const=True)
      spelled = getattr(module, 'SPELLED', {}).get(option, option)
      parser.add_argument(f'--{spelled.replace("_", "-")}', dest=option, default=default,
                          help=f'{text} (default: {default})'.replace('%', '%%'), **words)
    own = 'download' in known  # archives by date, records by number
    if not own:
      parser.add_argument('--download', action='store_true',
                          help='fetch the files first, where a public address is known; they are '
                               'kept in --in, or in the cache of the user')
      parser.add_argument('--mirror', default='', help='take them from this address instead')
    options = vars(parser.parse_args(rest))
    if not own:
      mirror = options.pop('mirror')
      if options.pop('download'):
        options['in_dir'] = addresses.fetch(name, options['in_dir'], mirror)
    made = module.prepare(**options)
  except (ValueError, OSError, ImportError) as error:
    print(f'prepare {name}: {error}', file=sys.stderr)
    return 1
  for store in made if isinstance(made, list) else filter(None, [made]):  # none: a mere look
    print(f'{store.path}: {store.meta["frames"]} frames in {len(store.clips)} clips')
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
