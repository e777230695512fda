package rdmacm_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"

	"github.com/zrdma/zrdma/verbs"
	"github.com/zrdma/zrdma/verbs/rdmacm"
)

// A connection over the connection manager, and a message through it.
func Example() {
	ctx := context.Background()
	dev, err := verbs.Open("soft:127.0.12.2")
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()

	in := make([]byte, 64)
	l, err := rdmacm.Listen(ctx, netip.MustParseAddrPort("127.0.12.2:0"), rdmacm.ListenConfig{
		Device: dev,
		Setup: func(c *rdmacm.Conn) error { // the receive is there before the peer can send
			mr, err := c.PD.RegMR(in, verbs.AccessLocalWrite)
			if err != nil {
				return err
			}
			c.Own(mr)
			_, err = c.QP.PostRecv([]verbs.RecvWR{{SGList: []verbs.SGE{mr.SGE(0, len(in))}}})
			return err
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()

	got := make(chan string)
	go func() {
		c, err := l.Accept(ctx)
		if err != nil {
			log.Fatal(err)
		}
		defer c.Close()
		wc := wait(ctx, c.RecvCQ)
		got <- string(in[:wc.ByteLen])
	}()

	c, err := rdmacm.Dial(ctx, l.Addr(), rdmacm.DialConfig{Device: dev, QP: verbs.QPConfig{Cap: verbs.QPCap{MaxInlineData: 64}}})
	if err != nil {
		log.Fatal(err) // says which step failed: address, route, connect
	}
	defer c.Close()
	_, err = c.QP.PostSend([]verbs.SendWR{{Opcode: verbs.WRSend, Flags: verbs.SendSignaled, Inline: []byte("hello")}})
	if err != nil {
		log.Fatal(err)
	}
	wait(ctx, c.SendCQ)
	fmt.Println(<-got)
	// Output: hello
}

// wait takes one completion.
func wait(ctx context.Context, cq *verbs.CQ) verbs.WC {
	var wc [1]verbs.WC
	if _, err := cq.Wait(ctx, wc[:], verbs.SpinAdaptive); err != nil {
		log.Fatal(err)
	}
	if err := verbs.WCErr(&wc[0]); err != nil {
		log.Fatal(err)
	}
	return wc[0]
}
