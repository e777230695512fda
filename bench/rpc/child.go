package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"time"

	"golang.org/x/sys/unix"
)

// client makes the callers of a peer.
type client interface {
	// caller is one that calls one at a time; size is the most bytes of a block.
	caller(size int) (caller, error)
	close() error
}

// caller does single calls, each checked.
type caller interface {
	echo(seq byte) error
	read(size int) error
	write(size int) error
	close()
}

// child is the program of a server or a client process.
func child(role, peer, addr, profile string) error {
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	var c client
	var ready report
	switch role {
	case "server":
		at, stop, err := serve(peer)
		if err != nil {
			return err
		}
		defer stop()
		ready.Addr = at
	case "client":
		var err error
		if c, err = dial(peer, addr); err != nil {
			return err
		}
		defer c.close()
	default:
		return fmt.Errorf("no such role as %q", role)
	}
	if _, err := os.Stdout.Write(encode(ready)); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var cmd command
		if err := json.Unmarshal(in.Bytes(), &cmd); err != nil {
			return err
		}
		var r report
		if cmd.Run != "" {
			r = run(c, cmd)
		} else {
			r = usage()
		}
		if _, err := os.Stdout.Write(encode(r)); err != nil {
			return err
		}
	}
	return in.Err()
}

func usage() report {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	r := report{CPU: time.Duration(u.Utime.Nano() + u.Stime.Nano()), Mallocs: m.Mallocs}
	if device != nil {
		l := device().Link
		r.Packets, r.Sends, r.Receives = l.TxPackets, l.TxCalls, l.RxCalls
	}
	return r
}

// serve starts the server of a peer on loopback.
func serve(peer string) (addr string, stop func(), err error) {
	switch peer {
	case "zrdma":
		return serveZrdma()
	case "grpc", "grpc-raw":
		return serveGRPC(peer == "grpc-raw")
	case "netrpc":
		return serveNetRPC()
	}
	return "", nil, fmt.Errorf("no such peer as %q", peer)
}

func dial(peer, addr string) (client, error) {
	switch peer {
	case "zrdma":
		return dialZrdma(addr)
	case "grpc", "grpc-raw":
		return dialGRPC(addr, peer == "grpc-raw")
	case "netrpc":
		return dialNetRPC(addr)
	}
	return nil, fmt.Errorf("no such peer as %q", peer)
}
