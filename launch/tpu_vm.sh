#!/usr/bin/env bash
# Trains on a TPU VM slice of Google Cloud, from creating the slice to deleting it.
#
# Ends with v6e: newer TPUs have no TPU VMs and are reached by launch/gke.sh or
# launch/compute_engine.sh.
#
#   launch/tpu_vm.sh create            makes the slice and waits until it is ready
#   launch/tpu_vm.sh install           copies this tree to every worker, installs it, mounts --mount
#   launch/tpu_vm.sh run -- ARGUMENTS OF jaxt2i.train
#   launch/tpu_vm.sh logs [--worker N] follows a worker's output (default 0)
#   launch/tpu_vm.sh status            of the slice, and of the run on each worker
#   launch/tpu_vm.sh resume -- THE SAME ARGUMENTS
#   launch/tpu_vm.sh delete
#
# Options, or the environment:
#   --name N     TPU_NAME      of the slice
#   --zone Z     TPU_ZONE      such as us-west4-a
#   --type T     TPU_TYPE      such as v5litepod-16, v6e-32, v5p-64, v4-32 (create, resume)
#   --project P  TPU_PROJECT   default: gcloud's own
#   --version V  TPU_VERSION   runtime; default: the one for the type
#   --mount M    TPU_MOUNT     HOST:/SHARE (NFS, Filestore) or gs://BUCKET (gcsfuse; one with a
#                              hierarchical namespace, so that folders can be renamed), becomes
#                              /mnt/shared on every worker; --workdir belongs there
#   --queued     a queued resource: waits in Google's queue until there is room
#   --spot       cheaper, and may be taken away at any time
#   --every S    resume: again every S seconds until the run has finished
#   --dry-run    only prints the gcloud commands, as every call does before it makes them
#
# Everything may be said twice: create leaves a ready slice alone, run a running run. `resume` brings
# a run back from wherever it is: it makes a preempted slice anew, installs, and starts the same
# command, which continues from its newest checkpoint; on a slice that is fine it restarts a run that
# ended early. It exits with 0 when the run has finished, with 75 while it runs, and with 76 where it
# had to restart it.
#
#   export TPU_NAME=lite64 TPU_ZONE=us-west4-a TPU_TYPE=v5litepod-16 TPU_MOUNT=10.0.0.2:/share
#   launch/tpu_vm.sh resume --queued --spot --every 300 -- \
#     --config configs/stylegan_t.py:lite64 --config.data.path=/mnt/shared/cc12m \
#     --workdir /mnt/shared/lite64
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=tpu_slice.sh
. "$(dirname "${BASH_SOURCE[0]}")/tpu_slice.sh"

# --- the command line -----------------------------------------------------------------------------

name=${TPU_NAME-} zone=${TPU_ZONE-} type=${TPU_TYPE-} project=${TPU_PROJECT-}
version=${TPU_VERSION-} mount=${TPU_MOUNT-} queued='' spot=''
read_line 'name zone type project version mount' 'queued spot' "$@"
if [[ $command == create || $command == resume ]]; then
  [[ $type ]] || usage "no type of slice: give --type or TPU_TYPE, such as v5litepod-16"
  [[ ! $type =~ ^(tpu|v[7-9]|v[1-9][0-9]) ]] ||
    usage "--type is '$type', but TPU VMs end with v6e: newer TPUs are reached by launch/gke.sh or \
launch/compute_engine.sh"
fi
place=("--zone=$zone" ${project:+"--project=$project"})
if [[ ! $version ]]; then
  case $type in
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v6e-*) version=v2-alpha-tpuv6e ;;
    *) version=tpu-ubuntu2204-base ;;
  esac
fi

# --- the slice ------------------------------------------------------------------------------------

tpus() {
  call compute tpus "$@"
}

# about tpu-vm|queued-resources FIELDS: their values, or ABSENT. A dry run takes the slice that is to
# be made as absent, and every other as ready.
about() {
  local assumed=ABSENT
  if [[ $1 == tpu-vm && $command != create && $command != resume ]]; then assumed=READY; fi
  look "$assumed" compute tpus "$1" describe "$name" "${place[@]}" "--format=value($2)"
}

# Sets node and request to the states of the slice and of its queued resource, workers to their count.
refresh() {
  local facts
  facts=$(about tpu-vm 'state,networkEndpoints.len()')
  IFS=$'\t' read -r node workers <<<"$facts"
  if [[ ! $dry ]]; then workers=${workers:-1}; fi
  request=$(about queued-resources state.state)
}

remove() {
  if [[ $request != ABSENT ]]; then
    tpus queued-resources delete "$name" "${place[@]}" --force --quiet
  elif [[ $node != ABSENT ]]; then
    tpus tpu-vm delete "$name" "${place[@]}" --quiet
  else
    echo "there is no $name in $zone"
  fi
}

# Leaves a ready slice, whatever `refresh` found.
make_slice() {
  if [[ $node =~ ^(PREEMPTED|TERMINATED)$ || $request =~ ^(SUSPENDED|SUSPENDING|FAILED)$ ]]; then
    echo "$name is ${node/ABSENT/gone} (request: $request): making it anew"
    remove
    node=ABSENT request=ABSENT
  fi
  if [[ $node == ABSENT && $request == ABSENT ]]; then
    if [[ $queued ]]; then
      tpus queued-resources create "$name" "--node-id=$name" "${place[@]}" \
        "--accelerator-type=$type" "--runtime-version=$version" ${spot:+--spot}
    else
      tpus tpu-vm create "$name" "${place[@]}" \
        "--accelerator-type=$type" "--version=$version" ${spot:+--spot}
    fi
    if [[ $dry ]]; then return; fi
    refresh
  fi
  until [[ $node == READY ]]; do
    if [[ $node =~ ^(PREEMPTED|TERMINATED|STOPP)|^ABSENT$ && $request =~ ^(ABSENT|FAILED|SUSPEND) ]]; then
      die "$name is $node (request: $request) and does not become ready; say it again, or delete it"
    fi
    echo "$name: $node (request: $request); looking again in $POLL s"
    sleep "$POLL"
    refresh
  done
  echo "$name is ready: $workers workers"
}

# need_slice: for what is done on the workers.
need_slice() {
  refresh
  [[ $node == READY ]] || die "$name in $zone is $node (request: $request), not READY; $0 create makes it"
}

ask() {
  local query=(compute tpus tpu-vm ssh "$name" "${place[@]}" --worker=all "--command=$1")
  announce "${query[@]}"
  if [[ ! $dry ]]; then gcloud "${query[@]}" 2>&1 | tee "$scratch/said" || true; fi
}

copy() {
  tpus tpu-vm scp "$1" "$name:${1##*/}" "${place[@]}" --worker=all
}

# --- the commands ---------------------------------------------------------------------------------

case $command in
  create)
    refresh
    make_slice
    ;;
  install)
    need_slice
    install_all
    ;;
  run)
    need_slice
    run_all
    ;;
  logs)
    tpus tpu-vm ssh "$name" "${place[@]}" "--worker=$worker" "--command=$(worker_script log)"
    ;;
  status)
    refresh
    echo "$name in $zone: $node, request: $request"
    if [[ $node == READY ]]; then ask "$(worker_script state)"; fi
    ;;
  resume) resume ;;
  delete)
    refresh
    remove
    ;;
esac
