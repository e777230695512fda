#!/bin/sh
# The modules beside the root, whose dependencies are not the library's:
# modules.sh check formats and vets them, modules.sh test runs their tests.
set -eu
root=$(pwd)
for m in examples/grpc contrib/prometheus contrib/otel docs/k8s; do
	echo "$1: $m"
	cd "$root/$m"
	case $1 in
	check)
		go vet ./...
		go tool -modfile="$root/tools/go.mod" staticcheck ./...
		go mod tidy -diff
		;;
	test) go test -race -shuffle=on -timeout 5m ./... ;;
	esac
done
