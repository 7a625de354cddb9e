#!/usr/bin/env bash
# Trains on a TPU slice of Compute Engine, from creating the slice to deleting it: a managed instance
# group whose workload policy names the topology of the chips. For v5p, v6e, TPU7x and newer.
#
#   launch/compute_engine.sh create            makes the slice and waits until its machines run
#   launch/compute_engine.sh install           copies this tree to every machine, installs it, mounts
#                                              --mount
#   launch/compute_engine.sh run -- ARGUMENTS OF jaxt2i.train
#   launch/compute_engine.sh logs [--worker N] follows a worker's output (default 0)
#   launch/compute_engine.sh status            of the slice, and of the run on each worker
#   launch/compute_engine.sh resume -- THE SAME ARGUMENTS
#   launch/compute_engine.sh delete            the group, its template and its policy
#
# Options, or the environment:
#   --name N      TPU_NAME      of the slice
#   --zone Z      TPU_ZONE      such as us-east5-a
#   --project P   TPU_PROJECT
#   --machine M   TPU_MACHINE   such as ct6e-standard-4t, tpu7x-standard-4t (create, resume)
#   --topology T  TPU_TOPOLOGY  of the chips: 4x4, 2x2x4, ... (create, resume)
#   --image I     TPU_IMAGE     family of images in ubuntu-os-accelerator-images; default: the one for
#                               the machine
#   --subnet S    TPU_SUBNET    in which the machines reach each other on every port; default: the
#                               project's default network
#   --mount M     TPU_MOUNT     HOST:/SHARE (NFS, Filestore) or gs://BUCKET (gcsfuse; one with a
#                               hierarchical namespace, so that folders can be renamed), becomes
#                               /mnt/shared on every worker; --workdir belongs there
#   --flex D      flex start: waits in Google's queue until there is room, then runs for D, such as 12h,
#                 at most 7d
#   --spot        cheaper, and may be taken away at any time
#   --every S     resume: again every S seconds until the run has finished
#   --dry-run     only prints the gcloud commands, as every call does before it makes them
#
# Everything may be said twice: create leaves a ready slice alone, run a running run. `resume` brings
# a run back from wherever it is: where a machine was preempted or its time was up, it makes the slice
# anew, installs, and starts the same command, which continues from its newest checkpoint; on a slice
# that is fine it restarts a run that ended early. It exits with 0 when the run has finished, with 75
# while it runs, and with 76 where it had to restart it.
#
#   export TPU_NAME=lite64 TPU_ZONE=us-east5-a TPU_PROJECT=mine TPU_MOUNT=10.0.0.2:/share
#   export TPU_MACHINE=ct6e-standard-4t TPU_TOPOLOGY=4x4
#   launch/compute_engine.sh resume --flex 2d --every 300 -- \
#     --config configs/stylegan_t.py:lite64 --config.data.path=/mnt/shared/cc12m \
#     --workdir /mnt/shared/lite64
#
# Not yet seen: this was written from Google's documentation and tested against a stand-in for gcloud,
# never against Google Cloud. Least certain are what a group says of itself after a preemption, and
# that its machines know their neighbours by the same metadata as TPU VMs; a run whose machines do not
# is refused.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=tpu_slice.sh
. "$(dirname "${BASH_SOURCE[0]}")/tpu_slice.sh"

KNOCKS=20 # tries to reach a machine that has just started

# --- the command line -----------------------------------------------------------------------------

name=${TPU_NAME-} zone=${TPU_ZONE-} project=${TPU_PROJECT-} machine=${TPU_MACHINE-}
topology=${TPU_TOPOLOGY-} image=${TPU_IMAGE-} subnet=${TPU_SUBNET-} mount=${TPU_MOUNT-}
flex='' spot=''
read_line 'name zone project machine topology image subnet mount flex' spot "$@"
[[ $project ]] || usage "no project: give --project or TPU_PROJECT"
[[ ! $flex || ! $spot ]] || usage "--flex and --spot exclude each other"
[[ ! $flex || $flex =~ ^([0-9]+[dhms])+$ ]] || usage "--flex is '$flex', not a duration such as 12h or 2d"

