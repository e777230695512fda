// Command zrdma-verbsbench is the peer of perftest's ib_send_lat, ib_send_bw,
// ib_write_bw and ib_read_bw, written with package verbs. Without an argument it
// is the server, with a host it is the client and prints a line of JSON.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"runtime/pprof"
	"time"

	"github.com/zrdma/zrdma/internal/bench"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "zrdma-verbsbench:", err)
		os.Exit(1)
	}
}

func run() error {
	var c bench.Config
	var port string
	var limit time.Duration
	flag.StringVar(&c.Dev, "d", "rxe0", "device")
	flag.StringVar(&c.Test, "test", "send_lat", "send_lat, send_bw, write_bw or read_bw")
	flag.IntVar(&c.Size, "s", 64, "bytes of a message")
	flag.IntVar(&c.Iters, "n", 1000, "messages")
	flag.IntVar(&c.TxDepth, "t", 128, "send queue")
	flag.IntVar(&c.RxDepth, "r", 512, "receive queue")
	flag.IntVar(&c.CQMod, "Q", 100, "one completion in so many requests")
	flag.IntVar(&c.Batch, "l", 1, "requests of one post")
	flag.StringVar(&c.Wait, "wait", "spin", fmt.Sprint("how to wait: ", bench.Waits))
	flag.StringVar(&port, "p", "18600", "TCP port for the exchange")
	flag.DurationVar(&limit, "timeout", time.Minute, "give up after")
	profile := flag.String("cpuprofile", "", "write a CPU profile to this `file`")
	flag.Parse()
	c.TxDepth = min(c.TxDepth, c.Iters)
	c.CQMod = min(c.CQMod, c.TxDepth)

	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	conn, err := dial(&c, flag.Arg(0), port)
	if err != nil {
		return err
	}
	defer conn.Close()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	r, err := bench.Run(ctx, c, conn)
	if err != nil {
		return err
	}
	if c.Server {
		return json.NewEncoder(os.Stderr).Encode(r)
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

func dial(c *bench.Config, host, port string) (net.Conn, error) {
	if host == "" {
		c.Server = true
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return nil, err
		}
		defer l.Close()
		return l.Accept()
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", net.JoinHostPort(host, port))
		if err == nil || time.Now().After(end) {
			return conn, err
		}
	}
}
