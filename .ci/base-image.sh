#!/usr/bin/env bash
# Makes a stand-in for python:3.11-slim where no container registry is reached: this machine's Debian, from the mirror
# that its apt uses, and this machine's CPython, in the places where the official image has it. For tests and for
# networks without a registry; it is not what a release is built from. Needs mmdebstrap, and docker or podman.
#   .ci/base-image.sh TOOL NAME     prints nothing when the image is there already and was made by this script
set -euo pipefail
tool=${1:?docker or podman}
name=${2:?the name that the image gets}
python=${PYTHON:-python3.11}

fail() { echo "base-image: $*" >&2; exit 1; }
command -v mmdebstrap >/dev/null || fail "it needs mmdebstrap. Install it: apt-get install mmdebstrap"
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || fail "$python is not Python 3.11; name one in PYTHON"
version=$("$python" -c 'import platform; print(platform.python_version())')
made_by=$(sha256sum <"${BASH_SOURCE[0]}" | cut -c1-16)-$version
test "$("$tool" image inspect --format '{{index .Config.Labels "omni.base"}}' "$name" 2>/dev/null)" != "$made_by" || exit 0

# shellcheck source=/dev/null
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' | awk -v suite="$suite" '$2 == suite {print $1; exit}')
test -n "$mirror" || fail "apt names no mirror of Debian $suite"
echo "base-image: making $name out of Debian $suite and CPython $version; this takes a minute." >&2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Only what runs: no packages but pip's own (ensurepip brings it), no tests, nothing to link against.
prefix=$("$python" -c 'import sys; print(sys.base_prefix)')
tar -C "$prefix" -cf "$work/python.tar" --exclude='__pycache__' --exclude='lib/python3.11/site-packages/*' \
	--exclude='lib/python3.11/test' --exclude='*/tests' --exclude='lib/python3.11/config-3.11*' --exclude='*/idlelib' \
	--exclude='*/tkinter' --exclude='*/lib2to3' --exclude='*.a' --exclude='lib/pkgconfig' bin/python3.11 lib include
# As Debian's own images: apt keeps no copies of what it read, which would be 80 MB in every image that installs something.
printf '%s\n' 'Dir::Cache::pkgcache "";' 'Dir::Cache::srcpkgcache "";' >"$work/apt.conf"
printf '%s\n' '[global]' 'cert = /etc/ssl/certs/ca-certificates.crt' 'disable-pip-version-check = true' \
	'root-user-action = ignore' >"$work/pip.conf"

# The libraries that CPython's own modules open. The bundle of CAs is this machine's: its mirrors may have one of their own.
mmdebstrap --quiet --variant=minbase --aptopt='APT::Install-Recommends "false"' \
	--hook-directory=/usr/share/mmdebstrap/hooks/merged-usr \
	--include=usr-is-merged,ca-certificates,netbase,tzdata,libssl3,libffi8,libsqlite3-0,libbz2-1.0,liblzma5,libreadline8,libncursesw6,zlib1g,libexpat1,libuuid1,libnsl2,libtirpc3,libcrypt1 \
	--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
	--customize-hook="tar-in $work/python.tar /usr/local" \
	--customize-hook="upload $work/pip.conf /etc/pip.conf" \
	--customize-hook='rm -rf "$1"/var/cache/apt/*.bin "$1"/var/cache/apt/archives/*.deb' \
	--customize-hook="upload $work/apt.conf /etc/apt/apt.conf.d/no-caches" \
	--customize-hook='upload /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt' \
	--customize-hook='ln -s python3.11 "$1/usr/local/bin/python3" && ln -s python3.11 "$1/usr/local/bin/python"' \
	--customize-hook='! command -v strip >/dev/null || strip "$1"/usr/local/bin/python3.11 "$1"/usr/local/lib/libpython3.11.so.1.0' \
	--customize-hook='chroot "$1" ldconfig' \
	--customize-hook='chroot "$1" /usr/local/bin/python3 -m ensurepip --altinstall >/dev/null 2>&1' \
	--customize-hook='ln -s pip3.11 "$1/usr/local/bin/pip3" && ln -s pip3.11 "$1/usr/local/bin/pip"' \
	"$suite" "$work/root.tar" "deb $mirror $suite main"
"$tool" import \
	--change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' --change 'ENV LANG=C.UTF-8' \
	--change "ENV PYTHON_VERSION=$version" --change "LABEL omni.base=$made_by" --change 'CMD ["python3"]' \
	"$work/root.tar" "$name" >/dev/null
