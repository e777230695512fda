# A laptop and CI run the same targets. `make demo` needs Go alone; the others
# install what they lack (with apt when root; else they print the command).
.PHONY: all deps bin bin-arm64 dpu netdevsim demo demo-rxe demo-vm test unit soft rxe soak check bench coverage clean
TOOL = go tool -modfile=tools/go.mod

all: check test

deps:
	@sh scripts/deps.sh

# The harness is built without cgo so that it can be its own guest's init.
bin: deps
	CGO_ENABLED=0 go build -o bin/softroce ./test/softroce/cmd/softroce
	go build -o bin/ ./cmd/... ./examples/...
	go test -c -o bin/suite.test ./test/suite
	go test -c -o bin/qp.test ./qp
	go test -c -o bin/mr.test ./mr
	go test -c -o bin/dpu.test ./dpu
	go test -c -o bin/rpc.test ./rpc
	go test -c -o bin/rdmanet.test ./rdmanet

bin/door: bin
	go test -c -gcflags=all=-d=checkptr -o bin/suite-checkptr.test ./test/suite
	go test -c -asan -o bin/suite-asan.test ./test/suite

# The main job: a storage client and server moving verified blocks, zero-copy.
demo:
	@sh scripts/demo.sh

# The same between two VMs on the kernel's Soft-RoCE. BLOCKS=N changes how many.
demo-rxe: bin
	bin/softroce run -hosts 2 -timeout 2m -script test/softroce/scripts/blocks.txt

# The ping on the kernel's Soft-RoCE in a VM.
demo-vm: bin
	bin/softroce run -- bin/zrdma ping --loopback --count 200 --size 4096

# The same for arm64 in bin/arm64, with cgo, for the arm64 VMs.
bin-arm64: bin
	@sh scripts/deps.sh arm64
	@sh scripts/arm64.sh

# A host, a DPU (arm64, the DMI of a BlueField) and a storage server: three VMs on
# one network, all on rxe.
dpu: bin-arm64
	@sh scripts/dpu.sh

# devlink of a real kernel, without hardware: builds netdevsim for the VMs' kernel.
netdevsim: bin
	@sh scripts/netdevsim.sh

test: unit soft rxe

# Everything that needs no device, with the race detector (`make check` vets). Some
# tests use the kernel's sockets in real time, which a busy machine can fail: what
# fails is run once more, and counted and shown in any case.
unit: deps
	$(TOOL) gotestsum --format pkgname-and-test-fails --rerun-fails=1 --rerun-fails-max-failures=5 \
		--packages "$$(go list ./... | grep -v /test/suite | tr '\n' ' ')" -- -race -vet=off -shuffle=on -timeout 5m
	go test -run TestEveryCaseIsThere ./test/suite
	sh scripts/modules.sh test

# The verbs suite on the software device, over UDP and in memory.
soft: deps
	@sh scripts/soft.sh

# The kernel's Soft-RoCE in a VM. KERNEL=6.12 for Debian's backports kernel.
rxe: bin bin/door
	sh scripts/rxe.sh

# Everything of package rpc at once, for MINUTES=10, under the race detector.
soak: deps
	@sh scripts/soak.sh

check: deps
	@sh scripts/check.sh

bench: bin
	go run ./bench
	cd bench/soft && go run . -rounds 3
	cd bench/rpc && go run . -rounds 5

coverage:
	go run ./internal/coverage/cmd/coverage

clean:
	rm -rf bin
