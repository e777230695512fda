package roce

import "golang.org/x/sys/unix"

// mayUseQKey says whether the calling thread may use a controlled Q_Key, one
// with the high bit: the kernel asks for CAP_NET_RAW.
func mayUseQKey() bool {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	return unix.Capget(&h, &d[0]) == nil && d[0].Effective&(1<<unix.CAP_NET_RAW) != 0
}
