#!/bin/sh
# Builds netdevsim, a device with devlink that needs no hardware and that Debian's
# kernel does not have, from the sources of the VMs' kernel, and runs the test of
# package dpu that reads it in a VM. It installs kernel headers and sources (apt).
set -eu
ver=$(bin/softroce run -kernel-version 6.1 -- uname -r | tail -n 1)
out=bin/netdevsim
if ! [ -e "$out/netdevsim-$ver.ko" ]; then
	pkgs="linux-headers-$ver linux-source-6.1"
	if ! [ -d "/usr/src/linux-headers-$ver" ] || ! [ -e /usr/src/linux-source-6.1.tar.xz ]; then
		if [ "$(id -u)" != 0 ]; then
			echo "netdevsim: run as root: apt-get update && apt-get install -y --no-install-recommends $pkgs" >&2
			exit 1
		fi
		# shellcheck disable=SC2086 # a list of packages
		DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $pkgs xz-utils
	fi
	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp"' EXIT
	tar -xJf /usr/src/linux-source-6.1.tar.xz -C "$tmp" --strip-components=3 linux-source-6.1/drivers/net/netdevsim
	make -s -C "/usr/src/linux-headers-$ver" M="$tmp/netdevsim" CONFIG_NETDEVSIM=m modules
	mkdir -p "$out"
	cp "${XDG_CACHE_HOME:-$HOME/.cache}/zrdma/softroce/kernels/debian-6.1/lib/modules/$ver/kernel/net/psample/psample.ko" "$out/"
	strip -g -o "$out/netdevsim-$ver.ko" "$tmp/netdevsim/netdevsim.ko" # last: it says that all is there
fi
exec bin/softroce run -timeout 2m -- env ZRDMA_NETDEVSIM="$out/psample.ko:$out/netdevsim-$ver.ko" bin/dpu.test -test.run '^TestNetdevsim$' -test.v
