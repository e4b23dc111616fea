#!/usr/bin/env bash
# Builds the images of the services, which `make images` does:
#   .ci/images.sh [gateway] [coordinator] [relay] [stage] [stage-cuda] [cli]      without a name: all but stage-cuda
# Environment: IMAGE_TOOL (docker or podman), IMAGE_PREFIX, IMAGE_TAG, BASE_IMAGE, STAGE_EXTRAS, IMAGE_FLAGS (more words
# for the tool's build command). Without BASE_IMAGE it is python:3.11-slim and, where that cannot be pulled, a stand-in.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
official=docker.io/library/python:3.11-slim
stand_in=localhost/omni-python:3.11-slim

tool=${IMAGE_TOOL:-}
if test -z "$tool"; then
	if docker info >/dev/null 2>&1; then tool=docker; elif command -v podman >/dev/null; then tool=podman; else
		echo "images: neither podman nor a docker that answers is here. Install one, or name it in IMAGE_TOOL." >&2
		exit 1
	fi
fi

base=${BASE_IMAGE:-$official}
if test -z "${BASE_IMAGE:-}" && ! "$tool" image inspect "$official" >/dev/null 2>&1 &&
	! timeout 120 "$tool" pull --quiet "$official" >/dev/null 2>&1; then
	echo "images: $official cannot be pulled; the images get a stand-in that is made here." >&2
	base=$stand_in
	.ci/base-image.sh "$tool" "$base"
fi

flags=(--build-arg "BASE_IMAGE=$base" --build-arg "VERSION=${IMAGE_TAG:=0.1.0}"
	--build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)")
# Wheels and an index of one's own, as pip on this machine has them. docker mounts nothing into a build.
test -z "${PIP_INDEX_URL:-}" || flags+=(--build-arg "PIP_INDEX_URL=$PIP_INDEX_URL")
if test -d "${PIP_FIND_LINKS:-}" && test "$tool" != docker; then
	flags+=(--volume "$PIP_FIND_LINKS:$PIP_FIND_LINKS:ro" --build-arg "PIP_FIND_LINKS=$PIP_FIND_LINKS" --build-arg TORCH_INDEX=)
fi
read -ra more <<<"${IMAGE_FLAGS:-}"

build() { # IMAGE SERVICE WORDS...
	echo "images: building $1" >&2
	"$tool" build --quiet "${flags[@]}" "${@:3}" ${more[@]+"${more[@]}"} --file "services/$2/Dockerfile" --tag "$1" . >/dev/null
}
prefix=${IMAGE_PREFIX:-}
# podman gives a name without a host to any image here that ends so, whatever it begins with.
test "$tool" = docker || test -n "$prefix" || prefix=localhost/
test $# -gt 0 || set -- gateway coordinator relay stage cli
for name in "$@"; do
	image=${prefix}omni-$name:$IMAGE_TAG
	case $name in
	stage) build "$image" stage ${STAGE_EXTRAS:+--build-arg "EXTRAS=$STAGE_EXTRAS"} ;;
	stage-cuda) build "${prefix}omni-stage:$IMAGE_TAG-cuda" stage --build-arg VARIANT=cuda ;;
	*) build "$image" "$name" ;;
	esac
done
