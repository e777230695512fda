package prom_test

import (
	"fmt"
	"log"

	"github.com/prometheus/client_golang/prometheus"

	prom "github.com/zrdma/zrdma/contrib/prometheus"
	"github.com/zrdma/zrdma/qp"
)

// A device's counts at a registry, which promhttp.HandlerFor serves.
func Example() {
	dev, err := qp.Open(qp.DeviceConfig{Name: "soft:127.0.12.41"})
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	c := prom.New()
	defer c.Device("storage", dev)() // what it returns takes the device out again
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "zrdma_qp_connections" {
			fmt.Println(f.GetHelp(), f.GetMetric()[0].GetGauge().GetValue())
		}
	}
	// Output: Connections that are open. 0
}
