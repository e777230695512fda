package rsocket

import "testing"

func TestAffectedLibraries(t *testing.T) {
	for so, want := range map[string]bool{
		"/usr/lib/librdmacm.so.1.3.44.0":  true,
		"/usr/lib/librdmacm.so.1.3.44.6":  true,
		"/usr/lib/librdmacm.so.1.3.44.7":  false,
		"/usr/lib/librdmacm.so.1.3.39.0":  true,
		"/usr/lib/librdmacm.so.1.3.50.0":  true,
		"/usr/lib/librdmacm.so.1.3.50.2":  false,
		"/usr/lib/librdmacm.so.1.3.53.0":  false,
		"/usr/lib/librdmacm.so.1.4.100.1": false,
		"/opt/librdmacm.so.1":             true,
		"":                                true,
	} {
		maps := "7f0000000000-7f0000001000 r-xp 00000000 fe:00 1  /usr/lib/libibverbs.so.1.14.60.0\n7f00-7f01 r-xp 0 fe:00 2  " + so + "\n"
		if got := affected(maps); got != want {
			t.Errorf("%q: affected %v, want %v", so, got, want)
		}
	}
}

func TestSeats(t *testing.T) {
	var s seats
	s.room.Store(2)
	for i, want := range []bool{true, true, false} {
		if s.take() != want {
			t.Fatalf("take %d of two seats is not %v", i+1, want)
		}
	}
	s.leave()
	if !s.take() {
		t.Fatal("a seat that was left is not free")
	}
}
