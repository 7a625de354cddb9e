#!/usr/bin/env bash
# Trains as N real processes on this machine, each with simulated CPU devices: a pod in small.
#
#   launch/local_processes.sh N [--devices D] [--logs DIR] [--module M] -- ARGUMENTS OF M
#   launch/local_processes.sh 2 --devices 2 -- --config configs/stylegan_t.py:tiny --workdir runs/two
#
#   --devices D   devices of each process; N x D must divide config.batch_size. Default 1
#   --module M    what runs; default jaxt2i.train, also jaxt2i.evaluate
#   --logs DIR    where process0.log ... go; default: a new folder in the temporary directory
#
# Process 0's log is shown as it grows. If a process dies, the others are ended and the exit code is
# the dead one's. Ctrl-C (or SIGTERM) lets the run save its step, then ends all; a second one does
# not wait. $PYTHON names the interpreter. Needs bash 5.1 or newer.
set -u

DEAD_GRACE=10 # seconds for the others when one is dead: without it they cannot save
SAVE_GRACE=45 # seconds to save when asked to stop

usage() {
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
  echo "error: $1" >&2
  exit 2
}

if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 501)); then
  usage "this is bash $BASH_VERSION; 5.1 or newer is needed"
fi
count=${1-}
[[ $count =~ ^[1-9][0-9]*$ ]] || usage "N is '$count', not a number of processes"
shift
devices=1 logs='' module=jaxt2i.train
while (($#)); do
  case $1 in
    --devices) devices=${2-} && shift ;;
    --logs) logs=${2-} && shift ;;
    --module) module=${2-} && shift ;;
    --) break ;;
    *) usage "unknown option '$1'; what $module is given stands behind --" ;;
  esac
  shift || true
done
[[ $devices =~ ^[1-9][0-9]*$ ]] || usage "--devices is '$devices', not a number of devices"
(($# > 1)) || usage "nothing behind --; what $module is given stands there"
shift

python=${PYTHON:-python}
logs=${logs:-$(mktemp -d -t jaxt2i-processes-XXXXXX)}
mkdir -p "$logs" || exit
port=$("$python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])') || exit
export JAX_PLATFORMS=cpu JAX_NUM_PROCESSES=$count JAX_COORDINATOR_ADDRESS=127.0.0.1:$port
export XLA_FLAGS="${XLA_FLAGS-} --xla_force_host_platform_device_count=$devices"

declare -A number=() # of the living, by process id
signal=0 asked=0 # the exit code that a signal asks for; how many there were
trap 'signal=130 asked=$((asked + 1))' INT
trap 'signal=143 asked=$((asked + 1))' TERM HUP

# Ends what still lives: politely, and after the seconds of grace, or at a second signal, at once.
end_all() {
  local before=$asked deadline=$((SECONDS + $1)) pid
  kill -TERM "${!number[@]}" 2>/dev/null
  while ((${#number[@]} && SECONDS < deadline && asked == before)); do
    for pid in "${!number[@]}"; do
      kill -0 "$pid" 2>/dev/null || unset "number[$pid]"
    done
    sleep 0.2
  done
  if ((${#number[@]})); then
    kill -KILL "${!number[@]}" 2>/dev/null
    wait "${!number[@]}" 2>/dev/null
  fi
  show_end
}

show_end() {
  sleep 0.3  # the rest of the log
  kill "$shown" 2>/dev/null
  wait "$shown" 2>/dev/null
}

for ((i = 0; i < count; i++)); do
  : >"$logs/process$i.log"
  JAX_PROCESS_ID=$i "$python" -m "$module" "$@" >"$logs/process$i.log" 2>&1 </dev/null &
  number[$!]=$i
done
echo "$count processes of $devices devices; logs: $logs/process*.log"
tail -n +1 -f "$logs/process0.log" 2>/dev/null &
shown=$!

while ((${#number[@]})); do
  pid='' code=0
  wait -n -p pid "${!number[@]}" 2>/dev/null || code=$?
  if ((signal)); then
    echo "asked to stop: ending ${#number[@]} processes" >&2
    end_all $SAVE_GRACE
    exit "$signal"
  fi
  dead=${number[$pid]}
  unset "number[$pid]"
  if ((code)); then
    echo "error: process $dead ended with exit code $code; its log: $logs/process$dead.log" >&2
    tail -n 5 "$logs/process$dead.log" | sed 's/^/  | /' >&2
    if ((${#number[@]})); then end_all $DEAD_GRACE; else show_end; fi
    exit "$code"
  fi
done
show_end
exit 0
