#!/usr/bin/env bash
# How the launchers read their command lines: gke.sh sources it, tpu_slice.sh for the two others.
# shellcheck disable=SC2034 # variables that the scripts use
set -euo pipefail

[[ ${BASH_SOURCE[0]} != "$0" ]] || {
  echo "error: $0 is part of the launchers, and does nothing by itself" >&2
  exit 2
}

die() {
  echo "error: $1" >&2
  exit 1
}

# The comment at the head of the script.
help() {
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
}

usage() {
  help >&2
  echo "error: $1" >&2
  exit 2
}

# read_options VALUED SWITCHES WORD...: sets the variable of every option that is there, called as it
# is, a switch to 1 (--dry-run: dry); given to all these words but --every, which a repeated call does
# without; arguments to what stands behind --.
read_options() {
  local valued=" $1 " switches=" $2 " option
  shift 2
  dry='' given=() arguments=()
  while (($#)); do
    option=${1#--}
    if [[ $1 == -- ]]; then
      arguments=("${@:2}")
      return
    elif [[ $1 == --help ]]; then
      help
      exit
    elif [[ $1 == --* && $valued == *" $option "* ]]; then
      [[ ${2-} && $2 != --* ]] || usage "$1 needs a value"
      printf -v "$option" %s "$2"
      [[ $option == every ]] || given+=("$1" "$2")
      shift
    elif [[ $1 == --* && $switches == *" $option "* ]]; then
      printf -v "${option%-run}" 1
      given+=("$1")
    else
      usage "unknown option '$1'; what jaxt2i.train is given stands behind --"
    fi
    shift
  done
}
