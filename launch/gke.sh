#!/usr/bin/env bash
# Starts a training run on a TPU slice of a GKE cluster: fills in launch/gke_jobset.yaml, applies it.
# For every TPU that GKE has, the newest among them.
#
#   launch/gke.sh --name lite64 --image REGION-docker.pkg.dev/PROJECT/REPO/jaxt2i-tpu:TAG \
#     --accelerator tpu-v5-lite-podslice --topology 4x4 --claim shared -- \
#     --config configs/stylegan_t.py:lite64 --config.data.path=/mnt/shared/cc12m \
#     --workdir /mnt/shared/lite64
#
#   --name N         of the run
#   --image I        built from launch/docker/tpu.Dockerfile
#   --accelerator A  GKE's name of the chips: tpu-v5-lite-podslice, tpu-v5p-slice, tpu-v6e-slice,
#                    tpu7x, ... as the node pool has it
#   --topology T     of the slice: 4x4, 2x2x4, ...
#   --chips C        of a host (default 4)
#   --claim V        persistent volume claim, becomes /mnt/shared in every pod
#   --restarts R     how often a run may start again (default 100)
#   --dry-run        prints the JobSet and applies nothing
#
# The cluster needs the JobSet controller and a node pool of the slice, which for TPU7x of several
# hosts is made with a workload policy of the topology (by Google's documentation, not yet seen):
#   gcloud compute resource-policies create workload-policy P --region R --type=high-throughput \
#     --accelerator-topology=2x2x2
#   gcloud container node-pools create POOL --cluster=C --location=R --node-locations=Z \
#     --machine-type=tpu7x-standard-4t --tpu-topology=2x2x2 --num-nodes=2 --placement-policy=P
#
# Then: kubectl logs -f -l jobset.sigs.k8s.io/jobset-name=N,batch.kubernetes.io/job-completion-index=0
#       kubectl delete jobset N
# The same run by XPK, whose clusters have all of this set up:
#   xpk workload create --cluster C --workload lite64 --tpu-type v5litepod-16 --docker-image IMAGE \
#     --max-restarts 100 --command "launch/preemptible.sh python -m jaxt2i.train ARGUMENTS"
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=options.sh
. "$(dirname "${BASH_SOURCE[0]}")/options.sh"

# shellcheck disable=SC2034 # read through ${!key}
name='' image='' accelerator='' topology='' claim='' chips=4 restarts=100
read_options 'name image accelerator topology chips claim restarts' dry-run "$@"
declare -A value
for key in name image accelerator topology chips claim restarts; do
  [[ ${!key-} ]] || usage "--$key is missing"
  # Only what cannot change the meaning of the YAML around it.
  [[ ${!key} =~ ^[A-Za-z0-9][A-Za-z0-9._/:@-]*$ ]] || usage "--$key is '${!key}', which is no such name"
  value[${key^^}]=${!key}
done
((${#arguments[@]})) || usage "nothing behind --; what jaxt2i.train is given stands there"
[[ ${value[TOPOLOGY]} =~ ^[0-9]+(x[0-9]+){1,2}$ ]] ||
  usage "--topology is '${value[TOPOLOGY]}', not of the form 4x4 or 2x2x4"
[[ ${value[CHIPS]} =~ ^[1-9][0-9]*$ ]] || usage "--chips is '${value[CHIPS]}', not a number"
slice=$((${topology//x/*}))
((slice % chips == 0)) ||
  usage "--topology ${value[TOPOLOGY]} has $slice chips, which --chips $chips does not divide"
value[HOSTS]=$((slice / chips))

# The arguments as a JSON list, which is YAML too.
list=''
for argument in "${arguments[@]}"; do
  [[ $argument != *[[:cntrl:]]* ]] || usage "an argument holds a control character: ${argument@Q}"
  argument=${argument//\\/\\\\}
  list+=${list:+, }\"${argument//\"/\\\"}\"
done
value[ARGS]="[$list]"

# Only these names are filled in, and what is filled in is not looked at again.
filled=''
while IFS= read -r line || [[ $line ]]; do
  while [[ ! $line =~ ^[[:space:]]*# && $line =~ ^([^$]*)\$\{([A-Z]+)\}(.*)$ ]]; do
    filled+=${BASH_REMATCH[1]}${value[${BASH_REMATCH[2]}]}
    line=${BASH_REMATCH[3]}
  done
  filled+=$line$'\n'
done <"$(dirname "${BASH_SOURCE[0]}")/gke_jobset.yaml"

if [[ $dry ]]; then
  printf %s "$filled"
else
  echo "+ kubectl apply -f -" >&2
  printf %s "$filled" | kubectl apply -f -
fi
