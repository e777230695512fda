package doctor

import "golang.org/x/sys/unix"

func memlock() (Limit, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &r); err != nil {
		return Limit{}, err
	}
	return Limit{Bytes: r.Cur, Unlimited: r.Cur == unix.RLIM_INFINITY}, nil
}
