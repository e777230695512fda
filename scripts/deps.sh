#!/bin/sh
# Installs what building and testing need, on Debian. Safe to run again: what is
# there is left alone. Without root it prints the command to run. `deps.sh arm64`
# installs what arm64 VMs and programs for them need besides.
set -eu

missing=
need() { # need PACKAGE TEST...: the package is missing unless the test succeeds
	pkg=$1
	shift
	"$@" >/dev/null 2>&1 || missing="$missing $pkg"
}
need gcc command -v gcc
need libc6-dev test -e /usr/include/stdio.h
need make command -v make
need git command -v git
need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
need libibverbs-dev test -e /usr/include/infiniband/verbs.h
need librdmacm-dev test -e /usr/include/rdma/rsocket.h
need ibverbs-providers test -e /etc/libibverbs.d/rxe.driver
need ibverbs-utils command -v ibv_rc_pingpong
need rdmacm-utils command -v rping
need perftest command -v ib_send_lat
need iproute2 command -v ip
need cpio command -v cpio
need kmod command -v modprobe
need qemu-system-x86 command -v qemu-system-x86_64

if [ "${1:-}" = arm64 ]; then
	need gcc-aarch64-linux-gnu command -v aarch64-linux-gnu-gcc
	need qemu-system-arm command -v qemu-system-aarch64
	need qemu-efi-aarch64 test -e /usr/share/qemu-efi-aarch64/QEMU_EFI.fd
fi

command -v go >/dev/null || {
	echo "deps: Go 1.25 or newer is needed: https://go.dev/doc/install" >&2
	exit 1
}
if [ -n "$missing" ]; then
	cmd="apt-get update && apt-get install -y --no-install-recommends$missing"
	if [ "$(id -u)" != 0 ]; then
		echo "deps: missing:$missing" >&2
		echo "deps: run as root: $cmd" >&2
		exit 1
	fi
	echo "deps: $cmd"
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -q
	# shellcheck disable=SC2086 # a list of packages
	apt-get install -y -q --no-install-recommends $missing
fi
# The VM tier downloads its kernel with apt, which wants its lists.
ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 || [ "$(id -u)" != 0 ] || apt-get update -q
