//go:build !linux || !cgo

package ibv

func RSocket(domain, typ, proto int) (int, error)                     { return -1, stubError{} }
func RBind(s int, addr []byte) error                                  { return stubError{} }
func RListen(s, backlog int) error                                    { return stubError{} }
func RAccept(s int, addr *[SockAddrLen]byte) (int, int, error)        { return -1, 0, stubError{} }
func RConnect(s int, addr []byte) error                               { return stubError{} }
func RShutdown(s, how, channel int) error                             { return stubError{} }
func RClose(s, channel int) error                                     { return stubError{} }
func RRecv(s int, b []byte, flags int) (int, error)                   { return 0, stubError{} }
func RSend(s int, b []byte, flags int) (int, error)                   { return 0, stubError{} }
func RSendTo(s int, b []byte, flags int, addr []byte) (int, error)    { return 0, stubError{} }
func RRecvMsg(s int, bufs [][]byte, flags int) (int, error)           { return 0, stubError{} }
func RSendMsg(s int, bufs [][]byte, flags int) (int, error)           { return 0, stubError{} }
func RRead(s int, b []byte) (int, error)                              { return 0, stubError{} }
func RReadV(s int, bufs [][]byte) (int, error)                        { return 0, stubError{} }
func RWrite(s int, b []byte) (int, error)                             { return 0, stubError{} }
func RWriteV(s int, bufs [][]byte) (int, error)                       { return 0, stubError{} }
func RPoll(fds []PollFD, timeoutMS int) (int, error)                  { return 0, stubError{} }
func RSelect(nfds int, r, w, e *FDSet, timeoutMS int) (int, error)    { return 0, stubError{} }
func RGetPeerName(s int, addr *[SockAddrLen]byte) (int, error)        { return 0, stubError{} }
func RGetSockName(s int, addr *[SockAddrLen]byte) (int, error)        { return 0, stubError{} }
func RSetSockOpt(s, level, name int, v []byte) error                  { return stubError{} }
func RGetSockOpt(s, level, name int, v []byte) (int, error)           { return 0, stubError{} }
func RFcntl(s, cmd, arg int) (int, error)                             { return 0, stubError{} }
func RIOMap(s int, b []byte, prot, flags int, o int64) (int64, error) { return 0, stubError{} }
func RIOUnmap(s int, b []byte) error                                  { return stubError{} }
func RIOWrite(s int, b []byte, o int64, flags int) (int, error)       { return 0, stubError{} }
func RChannel(s int) int                                              { return -1 }
func REventFD() (int, error)                                          { return -1, stubError{} }
func RRecvFrom(s int, b []byte, flags int, addr *[SockAddrLen]byte) (int, int, error) {
	return 0, 0, stubError{}
}
