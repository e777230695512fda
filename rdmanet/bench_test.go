package rdmanet

import (
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// peers are the connections that are measured: beside ours, TCP on loopback.
func peers(b *testing.B, f func(b *testing.B, client, server net.Conn)) {
	run := func(name string, pair func(b *testing.B) (client, server net.Conn)) {
		b.Run(name, func(b *testing.B) {
			c, s := pair(b)
			b.ReportAllocs()
			f(b, c, s)
		})
	}
	run("tcp", func(b *testing.B) (client, server net.Conn) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		defer l.Close()
		client, err = net.Dial("tcp", l.Addr().String())
		require.NoError(b, err)
		server, err = l.Accept()
		require.NoError(b, err)
		b.Cleanup(func() { client.Close(); server.Close() })
		return client, server
	})
	name := testDevice()
	if name == "" {
		name = "udp"
		run("memory", func(b *testing.B) (client, server net.Conn) {
			p, _, _, _ := memory(b)
			return p.pair(b, Config{})
		})
	}
	run(name, func(b *testing.B) (client, server net.Conn) { return here(b).pair(b, Config{}) })
}

// used is the processor time of this process, user and system.
func used() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkStream is 64 KiB writes one way.
func BenchmarkStream(b *testing.B) {
	const size = 64 << 10
	peers(b, func(b *testing.B, client, server net.Conn) {
		b.SetBytes(size)
		data, in := make([]byte, size), make([]byte, size)
		start := used()
		b.ResetTimer()
		go func() {
			for range b.N {
				if _, err := client.Write(data); err != nil {
					b.Error(err)
					return
				}
			}
		}()
		for range b.N {
			if _, err := io.ReadFull(server, in); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		b.ReportMetric(float64(used()-start)/float64(b.N)/size, "cpu-s/GB")
	})
}

// BenchmarkPingPong is 64 bytes there and back.
func BenchmarkPingPong(b *testing.B) {
	peers(b, func(b *testing.B, client, server net.Conn) {
		start := used()
		b.ResetTimer()
		go func() {
			var p [64]byte
			for range b.N {
				_, err := io.ReadFull(server, p[:])
				if err == nil {
					_, err = server.Write(p[:])
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		}()
		var p [64]byte
		for range b.N {
			_, err := client.Write(p[:])
			if err == nil {
				_, err = io.ReadFull(client, p[:])
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		b.ReportMetric(float64(used()-start)/float64(b.N)/1000, "cpu-us/op")
	})
}
