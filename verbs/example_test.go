package verbs_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/zrdma/zrdma/verbs"
)

// Memory is registered in a domain, and parents close after their children.
func Example() {
	dev, err := verbs.Open("soft:127.0.12.1")
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	pd, err := dev.AllocPD()
	if err != nil {
		log.Fatal(err)
	}
	mr, err := pd.RegMR(make([]byte, 4096), verbs.AccessLocalWrite)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(mr.SGE(0, 100).Length, "bytes, with a key:", mr.LKey() != 0)
	fmt.Println(errors.Is(pd.Close(), verbs.ErrInUse)) // a region of it is open
	fmt.Println(mr.Close(), pd.Close())
	_, err = dev.CreateCQ(1<<30, nil) // what is wrong comes out as an error with the verb
	fmt.Println(err != nil)
	// Output:
	// 100 bytes, with a key: true
	// true
	// <nil> <nil>
	// true
}

// An unreliable datagram to oneself: the steps of every queue pair.
func ExampleQP() {
	dev, err := verbs.Open("soft:127.0.12.1")
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	pd := must(dev.AllocPD())
	defer pd.Close()
	ch := must(dev.CreateCompChannel())
	defer ch.Close()
	cq := must(dev.CreateCQ(16, &verbs.CQConfig{Channel: ch}))
	defer cq.Close()
	qp := must(pd.CreateQP(verbs.QPConfig{Type: verbs.QPTUD, SendCQ: cq, RecvCQ: cq,
		Cap: verbs.QPCap{MaxSendWR: 4, MaxRecvWR: 4, MaxSendSGE: 1, MaxRecvSGE: 1, MaxInlineData: 64}}))
	defer qp.Close()
	const qkey = 0x11111111
	check(qp.Modify(verbs.QPAttr{State: verbs.QPSInit, PortNum: 1, QKey: qkey}, verbs.QPAttrState|verbs.QPAttrPKeyIndex|verbs.QPAttrPort|verbs.QPAttrQKey))
	check(qp.Modify(verbs.QPAttr{State: verbs.QPSRTR}, verbs.QPAttrState))
	check(qp.Modify(verbs.QPAttr{State: verbs.QPSRTS}, verbs.QPAttrState|verbs.QPAttrSQPSN))

	in := make([]byte, 40+64) // a datagram comes behind a routing header
	mr := must(pd.RegMR(in, verbs.AccessLocalWrite))
	defer mr.Close()
	must(qp.PostRecv([]verbs.RecvWR{{ID: 1, SGList: []verbs.SGE{mr.SGE(0, len(in))}}}))
	gid := must(dev.QueryGID(1, 0))
	ah := must(pd.CreateAH(verbs.AHAttr{IsGlobal: true, PortNum: 1, GRH: verbs.GlobalRoute{DGID: gid, HopLimit: 1}}))
	defer ah.Close()
	must(qp.PostSend([]verbs.SendWR{{ID: 2, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, Inline: []byte("hello"),
		AH: ah, RemoteQPN: qp.QPN(), RemoteQKey: qkey}}))

	var wc [4]verbs.WC
	for done := 0; done < 2; {
		n := must(cq.Wait(context.Background(), wc[:], verbs.SpinAdaptive))
		for i := range wc[:n] {
			check(verbs.WCErr(&wc[i]))
			if wc[i].WRID == 1 {
				fmt.Printf("%s\n", in[40:wc[i].ByteLen])
			}
		}
		done += n
	}
	// Output: hello
}

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
