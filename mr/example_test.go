package mr_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/verbs"
)

// What a poster does with a Buf; package qp does it for you.
func Example() {
	ctx := context.Background()
	dev, err := verbs.Open("soft:127.0.0.1")
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	pd, err := dev.AllocPD()
	if err != nil {
		log.Fatal(err)
	}
	defer pd.Close()
	pool, err := mr.NewPool(mr.PoolConfig{Limit: 32 << 20}, pd)
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()

	buf, err := pool.Get(ctx, 5)
	if err != nil {
		log.Fatal(err)
	}
	b, _ := buf.Bytes()
	copy(b, "hello")

	flight, err := buf.Take(mr.DeviceReads) // from here on it is the device's
	if err != nil {
		log.Fatal(err)
	}
	sge, _ := flight.SGE(pd)
	_, err = buf.Bytes()
	fmt.Println(sge.Length, errors.Is(err, mr.ErrMoved))
	// ... post sge, and wait for its completion ...
	buf = flight.Complete() // only the completion makes a new Buf

	fmt.Println(buf.Release(), errors.Is(buf.Release(), mr.ErrMoved))
	// Output:
	// 5 true
	// <nil> true
}
