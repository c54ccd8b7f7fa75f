#!/usr/bin/env bash
# Trains on a Cloud TPU pod slice: creates it, installs the committed code on every host, runs.
set -euo pipefail

usage() {
  cat <<'END'
Usage: launch/tpu_pod.sh [options] -- ARGUMENTS OF stp_jax.main

  --name=NAME      name of the slice and of the run          [stp-jax]
  --zone=ZONE      zone                                      [us-central2-b]
  --type=TYPE      accelerator type                          [v4-32]
  --version=V      software of the TPU VMs                   [tpu-ubuntu2204-base]
  --workdir=PATH   folder mounted on all hosts              [required, unless after --]
  --spot           cheaper, may be taken away
  --create         only create the slice and install
  --run            only run, on a slice that is there
  --dry-run        print the commands, call nothing
  --list | --logs | --delete    slices of the zone; the log of host 0; delete the slice

Without --create and --run both are done. A run that was stopped (exit code 75, or
143 outside of training) starts again and continues. The environment (STP_NAME, STP_ZONE, STP_TPU_TYPE, STP_TPU_VERSION, STP_WORKDIR) may
give the defaults.
END
}

name=${STP_NAME:-stp-jax} zone=${STP_ZONE:-us-central2-b} type=${STP_TPU_TYPE:-v4-32}
version=${STP_TPU_VERSION:-tpu-ubuntu2204-base} workdir=${STP_WORKDIR:-} spot=() dry=0 what=all
while [ $# -gt 0 ]; do
  case $1 in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --workdir=*) workdir=${1#*=} ;;
    --spot) spot=(--spot) ;;
    --dry-run) dry=1 ;;
    --create | --run | --list | --logs | --delete) what=${1#--} ;;
    -h | --help) usage; exit 0 ;;
    --) shift; break ;;
    *) echo "tpu_pod.sh: unknown option $1; what goes to stp_jax.main stands behind --" >&2
       exit 2 ;;
  esac
  shift
done

show() { printf '%q ' "$@" | sed 's/ $//'; echo; }
call() { if [ "$dry" -eq 1 ]; then show "$@"; else "$@"; fi; }
tpu=(gcloud compute tpus tpu-vm)
each() { call "${tpu[@]}" ssh "$name" --zone="$zone" --worker="$1" --command="$2"; }

case $what in
  list) call "${tpu[@]}" list --zone="$zone"; exit ;;
  logs) each 0 'tail -n 50 -F stp_jax/train.log'; exit ;;
  delete) call "${tpu[@]}" delete "$name" --zone="$zone" --quiet; exit ;;
esac

if [ "$what" != run ]; then
  call "${tpu[@]}" create "$name" --zone="$zone" --accelerator-type="$type" \
    --version="$version" ${spot[@]+"${spot[@]}"}
  # What git tracks: neither data nor runs.
  root=$(cd "$(dirname "$0")/.." && pwd)
  archive=${TMPDIR:-/tmp}/stp_jax-$name.tar.gz
  if [ -n "$(git -C "$root" status --porcelain 2>/dev/null)" ]; then
    echo 'tpu_pod.sh: the hosts get what is committed; some files here are not (git status)' >&2
  fi
  call git -C "$root" archive --format=tar.gz --output="$archive" HEAD
  call "${tpu[@]}" scp "$archive" "$name:stp_jax.tar.gz" --zone="$zone" --worker=all
  # The VMs' own Python is older than ours: uv brings one, in the tested versions.
  each all 'mkdir -p stp_jax && tar -xzf stp_jax.tar.gz -C stp_jax && curl -LsSf https://astral.sh/uv/install.sh | sh && ~/.local/bin/uv venv -q --python 3.11 stp_jax/venv && ~/.local/bin/uv pip install -q --python stp_jax/venv/bin/python -c stp_jax/constraints.txt -e "stp_jax[tpu,iono,plots,data]"'
fi
if [ "$what" != create ]; then
  given=0
  for argument in "$@"; do
    case $argument in --workdir | --workdir=*) given=1 ;; esac
  done
  if [ "$given" -eq 0 ] && [ -z "$workdir" ] && [ "$dry" -eq 0 ]; then
    echo 'tpu_pod.sh: --workdir=PATH: a folder that all hosts see, to save and continue in' >&2
    exit 2
  fi
  main=(venv/bin/python -m stp_jax.main --cluster=tpu)
  if [ "$given" -eq 0 ]; then main+=("--workdir=${workdir:-/SHARED/$name}"); fi
  words=$(show "${main[@]}" "$@")
  # shellcheck disable=SC2016  # $code is the remote shell's
  each all "cd stp_jax && code=75; while [ \$code -eq 75 ] || [ \$code -eq 143 ]; do code=0; $words >> train.log 2>&1 || code=\$?; done; exit \$code"
fi
