// Httprdma is net/http over RDMA: the server and the client of the standard
// library, with another net.Listener and another DialContext.
//
//	httprdma -serve /srv/files -addr 10.0.0.7:7472      # on one machine
//	httprdma http://10.0.0.7:7472/disk.img > disk.img   # on the other
//
// It takes the device that $ZRDMA_DEVICE names, else a NIC, else the software
// device on 127.0.0.1, which is good for a try on one machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/zrdma/zrdma/rdmanet"
)

func main() {
	log.SetFlags(0)
	dir := flag.String("serve", "", "serve the files of this `folder`")
	addr := flag.String("addr", "127.0.0.1:7472", "with -serve: `host:port` to listen on, of the RDMA device")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	switch {
	case *dir != "" && flag.NArg() == 0:
		err = listen(ctx, *dir, *addr)
	case *dir == "" && flag.NArg() == 1:
		err = get(ctx, &rdmanet.Dialer{}, flag.Arg(0), os.Stdout)
	default:
		flag.Usage()
		os.Exit(2)
	}
	if err != nil {
		log.Fatal("httprdma: ", err)
	}
}

func listen(ctx context.Context, dir, addr string) error {
	if _, err := os.ReadDir(dir); err != nil {
		return err
	}
	l, err := rdmanet.Listen(ctx, addr, rdmanet.Config{})
	if err != nil {
		return err
	}
	log.Printf("serving %s at http://%s/ over RDMA", dir, l.Addr())
	return serve(ctx, dir, l)
}

// serve serves files until ctx ends, then lets requests under way end.
func serve(ctx context.Context, dir string, l *rdmanet.Listener) error {
	s := &http.Server{Handler: http.FileServer(http.Dir(dir)), ReadHeaderTimeout: 10 * time.Second}
	done := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		wait, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		done <- s.Shutdown(wait)
	})
	if err := s.Serve(l); stop() || !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-done
}

// get fetches url into w.
func get(ctx context.Context, d *rdmanet.Dialer, url string, w io.Writer) error {
	t := &http.Transport{DialContext: d.DialContext}
	defer t.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, r.Status)
	}
	_, err = io.Copy(w, r.Body)
	return err
}
