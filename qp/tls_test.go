package qp

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// authority signs certificates for the name "peer".
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{}
	a.key = must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, tmpl, tmpl, &a.key.PublicKey, a.key))
	a.cert = must[*x509.Certificate](t)(x509.ParseCertificate(der))
	return a
}

func (a *authority) issue(t *testing.T) tls.Certificate {
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{"peer"}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// A connection is made only when each side has verified the other's certificate.
func TestExchangeTLS(t *testing.T) {
	good, other := newAuthority(t), newAuthority(t)
	server := func(a *authority, auth tls.ClientAuthType) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{a.issue(t)}, ClientCAs: good.pool(), ClientAuth: auth}
	}
	client := func(a *authority) *tls.Config {
		c := &tls.Config{RootCAs: good.pool(), ServerName: "peer"}
		if a != nil {
			c.Certificates = []tls.Certificate{a.issue(t)}
		}
		return c
	}
	old := client(good)
	old.MaxVersion = tls.VersionTLS12
	blind := client(good)
	blind.InsecureSkipVerify = true
	for _, c := range []struct {
		name           string
		server, client *tls.Config
		ok             bool
	}{
		{"mutual", server(good, tls.RequireAndVerifyClientCert), client(good), true},
		{"client without certificate", server(good, tls.RequireAndVerifyClientCert), client(nil), false},
		{"client of another authority", server(good, tls.RequireAndVerifyClientCert), client(other), false},
		{"server of another authority", server(other, tls.RequireAndVerifyClientCert), client(good), false},
		{"server that asks for nothing", server(good, tls.NoClientCert), client(good), false},
		{"server that verifies nothing", server(good, tls.RequireAnyClientCert), client(good), false},
		{"client that verifies nothing", server(good, tls.RequireAndVerifyClientCert), blind, false},
		{"TLS 1.2", server(good, tls.RequireAndVerifyClientCert), old, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			da, db := devices(t)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
			defer l.Close()
			type result struct {
				c   *Conn
				err error
			}
			served := make(chan result, 1)
			go func() {
				nc, err := l.Accept()
				if err != nil {
					served <- result{nil, err}
					return
				}
				c, err := db.Exchange(ctx, tls.Server(nc, c.server), Config{})
				served <- result{c, err}
			}()
			nc := must[net.Conn](t)(net.Dial("tcp", l.Addr().String()))
			a, err := da.Exchange(ctx, tls.Client(nc, c.client), Config{})
			r := <-served
			if !c.ok {
				require.False(t, err == nil && r.err == nil, "both sides connected")
				require.Error(t, err)
				require.Error(t, r.err)
				require.Empty(t, da.Conns())
				require.Empty(t, db.Conns())
				return
			}
			require.NoError(t, err)
			require.NoError(t, r.err)
			require.NoError(t, a.SendBytes(ctx, []byte("secret")))
			m, err := r.c.Recv(ctx)
			require.NoError(t, err)
			require.NoError(t, m.Buf.Release())
			require.NoError(t, r.c.Close())
			<-a.Done()
			require.ErrorIs(t, a.Err(), ErrPeerClosed)
			require.NoError(t, a.Close())
		})
	}
}
