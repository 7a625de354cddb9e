#!/usr/bin/env bash
# What launch/tpu_vm.sh and launch/compute_engine.sh have in common; they source it.
#
# Either one sets name, zone and mount from the environment, reads its command line with read_line, and
# has these functions, which the ones below call:
#   refresh      sets node to READY, ABSENT or what else there is, workers to their number
#   make_slice   leaves a ready slice, whatever refresh found
#   copy FILE    brings a file into the home directory of every worker
#   ask COMMAND  runs it on all workers; what they say also lands in $scratch/said
# shellcheck disable=SC2154,SC2034 # variables that the scripts set, or use
set -euo pipefail

[[ ${BASH_SOURCE[0]} != "$0" ]] || {
  echo "error: $0 is part of tpu_vm.sh and compute_engine.sh, and does nothing by itself" >&2
  exit 2
}

# shellcheck source-path=SCRIPTDIR source=options.sh
. "$(dirname "${BASH_SOURCE[0]}")/options.sh"

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
POLL=${TPU_POLL:-30} # seconds between two looks at a slice that is being made
RUNNING=75 RESTARTED=76
TRIES=3 # restarts in a row on one slice before --every gives up

# read_line VALUED SWITCHES COMMAND WORD...: sets command, and what `read_options` sets; refuses what
# is no command, and options that every command needs.
read_line() {
  command=${3-}
  every='' worker=0
  case $command in
    --help)
      help
      exit
      ;;
    *) read_options "$1 every worker" "$2 dry-run" "${@:4}" ;;
  esac
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
  [[ $worker =~ ^[0-9]+$ ]] || usage "--worker is '$worker', not the number of a worker"
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# --- gcloud ---------------------------------------------------------------------------------------

announce() {
  printf '+ gcloud' >&2
  printf ' %q' "$@" >&2
  echo >&2
}

call() {
  announce "$@"
  if [[ ! $dry ]]; then gcloud "$@"; fi
}

# look ASSUMED QUERY...: what gcloud describes, or ABSENT. A dry run asks nothing and says ASSUMED.
look() {
  local query=("${@:2}")
  announce "${query[@]}"
  if [[ $dry ]]; then
    echo "$1"
  elif ! gcloud "${query[@]}" 2>"$scratch/look"; then
    cat "$scratch/look" >&2
    grep -qiE 'not[_ ]found' "$scratch/look" || die "gcloud cannot tell how $name in $zone is"
    echo ABSENT
  fi
}

# --- the workers ----------------------------------------------------------------------------------

# gcloud's exit code does not say which worker failed: each reports on itself instead
# ("worker N: ok ..."). all_reported WHAT names those that did not report success.
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

worker_script() {
  printf 'bash jaxt2i/launch/tpu_worker.sh'
  printf ' %q' "$@"
}

install_all() {
  tar -C "$ROOT" --exclude=__pycache__ -czf "$scratch/jaxt2i.tgz" \
    pyproject.toml README.md LICENSE jaxt2i configs launch
  copy "$scratch/jaxt2i.tgz" ||
    die "copying to the workers of $name failed; gcloud's message is above"
  on_workers install "rm -rf jaxt2i/jaxt2i jaxt2i/configs && mkdir -p jaxt2i && \
tar -xzf jaxt2i.tgz -C jaxt2i && $(worker_script install "$mount")"
}

# Each worker is told how many there are: one that knows of fewer would train alone.
run_all() {
  on_workers run "${workers:+TPU_WORKERS=$workers }$(worker_script start "${arguments[@]}")"
}

# --- resume ---------------------------------------------------------------------------------------

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
  local running finished state=$scratch/state
  cp "$scratch/said" "$state"
  running=$(grep -c 'worker [0-9]*: ok running' "$state" || true)
  finished=$(grep -c 'worker [0-9]*: ok ended with 0$' "$state" || true)
  if ((running == workers)); then return $RUNNING; fi
  if ((finished == workers)); then return 0; fi
  if grep -q 'tpu_worker.sh: No such file' "$state"; then
    install_all
  else
    all_reported 'asking for the state of the run'
    # What is left of a run that lost a worker waits for it in vain.
    on_workers stop "$(worker_script stop)"
    # A machine that was started again has lost its mount.
    if grep -q 'ok ended with the machine' "$state"; then install_all; fi
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
