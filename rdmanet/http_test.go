package rdmanet

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// net/http, plain, over TLS and as HTTP/2 over TLS, with bodies both ways.
func TestHTTP(t *testing.T) {
	body := noise(1<<18 + 1)
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Proto", r.Proto)
		w.Header().Set("Peer", r.RemoteAddr)
		b, err := io.ReadAll(r.Body) // HTTP/1 servers read no more once they answer
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(b)
	})
	for _, x := range []struct {
		name, proto string
		start       func(*httptest.Server)
	}{
		{"plain", "HTTP/1.1", (*httptest.Server).Start},
		{"TLS", "HTTP/1.1", (*httptest.Server).StartTLS},
		{"HTTP2", "HTTP/2.0", func(s *httptest.Server) { s.EnableHTTP2 = true; s.StartTLS() }},
	} {
		t.Run(x.name, func(t *testing.T) {
			places(t, func(t *testing.T, p *place) {
				s := httptest.NewUnstartedServer(echo)
				require.NoError(t, s.Listener.Close())
				s.Listener = p.listen(t, Config{})
				x.start(s)
				defer s.Close()
				tr := &http.Transport{DialContext: p.dialer(Config{}).DialContext, ForceAttemptHTTP2: s.EnableHTTP2, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
				defer tr.CloseIdleConnections()
				for range 2 {
					r, err := (&http.Client{Transport: tr}).Post(s.URL, "application/octet-stream", bytes.NewReader(body))
					require.NoError(t, err)
					got, err := io.ReadAll(r.Body)
					require.NoError(t, err)
					require.NoError(t, r.Body.Close())
					require.True(t, bytes.Equal(body, got))
					require.Equal(t, x.proto, r.Header.Get("Proto"))
					require.NotEmpty(t, r.Header.Get("Peer"))
				}
			})
		})
	}
}
