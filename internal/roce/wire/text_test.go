package wire

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestText(t *testing.T) {
	for want, p := range map[string]Packet{
		"SEND_ONLY qp=0x11 psn=7 len=3 solicited ackreq":                   {Opcode: RCSendOnly, DestQP: 0x11, PSN: 7, Payload: make([]byte, 3), Solicited: true, AckReq: true},
		"WRITE_ONLY_IMM qp=0x1 psn=0 len=0 va=0x10 rkey=0x2 dma=0 imm=0x5": {Opcode: RCWriteOnlyImm, DestQP: 1, VA: 16, RKey: 2, Imm: 5},
		"ACK qp=0x1 psn=9 ok msn=4":                                        {Opcode: RCAck, DestQP: 1, PSN: 9, Syndrome: 0x1f, MSN: 4},
		"ACK qp=0x1 psn=9 ok credit=3 msn=4":                               {Opcode: RCAck, DestQP: 1, PSN: 9, Syndrome: 3, MSN: 4},
		"ACK qp=0x1 psn=9 RNR 0.01ms msn=0":                                {Opcode: RCAck, DestQP: 1, PSN: 9, Syndrome: 0x21},
		"ACK qp=0x1 psn=9 NAK remote access msn=0":                         {Opcode: RCAck, DestQP: 1, PSN: 9, Syndrome: 0x62},
		"ACK qp=0x1 psn=9 syndrome 0x7f msn=0":                             {Opcode: RCAck, DestQP: 1, PSN: 9, Syndrome: 0x7f},
		"COMPARE_SWAP qp=0x0 psn=0 va=0x8 rkey=0x0 compare=0x1 swap=0x2":   {Opcode: RCCompareSwap, VA: 8, Compare: 1, Swap: 2},
		"FETCH_ADD qp=0x0 psn=0 va=0x8 rkey=0x0 add=0x2":                   {Opcode: RCFetchAdd, VA: 8, Swap: 2},
		"ATOMIC_ACK qp=0x0 psn=0 ok msn=0 orig=0x2":                        {Opcode: RCAtomicAck, Syndrome: 0x1f, Orig: 2},
		"SEND_ONLY_INV qp=0x0 psn=0 len=0 invalidate=0x2":                  {Opcode: RCSendOnlyInv, RKey: 2},
		"UD_SEND_ONLY qp=0x1 psn=0 len=0 from=0x2 qkey=0x80010000":         {Opcode: UDSendOnly, DestQP: 1, SrcQP: 2, QKey: 0x80010000},
		"opcode 0x1f qp=0x0 psn=0":                                         {Opcode: 0x1f},
	} {
		require.Equal(t, want, p.String())
	}
	for o := range numOpcodes {
		if o := Opcode(o); o.Known() == strings.HasPrefix(o.String(), "opcode") {
			t.Errorf("%#x is %s", uint8(o), o)
		}
	}
}
