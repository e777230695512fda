package softroce

import (
	"strings"
	"testing"

	"github.com/zrdma/zrdma/test/softroce/internal/guest"
)

func TestConsole(t *testing.T) {
	c := newConsole(strings.NewReader("boot\r\n" + guest.Alive + "\r\n" + strings.Repeat("x\r\n", 100) + guest.Failed + "load module: no\r\nend"))
	<-c.done
	<-c.alive
	<-c.failed
	if got := c.why(); got != "load module: no" {
		t.Errorf("why: %q", got)
	}
	if end := c.end(); !strings.HasSuffix(end, "\n  | end") || strings.Contains(end, "boot") || strings.Contains(end, "\r") {
		t.Errorf("end: %q", end)
	}
	empty := newConsole(strings.NewReader(""))
	<-empty.done
	if end := empty.end(); end != "the console is empty" {
		t.Errorf("of nothing: %q", end)
	}
}

func TestComplaints(t *testing.T) {
	for line, bad := range map[string]bool{
		"[    1.000000] WARNING: CPU: 0 PID: 1 at drivers/infiniband/sw/rxe/rxe_pool.c:231 x": true,
		"[    1.000000] BUG: unable to handle page fault for address: 0":                      true,
		"[   12.000000] Oops: 0002 [#1] PREEMPT SMP":                                          true,
		"[    1.000000] kernel BUG at mm/slub.c:1!":                                           true,
		"[    1.000000] INFO: task a:1 blocked for more than 120 seconds.":                    true,
		"[    1.000000] Kernel panic - not syncing: sysrq triggered crash":                    true,
		"[    1.000000] rdma_rxe: loaded":                                                     false,
		"[    1.000000] spectre: WARNING in the middle":                                       false,
	} {
		var l kernelLog
		l.add([]byte(line + "\n"))
		text, got := l.snapshot()
		if (len(got) == 1) != bad || text != line+"\n" {
			t.Errorf("%q: %q", line, got)
		}
	}
}
