#!/usr/bin/env bash
# Trains on TPU or GPU slices of a GKE cluster, through xpk.
set -euo pipefail

usage() {
  cat <<'END'
Usage: launch/gke_xpk.sh [options] -- ARGUMENTS OF stp_jax.main

  --name=NAME      name of the workload              [stp-jax]
  --cluster=NAME   GKE cluster                       [stp-jax]
  --zone=ZONE      zone of the cluster               [us-central2-b]
  --project=P      project                           [gcloud's]
  --type=TYPE      TPU type of a slice               [v4-32]
  --device=TYPE    a GPU type instead (h100-80gb-8)
  --slices=N       slices (TPU) or nodes (GPU)       [1]
  --image=IMAGE    built from launch/Dockerfile and pushed where the cluster pulls from  [required]
  --workdir=PATH   folder mounted on all hosts              [required, unless after --]
  --restarts=N     how often a stopped run starts again  [20]
  --dry-run        print the command, call nothing
  --list | --logs | --delete    workloads of the cluster; log of this one (of the cluster that
                                kubectl is set to); delete it

The environment (STP_NAME, STP_CLUSTER, STP_ZONE, STP_PROJECT, STP_TPU_TYPE, STP_IMAGE,
STP_WORKDIR) may give the defaults.
END
}

name=${STP_NAME:-stp-jax} cluster=${STP_CLUSTER:-stp-jax} zone=${STP_ZONE:-us-central2-b}
project=${STP_PROJECT:-} type=${STP_TPU_TYPE:-v4-32} device='' slices=1
image=${STP_IMAGE:-} workdir=${STP_WORKDIR:-} restarts=20 dry=0 what=run
while [ $# -gt 0 ]; do
  case $1 in
    --name=*) name=${1#*=} ;;
    --cluster=*) cluster=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --device=*) device=${1#*=} ;;
    --slices=*) slices=${1#*=} ;;
    --image=*) image=${1#*=} ;;
    --workdir=*) workdir=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --dry-run) dry=1 ;;
    --list | --logs | --delete) what=${1#--} ;;
    -h | --help) usage; exit 0 ;;
    --) shift; break ;;
    *) echo "gke_xpk.sh: unknown option $1; what goes to stp_jax.main stands behind --" >&2
       exit 2 ;;
  esac
  shift
done

show() { printf '%q ' "$@" | sed 's/ $//'; echo; }
call() { if [ "$dry" -eq 1 ]; then show "$@"; else "$@"; fi; }
where=(--cluster="$cluster" --zone="$zone")
if [ -n "$project" ]; then where+=(--project="$project"); fi

case $what in
  list) call xpk workload list "${where[@]}"; exit ;;
  logs) call kubectl logs --follow --prefix --max-log-requests=1000 \
          --selector="jobset.sigs.k8s.io/jobset-name=$name"
        exit ;;
  delete) call xpk workload delete --workload="$name" "${where[@]}"; exit ;;
esac

given=0
for argument in "$@"; do
  case $argument in --workdir | --workdir=*) given=1 ;; esac
done
if [ "$given" -eq 0 ] && [ -z "$workdir" ] && [ "$dry" -eq 0 ]; then
  echo 'gke_xpk.sh: --workdir=PATH: a folder that all hosts see, to save and continue in' >&2
  exit 2
fi
if [ -z "$image" ] && [ "$dry" -eq 0 ]; then
  echo 'gke_xpk.sh: --image=REGISTRY/stp_jax:TAG, built from launch/Dockerfile and pushed' >&2
  exit 2
fi
tag=tpu
if [ -n "$device" ]; then tag=cuda12; fi
# xpk writes the command into YAML, between double quotes: backslashes would not come through.
quote() {
  local word
  for word in "$@"; do
    case $word in
      *[\"\\\$\`]*)
        echo "gke_xpk.sh: $word: no quotation marks, backslashes or \$ in arguments" >&2
        return 2 ;;
      '' | *[!A-Za-z0-9_./:=,+@%-]*) printf "'%s' " "$word" ;;
      *) printf '%s ' "$word" ;;
    esac
  done
}
main=(python -m stp_jax.main --cluster=tpu)
if [ -n "$device" ]; then main=(python -m stp_jax.main --cluster=auto); fi
if [ "$given" -eq 0 ]; then main+=("--workdir=${workdir:-/SHARED/$name}"); fi
if [ -n "$device" ]; then
  kind=(--device-type="$device" --num-nodes="$slices")
else
  kind=(--tpu-type="$type" --num-slices="$slices")
fi
words=$(quote "${main[@]}" "$@")
call xpk workload create --workload="$name" "${where[@]}" "${kind[@]}" \
  --docker-image="${image:-REGISTRY/stp_jax:$tag}" --max-restarts="$restarts" \
  --command="${words% }"
