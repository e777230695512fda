// Rping is the ping of rdma_cm: it speaks the protocol of the rping of rdma-core,
// so either side may be that program.
//
//	rping -s -a 10.0.0.1          # on one machine
//	rping -c -a 10.0.0.1 -C 10 -v # on the other
//
// Each ping: the client announces memory, the server READs it, the client
// announces other memory, the server WRITEs the data back there.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"time"
)

type options struct {
	server, client  bool
	addr, source    string
	port            int
	count, size     int
	verbose, verify bool
	persistent      bool
	patience        time.Duration
	out             io.Writer
}

func parse(args []string) (options, error) {
	o := options{out: os.Stdout}
	f := flag.NewFlagSet("rping", flag.ContinueOnError)
	f.BoolVar(&o.server, "s", false, "be the server")
	f.BoolVar(&o.client, "c", false, "be the client")
	f.StringVar(&o.addr, "a", "", "`address`: of the server, or to listen on (default all IPv4; ::0 for all)")
	f.StringVar(&o.source, "I", "", "client: source `address`")
	f.IntVar(&o.port, "p", 7174, "`port`")
	f.IntVar(&o.count, "C", 0, "client: how many `pings`; 0: until interrupted")
	f.IntVar(&o.size, "S", 64, "`bytes` of a ping; on the server the most it takes")
	f.BoolVar(&o.verbose, "v", false, "print the data")
	f.BoolVar(&o.verify, "V", false, "check the data")
	f.BoolVar(&o.persistent, "P", false, "server: serve one client after the other until interrupted")
	f.DurationVar(&o.patience, "t", 30*time.Second, "how long to wait for the peer's next step")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case o.server == o.client:
		return o, errors.New("one of -s and -c is required")
	case o.client && o.addr == "":
		return o, errors.New("the client needs -a")
	case o.size < minSize || o.size > maxSize:
		return o, fmt.Errorf("-S must be %d to %d", minSize, maxSize)
	case o.count < 0:
		return o, errors.New("-C cannot be negative")
	case o.port < 0 || o.port > 65535:
		return o, errors.New("-p must be a port")
	}
	return o, nil
}

// lookup finds the address of a name; an address is its own.
func lookup(ctx context.Context, host string, port int) (netip.AddrPort, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(ip, uint16(port)), nil
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if len(ips) == 0 {
		return netip.AddrPort{}, errors.New(strconv.Quote(host) + " has no address")
	}
	return netip.AddrPortFrom(ips[0].Unmap(), uint16(port)), nil
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("rping: ")
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if o.server {
		err = serve(ctx, o)
	} else {
		err = ping(ctx, o)
	}
	if err != nil && ctx.Err() == nil {
		stop()
		log.Fatal(err)
	}
}
