package rdmanet

import (
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

// TestNet is golang.org/x/net/nettest: what every net.Conn must do.
func TestNet(t *testing.T) {
	places(t, func(t *testing.T, p *place) {
		cfg := Config{Linger: time.Second} // some cases leave a peer that does not read
		l := p.listen(t, cfg)
		nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
			a, b, err := p.connect(l, cfg)
			if err != nil {
				return nil, nil, nil, err
			}
			return a, b, func() {
				var wg sync.WaitGroup
				wg.Go(func() { a.Close() })
				wg.Go(func() { b.Close() })
				wg.Wait()
			}, nil
		})
	})
}
