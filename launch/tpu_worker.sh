#!/usr/bin/env bash
# What launch/tpu_vm.sh and launch/compute_engine.sh have each worker of a slice do; its last line is
# the worker's report. TPU_WORKERS says how many workers the slice should have.
#
#   launch/tpu_worker.sh install [MOUNT] | start ARGUMENTS OF jaxt2i.train | state | log | stop
#
# The run's output, exit code and lock live in ~/jaxt2i-run: the lock is held while the run lives.
set -euo pipefail

SHARED=/mnt/shared
run=$HOME/jaxt2i-run
cd "$(dirname "${BASH_SOURCE[0]}")/.."

metadata() {
  curl -sf -H 'Metadata-Flavor: Google' \
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}

number=$(metadata agent-worker-number || echo 0)
command=${1-}
shift || true
report=''
finish() {
  if (($1)); then
    echo "worker $number: $command failed with exit code $1 on $(hostname)"
  else
    echo "worker $number: ok $report"
  fi
}

running() {
  [[ -e $run/lock ]] && ! flock -n "$run/lock" true
}

mount_shared() {
  if mountpoint -q "$SHARED"; then return; fi
  sudo mkdir -p "$SHARED"
  case $1 in
    gs://*)
      command -v gcsfuse >/dev/null || install_gcsfuse
      sudo gcsfuse -o allow_other --implicit-dirs --uid "$(id -u)" --gid "$(id -g)" "${1#gs://}" "$SHARED"
      ;;
    *:/*)
      sudo apt-get install -qq -y nfs-common >/dev/null
      sudo mount -t nfs "$1" "$SHARED"
      sudo chmod a+rwx "$SHARED"
      ;;
    *)
      echo "--mount $1: neither HOST:/SHARE nor gs://BUCKET" >&2
      return 1
      ;;
  esac
}

install_gcsfuse() {
  local key=/usr/share/keyrings/cloud.google.asc
  curl -sf https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee "$key" >/dev/null
  echo "deb [signed-by=$key] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  sudo apt-get update -qq
  sudo apt-get install -qq -y gcsfuse >/dev/null
}

# The machines' own Python may be older than what jaxt2i needs, and newer systems let pip install
# nothing beside it, so uv comes by itself and brings a Python.
install() {
  [[ -x $HOME/.local/bin/uv ]] ||
    curl -LsSf https://astral.sh/uv/install.sh | env UV_NO_MODIFY_PATH=1 sh
  [[ -d .venv ]] || "$HOME/.local/bin/uv" venv -q --python 3.12 .venv
  "$HOME/.local/bin/uv" pip install -q --python .venv/bin/python -e '.[tpu]'
  if [[ ${1-} ]]; then mount_shared "$1"; fi
}

# Refuses a work directory that the other workers cannot see: they would each train half a run.
check_workdir() {
  local argument before='' workdir='' kind
  for argument in "$@"; do
    case $argument in
      --workdir=* | -workdir=*) workdir=${argument#*=} ;;
      *) [[ $before != --workdir && $before != -workdir ]] || workdir=$argument ;;
    esac
    before=$argument
  done
  if [[ ! $workdir ]]; then
    echo "no --workdir: several workers need one on a file system that all of them mount" >&2
    return 1
  fi
  mkdir -p "$workdir"
  kind=$(findmnt -n -o FSTYPE -T "$workdir")
  if [[ $kind != nfs* && $kind != fuse* && $kind != lustre ]]; then
    echo "--workdir $workdir is on this worker's own disk ($kind); it belongs on a file system that" \
      "all workers mount: install with --mount, and give a folder below $SHARED" >&2
    return 1
  fi
}

start() {
  local endpoints hosts address
  if running; then
    report='running already'
    return
  fi
  # One endpoint a worker, in order: its address, or NAME:ID:ADDRESS.
  endpoints=$(metadata worker-network-endpoints || true)
  IFS=, read -ra hosts <<<"$endpoints"
  if ((${TPU_WORKERS:-1} > 1 && ${#hosts[@]} != TPU_WORKERS)); then
    echo "the metadata of $(hostname) name ${#hosts[@]} workers where the slice has $TPU_WORKERS:" \
      "it would not train with the others" >&2
    return 1
  fi
  if ((${#hosts[@]} > 1)); then
    check_workdir "$@"
    address=${hosts[0]##*:}
    export JAX_COORDINATOR_ADDRESS=$address:8476
    export JAX_NUM_PROCESSES=${#hosts[@]} JAX_PROCESS_ID=$number
  fi
  mkdir -p "$run"
  rm -f "$run/exit"
  {
    echo "--- $(date -u '+%F %T') jaxt2i.train $*"
    nohup flock -n -o "$run/lock" setsid -w launch/tpu_worker.sh hold "$@" </dev/null &
  } >>"$run/log" 2>&1
  # A wrong setting shows within seconds.
  sleep "${TPU_START:-15}"
  if ! running && [[ $(cat "$run/exit" 2>/dev/null || echo 1) != 0 ]]; then
    tail -n 20 "$run/log" >&2
    return 1
  fi
  report=started
}

# The run itself, in a session of its own; the lock is the caller's.
hold() {
  launch/preemptible.sh .venv/bin/python -m jaxt2i.train "$@" &
  echo "$! $$" >"$run/pid"
  local code=0
  wait "$!" || code=$?
  echo "$code" >"$run/exit"
}

state() {
  if running; then
    report=running
  elif [[ -e $run/exit ]]; then
    report="ended with $(cat "$run/exit")"
  elif [[ -e $run/log ]]; then
    report='ended with the machine'
  else
    report='never started'
  fi
}

# Lets the run save its step, and ends it after a minute at the latest.
stop() {
  local child session seconds
  if running; then
    read -r child session <"$run/pid"
    kill -TERM "$child" || true
    for ((seconds = 0; seconds < 60; seconds++)); do
      running || break
      sleep 1
    done
    if running; then kill -KILL -- "-$session" || true; fi
  fi
  report=stopped
}

case $command in
  log) exec tail -n 100 -F "$run/log" ;;
  hold) hold "$@" ;;
  install | start | state | stop)
    trap 'finish $?' EXIT
    "$command" "$@"
    ;;
  *)
    echo "'$command' is no command of $0" >&2
    exit 2
    ;;
esac
