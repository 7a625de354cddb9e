#!/usr/bin/env bash
# Trains on a TPU VM slice of Google Cloud, from creating the slice to deleting it.
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

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
POLL=${TPU_POLL:-30} # seconds between two looks at a slice that is being made
RUNNING=75 RESTARTED=76
TRIES=3 # restarts in a row on one slice before --every gives up

die() {
  echo "error: $1" >&2
  exit 1
}

usage() {
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
  echo "error: $1" >&2
  exit 2
}

# --- the command line -----------------------------------------------------------------------------

command=${1-}
shift || true
name=${TPU_NAME-} zone=${TPU_ZONE-} type=${TPU_TYPE-} project=${TPU_PROJECT-}
version=${TPU_VERSION-} mount=${TPU_MOUNT-}
queued='' spot='' every='' dry='' worker=0 given=()
while (($#)); do
  case $1 in
    --name | --zone | --type | --project | --version | --mount | --every | --worker)
      [[ ${2-} && $2 != --* ]] || usage "$1 needs a value"
      declare "${1#--}=$2"
      [[ $1 == --every ]] || given+=("$1" "$2")
      shift
      ;;
    --queued) queued=1 given+=("$1") ;;
    --spot) spot=1 given+=("$1") ;;
    --dry-run) dry=1 given+=("$1") ;;
    --) shift && break ;;
    *) usage "unknown option '$1'; what jaxt2i.train is given stands behind --" ;;
  esac
  shift
done
arguments=("$@")

case $command in
  create | install | logs | status | delete) ;;
  run | resume)
    ((${#arguments[@]})) || usage "$command needs what jaxt2i.train is given, behind --"
    ;;
  *) usage "'$command' is no command" ;;
esac
[[ $name ]] || usage "no name of a slice: give --name or TPU_NAME"
[[ $zone ]] || usage "no zone: give --zone or TPU_ZONE"
[[ $every =~ ^[0-9]*$ ]] || usage "--every is '$every', not a number of seconds"
if [[ $command == create || $command == resume ]]; then
  [[ $type ]] || usage "no type of slice: give --type or TPU_TYPE, such as v5litepod-16"
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
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# --- gcloud ---------------------------------------------------------------------------------------

announce() {
  printf '+ gcloud' >&2
  printf ' %q' "$@" >&2
  echo >&2
}

tpus() {
  announce compute tpus "$@"
  if [[ ! $dry ]]; then gcloud compute tpus "$@"; fi
}

# look tpu-vm|queued-resources FIELDS: their values, or ABSENT. A dry run takes the slice that is to
# be made as absent, and every other as ready.
look() {
  local query=(compute tpus "$1" describe "$name" "${place[@]}" "--format=value($2)")
  announce "${query[@]}"
  if [[ $dry ]]; then
    if [[ $command == create || $command == resume || $1 != tpu-vm ]]; then echo ABSENT; else echo READY; fi
  elif ! gcloud "${query[@]}" 2>"$scratch/look"; then
    cat "$scratch/look" >&2
    grep -qiE 'not[_ ]found' "$scratch/look" || die "gcloud cannot tell how $name in $zone is"
    echo ABSENT
  fi
}

# Sets node and request to the states of the slice and of its queued resource, workers to their count.
refresh() {
  local facts
  facts=$(look tpu-vm 'state,networkEndpoints.len()')
  IFS=$'\t' read -r node workers <<<"$facts"
  workers=${workers:-1}
  request=$(look queued-resources state.state)
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

# ask COMMAND: runs it on all workers; their output also lands in $scratch/said. gcloud's exit code
# does not say which worker failed: each reports on itself instead ("worker N: ok ...").
ask() {
  local query=(compute tpus tpu-vm ssh "$name" "${place[@]}" --worker=all "--command=$1")
  announce "${query[@]}"
  if [[ ! $dry ]]; then gcloud "${query[@]}" 2>&1 | tee "$scratch/said" || true; fi
}

# all_reported WHAT: names the workers that did not report success.
all_reported() {
  local missing=() number
  if [[ $dry ]]; then return; fi
  for ((number = 0; number < workers; number++)); do
    grep -q "worker $number: ok" "$scratch/said" || missing+=("$number")
  done
  ((!${#missing[@]})) || die "$1 failed on worker ${missing[*]} of $workers; what they said is above"
}

# on_workers WHAT COMMAND
on_workers() {
  ask "$2"
  all_reported "$1"
}

# --- the commands ---------------------------------------------------------------------------------

worker_script() {
  printf 'bash jaxt2i/launch/tpu_worker.sh'
  printf ' %q' "$@"
}

install_all() {
  tar -C "$ROOT" --exclude=__pycache__ -czf "$scratch/jaxt2i.tgz" \
    pyproject.toml README.md LICENSE jaxt2i configs launch
  tpus tpu-vm scp "$scratch/jaxt2i.tgz" "$name:jaxt2i.tgz" "${place[@]}" --worker=all ||
    die "copying to the workers of $name failed; gcloud's message is above"
  on_workers install "rm -rf jaxt2i/jaxt2i jaxt2i/configs && mkdir -p jaxt2i && \
tar -xzf jaxt2i.tgz -C jaxt2i && $(worker_script install "$mount")"
}

run_all() {
  on_workers run "$(worker_script start "${arguments[@]}")"
}

resume_once() {
  refresh
  if [[ $node != READY ]]; then
    make_slice
    install_all
    run_all
    if [[ $dry ]]; then return 0; fi
    return $RUNNING
  fi
  ask "$(worker_script state)"
  local running finished
  running=$(grep -c 'worker [0-9]*: ok running' "$scratch/said" || true)
  finished=$(grep -c 'worker [0-9]*: ok ended with 0$' "$scratch/said" || true)
  if ((running == workers)); then return $RUNNING; fi
  if ((finished == workers)); then return 0; fi
  if grep -q 'tpu_worker.sh: No such file' "$scratch/said"; then
    install_all
  else
    all_reported 'asking for the state of the run'
    # What is left of a run that lost a worker waits for it in vain.
    on_workers stop "$(worker_script stop)"
  fi
  run_all
  return $RESTARTED
}

resume() {
  local code restarts=0
  if [[ $dry || ! $every ]]; then
    # Called plainly, so that `set -e` holds inside; `finish` sees its exit code.
    trap 'finish $?' EXIT
    resume_once
    return
  fi
  while true; do
    code=0
    "$0" resume "${given[@]}" -- "${arguments[@]}" || code=$?
    case $code in
      0) return ;;
      2) exit 2 ;;
      "$RESTARTED") restarts=$((restarts + 1)) ;;
      "$RUNNING") restarts=0 ;;
    esac
    if ((restarts == TRIES)); then
      die "the run ended $TRIES times within $every s of its start; $0 logs shows why"
    fi
    sleep "$every"
  done
}

finish() {
  rm -rf "$scratch"
  case $1 in
    0) if [[ ! $dry ]]; then echo "the run on $name has finished"; fi ;;
    "$RUNNING" | "$RESTARTED") echo "the run on $name is running" ;;
  esac
}

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
