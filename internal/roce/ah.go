package roce

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"github.com/zrdma/zrdma/internal/provider"
)

// ah is an address handle. Requests copy what it says when they are posted.
type ah struct {
	n    *node
	id   uint64
	path path
}

// pathOf turns an address into the link and the address to send to.
func (n *node) pathOf(a *provider.AHAttr) (path, bool) {
	i := int(a.GRH.SGIDIndex)
	if !a.IsGlobal || a.PortNum > devicePort || i >= len(n.links) || a.GRH.DGID.IsZero() {
		return path{}, false
	}
	dst := a.GRH.DGID.Addr()
	if dst.Is6() && (dst.IsLinkLocalUnicast() || dst.IsLinkLocalMulticast()) {
		dst = dst.WithZone(n.links[i].Addr().Zone())
	}
	return path{link: i, dst: dst}, true
}

// CreateAH makes an address handle.
//
// Verb: ibv_create_ah(3).
func (p *pd) CreateAH(a *provider.AHAttr) (provider.AH, error) {
	n := p.n
	n.mu.Lock()
	defer n.mu.Unlock()
	w, ok := n.pathOf(a)
	if !ok || a.PortNum != devicePort {
		return nil, syscall.EINVAL
	}
	if len(n.ahs) >= maxAH {
		return nil, syscall.ENOMEM
	}
	n.lastAH++
	h := &ah{n: n, id: n.lastAH, path: w}
	n.ahs[h.id] = h
	return h, nil
}

// CreateAHFromWC makes an address handle for the sender of a received message.
//
// Verb: ibv_create_ah_from_wc(3).
func (p *pd) CreateAHFromWC(wc *provider.WC, grh *[40]byte, port uint8) (provider.AH, error) {
	a, err := p.n.ahFromWC(port, wc, grh)
	if err != nil {
		return nil, err
	}
	return p.CreateAH(&a)
}

func (h *ah) Handle() uint64 { return h.id }

func (h *ah) Close() error {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	delete(h.n.ahs, h.id)
	return nil
}

// InitAHFromWC gives the address of the sender of a received message.
//
// Verb: ibv_init_ah_from_wc(3).
func (c *devCtx) InitAHFromWC(port uint8, wc *provider.WC, grh *[40]byte) (provider.AHAttr, error) {
	return c.n.ahFromWC(port, wc, grh)
}

func (n *node) ahFromWC(port uint8, wc *provider.WC, grh *[40]byte) (a provider.AHAttr, err error) {
	if port != devicePort || wc.Flags&provider.WCGRH == 0 || grh == nil {
		return a, syscall.EINVAL
	}
	src, dst, class, ok := parseGRH(grh)
	if !ok {
		return a, syscall.EINVAL
	}
	i := -1
	for k, l := range n.links {
		own := l.Addr().WithZone("")
		if own == dst || i < 0 && dst.IsMulticast() && own.Is4() == dst.Is4() {
			i = k
		}
	}
	if i < 0 {
		return a, syscall.EINVAL
	}
	a = provider.AHAttr{IsGlobal: true, PortNum: port, SL: wc.SL, DLID: wc.SLID, SrcPathBits: wc.DLIDPathBits}
	a.GRH = provider.GlobalRoute{DGID: provider.GIDFromAddr(src), SGIDIndex: uint8(i), HopLimit: 0xff, TrafficClass: class}
	if src.Is6() {
		a.GRH.FlowLabel = binary.BigEndian.Uint32(grh[:]) & 0xfffff
	}
	return a, nil
}

// ResolveEthL2 has no answer: the operating system's sockets find the way.
//
// Verb: ibv_resolve_eth_l2_from_gid(3).
func (c *devCtx) ResolveEthL2(*provider.AHAttr) (mac [6]byte, vid uint16, err error) {
	return mac, 0, syscall.EOPNOTSUPP
}

// The 40 bytes in front of a received datagram are an IPv6 header, or an IPv4
// header in the last 20 of them.
const grhSize = 40

// putGRH writes them for a datagram of size bytes behind the UDP header. Hop
// limit and traffic class are not known: the socket does not tell.
func putGRH(b *[grhSize]byte, src, dst netip.Addr, size int) {
	*b = [grhSize]byte{}
	if dst.Is4() {
		h := b[20:]
		h[0], h[8], h[9] = 0x45, 64, 17
		binary.BigEndian.PutUint16(h[2:], uint16(20+8+size))
		h[6] = 0x40 // do not fragment
		s, d := src.As4(), dst.As4()
		copy(h[12:], s[:])
		copy(h[16:], d[:])
		var sum uint32
		for i := 0; i < 20; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(h[i:]))
		}
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		binary.BigEndian.PutUint16(h[10:], ^uint16(sum))
		return
	}
	b[0], b[6], b[7] = 0x60, 17, 64
	binary.BigEndian.PutUint16(b[4:], uint16(8+size))
	s, d := src.As16(), dst.As16()
	copy(b[8:], s[:])
	copy(b[24:], d[:])
}

func parseGRH(b *[grhSize]byte) (src, dst netip.Addr, class uint8, ok bool) {
	switch {
	case b[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), b[0]<<4 | b[1]>>4, true
	case b[20] == 0x45:
		return netip.AddrFrom4([4]byte(b[32:36])), netip.AddrFrom4([4]byte(b[36:40])), b[21], true
	}
	return src, dst, 0, false
}
