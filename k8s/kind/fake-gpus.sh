#!/usr/bin/env bash
# Gives every node with the label nvidia.com/gpu.present=true GPUs that are not there, as extended resources of the node's
# status: the scheduler counts them, a container that got one finds none. For trying placement on a cluster without GPUs.
#   k8s/kind/fake-gpus.sh [HOW_MANY_A_NODE]
# They are gone when a node's kubelet starts anew; run this again.
set -euo pipefail
count=${1:-1}
[[ $count =~ ^[0-9]+$ ]] || { echo "fake-gpus: '$count' is not a number of GPUs" >&2; exit 1; }
nodes=$(kubectl get nodes --selector nvidia.com/gpu.present=true --output name)
test -n "$nodes" || { echo "fake-gpus: no node has the label nvidia.com/gpu.present=true" >&2; exit 1; }
for node in $nodes; do
	# ~1 is a slash in a JSON pointer.
	kubectl patch "$node" --subresource=status --type=json \
		--patch "[{\"op\": \"add\", \"path\": \"/status/capacity/nvidia.com~1gpu\", \"value\": \"$count\"}]"
done
