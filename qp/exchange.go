package qp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// exchangeSize is a preamble and an endpoint.
const exchangeSize = 8 + EndpointLen

var exchangeMagic = [8]byte{'z', 'r', 'd', 'm', 'a', 'q', 'p', 1}

// Exchange connects over a stream that both sides have open, each calling it:
// the endpoints cross it, a last byte each way says that the queue pair is
// ready, and from then on it only tells that the peer is there: when it ends, so
// does the connection, and the other way round. Exchange takes nc in any case.
//
// Whoever can write into the stream decides who is at the other end, and the
// keys to memory that the two sides give each other later are theirs to use. So
// nc must be a *tls.Conn with a certificate of the peer that was verified, on
// both sides; ExchangeUnsafe takes anything.
func (d *Device) Exchange(ctx context.Context, nc *tls.Conn, cfg Config) (*Conn, error) {
	if err := nc.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("qp: exchange: %w", err)
	}
	s := nc.ConnectionState()
	if s.Version < tls.VersionTLS13 || len(s.VerifiedChains) == 0 {
		_ = nc.Close()
		return nil, errors.New("qp: exchange: the peer is not authenticated: use TLS 1.3 and, on the server, tls.Config.ClientAuth RequireAndVerifyClientCert")
	}
	return d.ExchangeUnsafe(ctx, nc, cfg)
}

// ExchangeUnsafe is Exchange over any stream, a plain TCP connection for
// instance: the peer is not authenticated.
func (d *Device) ExchangeUnsafe(ctx context.Context, nc net.Conn, cfg Config) (_ *Conn, err error) {
	defer func() {
		if err != nil {
			_ = nc.Close()
			if ctx.Err() != nil {
				err = errors.Join(ctx.Err(), err)
			}
		}
	}()
	local := localIP(nc)
	if _, err := d.dev.SelectGID(d.port, local); err != nil {
		local = netip.Addr{} // the stream goes over another network
	}
	p, err := d.Prepare(local, cfg)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	mine, _ := p.Local().MarshalBinary()
	var in [exchangeSize]byte
	if err := swap(nc, append(exchangeMagic[:len(exchangeMagic):len(exchangeMagic)], mine...), in[:]); err != nil {
		return nil, fmt.Errorf("qp: exchange: the peer sent no endpoint: %w", err)
	}
	if [8]byte(in[:8]) != exchangeMagic {
		return nil, fmt.Errorf("qp: exchange: what the peer sent is no endpoint (%q): %w", in[:8], ErrVersion)
	}
	var remote Endpoint
	if err := remote.UnmarshalBinary(in[8:]); err != nil {
		return nil, err
	}
	c, err := p.Connect(remote)
	if err != nil {
		return nil, err
	}
	// Ready both ways: a message sent before the peer can take it waits for a
	// retry, and one that was lost so is hard to find.
	if err := swap(nc, []byte{1}, in[:1]); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("qp: exchange: the peer did not get ready: %w", err)
	}
	if !stop() {
		_ = c.Close()
		return nil, fmt.Errorf("qp: exchange: %w", ctx.Err())
	}
	_ = nc.SetDeadline(time.Time{})
	c.onHangUp(func() { _ = nc.Close() })
	go func() {
		var b [1]byte
		_, err := nc.Read(b[:])
		if err == nil || errors.Is(err, io.EOF) || c.Err() != nil {
			err = ErrPeerClosed
		}
		c.end(err)
		_ = nc.Close()
	}()
	return c, nil
}

// swap writes out and reads in, at the same time: a stream may have no room for
// what the peer has not read.
func swap(nc net.Conn, out, in []byte) error {
	wrote := make(chan error, 1)
	go func() {
		_, err := nc.Write(out)
		wrote <- err
	}()
	_, err := io.ReadFull(nc, in)
	if err != nil {
		_ = nc.Close() // the write may be stuck
	}
	return errors.Join(err, <-wrote)
}

// localIP is the address that the stream uses, so that the queue pair takes the
// same path where it can.
func localIP(nc net.Conn) netip.Addr {
	if a, ok := nc.LocalAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