wanted='' # machines of the slice that create and resume make
if [[ $command == create || $command == resume ]]; then
  [[ $machine ]] || usage "no machine: give --machine or TPU_MACHINE, such as ct6e-standard-4t"
  [[ $topology ]] || usage "no topology: give --topology or TPU_TOPOLOGY, such as 4x4"
  [[ $machine =~ -([1-9][0-9]*)t(-tpu)?$ ]] ||
    usage "--machine is '$machine', whose name does not end with its chips, as ct6e-standard-4t's does"
  chips=${BASH_REMATCH[1]}
  [[ $topology =~ ^[1-9][0-9]*(x[1-9][0-9]*){1,2}$ ]] ||
    usage "--topology is '$topology', not of the form 4x4 or 2x2x4"
  total=$((${topology//x/*}))
  ((total % chips == 0)) ||
    usage "--topology $topology has $total chips, which the $chips of $machine do not divide"
  wanted=$((total / chips))
  if [[ ! $image ]]; then
    case $machine in
      ct5p-* | ct6e-*) image=ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e ;;
      tpu7x-*) image=ubuntu-accel-2404-amd64-tpu-tpu7x ;;
      *) usage "no image is known for $machine: give --image or TPU_IMAGE" ;;
    esac
  fi
fi
region=${zone%-*}
in_project=("--project=$project")
in_zone=("--zone=$zone" "${in_project[@]}")
in_region=("--region=$region" "${in_project[@]}")

# --- the slice ------------------------------------------------------------------------------------

group=(compute instance-groups managed)
template=(compute instance-templates)
policy=(compute resource-policies)

