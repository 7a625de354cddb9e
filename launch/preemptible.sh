#!/usr/bin/env bash
# Runs a command that saves its work and exits with 0 when it is sent SIGTERM, as jaxt2i.train does:
#
#   launch/preemptible.sh python -m jaxt2i.train --config ... --workdir ...
#
# Schedulers restart what failed, not what ended well. This tells the two ends apart: it passes the
# signal on, and exits with 75 ("try again") where the command ended well only because it was asked
# to stop. Every other exit code is the command's own.
set -u

child='' asked='' again=''
trap 'asked=1 again=1; [[ -z $child ]] || kill -TERM "$child" 2>/dev/null' TERM INT

"$@" &
child=$!
# A signal ends `wait` before the command has ended.
while
  again=''
  wait "$child"
  code=$?
  [[ $again ]]
do :; done

# 143: the command had not come so far as to listen for the signal.
if [[ $asked && ($code == 0 || $code == 143) ]]; then exit 75; fi
exit "$code"