# Sets node, machines to the names of those that run, workers to how many there should be and size to
# how many the group counts. A group that is at rest without all its machines has lost some, and never
# gets them back by itself.
refresh() {
  local facts stable name_of doing status assumed=$'1\tTrue'
  machines=() workers=$wanted size=0
  if [[ $dry ]]; then machines=(MACHINE); fi
  if [[ $command == create || $command == resume ]]; then assumed=ABSENT; fi
  facts=$(look "$assumed" "${group[@]}" describe "$name" "${in_zone[@]}" \
    '--format=value(targetSize,status.isStable)')
  if [[ $facts == ABSENT ]]; then
    node=ABSENT
    return
  fi
  call "${group[@]}" list-instances "$name" "${in_zone[@]}" \
    '--format=value(instance.basename(),currentAction,instanceStatus)' >"$scratch/machines" ||
    die "gcloud cannot tell which machines $name in $zone has"
  if [[ $dry ]]; then
    node=READY
    return
  fi
  IFS=$'\t' read -r size stable <<<"$facts"
  workers=${wanted:-$size}
  while IFS=$'\t' read -r name_of doing status; do
    [[ $doing != NONE || $status != RUNNING ]] || machines+=("$name_of")
  done <"$scratch/machines"
  if ((size == 0 || ${#machines[@]} < size)); then
    node=MAKING
    if [[ $stable == True ]]; then node=LOST; fi
  elif ((size == workers)); then
    node=READY
  else
    node=OTHER # whole, but not of the size that is asked for
  fi
}

# Whatever there is of the slice. A group that could not be made leaves the other two behind.
remove() {
  local left
  removed=''
  if [[ $node != ABSENT ]]; then
    call "${group[@]}" delete "$name" "${in_zone[@]}" --quiet
    removed=1
  fi
  left=$(look "$name" "${template[@]}" describe "$name" "${in_project[@]}" '--format=value(name)')
  if [[ $left != ABSENT ]]; then
    call "${template[@]}" delete "$name" "${in_project[@]}" --quiet
    removed=1
  fi
  left=$(look "$name" "${policy[@]}" describe "$name" "${in_region[@]}" '--format=value(name)')
  if [[ $left != ABSENT ]]; then
    call "${policy[@]}" delete "$name" "${in_region[@]}" --quiet
    removed=1
  fi
  node=ABSENT
}

make_group() {
  local model=() placed=()
  if [[ $flex ]]; then
    model=(--provisioning-model=FLEX_START "--max-run-duration=$flex"
      --instance-termination-action=DELETE --reservation-affinity=none)
  elif [[ $spot ]]; then
    model=(--provisioning-model=SPOT --instance-termination-action=STOP)
  fi
  if ((wanted > 1)); then
    call "${policy[@]}" create workload-policy "$name" "${in_region[@]}" \
      --type=high-throughput "--accelerator-topology=$topology"
    placed=("--workload-policy=projects/$project/regions/$region/resourcePolicies/$name")
  fi
  call "${template[@]}" create "$name" "${in_project[@]}" "--machine-type=$machine" \
    "--image-family=$image" --image-project=ubuntu-os-accelerator-images --boot-disk-size=200GB \
    --maintenance-policy=TERMINATE --scopes=cloud-platform \
    ${subnet:+"--region=$region"} ${subnet:+"--subnet=$subnet"} "${model[@]}"
  # All machines or none, and none of them replaced alone: a slice is made and lost as a whole.
  call "${group[@]}" create "$name" "${in_zone[@]}" "--template=$name" "--size=$wanted" \
    --target-size-policy-mode=bulk --default-action-on-vm-failure=do-nothing "${placed[@]}"
}

# Leaves a ready slice, whatever `refresh` found.
make_slice() {
  if [[ $node == OTHER ]]; then
    # A group may no longer count what it lost, so resume takes fewer machines for a loss.
    if [[ $command == create ]] || ((size > workers)); then
      die "$name has $size machines, but --topology $topology of $machine means $workers: delete it first"
    fi
    node=LOST
  fi
  if [[ $node == LOST ]]; then
    echo "$name has ${#machines[@]} of $workers machines running: making it anew"
  fi
  if [[ $node == LOST || $node == ABSENT ]]; then
    if [[ ! $dry ]]; then remove; fi
    make_group
    if [[ $dry ]]; then return; fi
    refresh
  fi
  until [[ $node == READY ]]; do
    [[ $node == MAKING ]] ||
      die "$name is $node and does not become ready; say it again, or delete it"
    echo "$name: ${#machines[@]} of $workers machines run; looking again in $POLL s (what hinders it:" \
      "gcloud compute instance-groups managed list-errors $name ${in_zone[*]})"
    sleep "$POLL"
    refresh
  done
  # The first alone: for it gcloud may have to make the key that the others then share.
  reach "${machines[0]}"
  reach "${machines[@]:1}"
  echo "$name is ready: $workers workers"
}

# need_slice: for what is done on the workers.
need_slice() {
  refresh
  [[ $node == READY ]] || die "$name in $zone is $node, not READY; $0 create makes it"
}

# --- the machines ---------------------------------------------------------------------------------

# each FUNCTION MACHINE...: calls gcloud for all machines at once, with what FUNCTION sets query to, and
# shows what they say one after the other; failed becomes the machines where it failed.
each() {
  local number running=() query=() those=("${@:2}")
  failed=()
  for number in "${!those[@]}"; do
    "$1" "${those[number]}"
    announce "${query[@]}"
    if [[ ! $dry ]]; then
      gcloud "${query[@]}" >"$scratch/said.${those[number]}" 2>&1 &
      running+=("$!")
    fi
  done
  for number in "${!running[@]}"; do
    wait "${running[number]}" || failed+=("${those[number]}")
    cat "$scratch/said.${those[number]}"
  done
}

on() {
  query=(compute ssh "$1" "${in_zone[@]}" --quiet "--command=$2")
}

# reach MACHINE...: waits until they let us in, for a machine runs before it does.
reach() {
  local try left=("$@")
  for ((try = 1; ${#left[@]}; try++)); do
    ((try <= KNOCKS)) || die "no ssh to ${left[*]}; gcloud's message is above"
    if ((try > 1)); then sleep "$POLL"; fi
    each knock "${left[@]}"
    left=("${failed[@]}")
  done
}

knock() {
  on "$1" true
}

ask() {
  local words=$1
  each tell "${machines[@]}" | tee "$scratch/said"
}

tell() {
  on "$1" "$words"
}

copy() {
  local file=$1
  each hand "${machines[@]}"
  ((!${#failed[@]}))
}

hand() {
  query=(compute scp "$file" "$1:${file##*/}" "${in_zone[@]}" --quiet)
}

# The machines' names do not tell which worker they are.
follow() {
  local one query=() found=MACHINE
  ask "$(worker_script state)"
  if [[ ! $dry ]]; then
    found=''
    for one in "${machines[@]}"; do
      if grep -q "worker $worker: ok" "$scratch/said.$one"; then found=$one; fi
    done
    [[ $found ]] || die "no machine of $name says that it is worker $worker; what they said is above"
  fi
  on "$found" "$(worker_script log)"
  call "${query[@]}"
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
    need_slice
    follow
    ;;
  status)
    refresh
    echo "$name in $zone: $node, ${#machines[@]} machines run"
    if [[ $node == READY ]]; then ask "$(worker_script state)"; fi
    ;;
  resume) resume ;;
  delete)
    refresh
    remove
    if [[ ! $removed ]]; then echo "there is no $name in $zone"; fi
    ;;
esac
