package wire

import (
	"fmt"
	"strconv"
)

var opcodeNames = [numOpcodes]string{
	RCSendFirst: "SEND_FIRST", RCSendMiddle: "SEND_MIDDLE", RCSendLast: "SEND_LAST", RCSendLastImm: "SEND_LAST_IMM",
	RCSendOnly: "SEND_ONLY", RCSendOnlyImm: "SEND_ONLY_IMM", RCWriteFirst: "WRITE_FIRST", RCWriteMiddle: "WRITE_MIDDLE",
	RCWriteLast: "WRITE_LAST", RCWriteLastImm: "WRITE_LAST_IMM", RCWriteOnly: "WRITE_ONLY", RCWriteOnlyImm: "WRITE_ONLY_IMM",
	RCReadRequest: "READ_REQUEST", RCReadRespFirst: "READ_RESPONSE_FIRST", RCReadRespMiddle: "READ_RESPONSE_MIDDLE",
	RCReadRespLast: "READ_RESPONSE_LAST", RCReadRespOnly: "READ_RESPONSE_ONLY", RCAck: "ACK", RCAtomicAck: "ATOMIC_ACK",
	RCCompareSwap: "COMPARE_SWAP", RCFetchAdd: "FETCH_ADD", RCSendLastInv: "SEND_LAST_INV", RCSendOnlyInv: "SEND_ONLY_INV",
	UCSendFirst: "UC_SEND_FIRST", UCSendMiddle: "UC_SEND_MIDDLE", UCSendLast: "UC_SEND_LAST", UCSendLastImm: "UC_SEND_LAST_IMM",
	UCSendOnly: "UC_SEND_ONLY", UCSendOnlyImm: "UC_SEND_ONLY_IMM", UCWriteFirst: "UC_WRITE_FIRST", UCWriteMiddle: "UC_WRITE_MIDDLE",
	UCWriteLast: "UC_WRITE_LAST", UCWriteLastImm: "UC_WRITE_LAST_IMM", UCWriteOnly: "UC_WRITE_ONLY", UCWriteOnlyImm: "UC_WRITE_ONLY_IMM",
	UDSendOnly: "UD_SEND_ONLY", UDSendOnlyImm: "UD_SEND_ONLY_IMM", CNP: "CNP",
}

// String is the operation; its service too, when that is not RC.
func (o Opcode) String() string {
	if n := opcodeNames[o]; n != "" {
		return n
	}
	return "opcode 0x" + strconv.FormatUint(uint64(o), 16)
}

// rnrMicros is the wait that an RNR NAK asks for, in microseconds, by its code.
var rnrMicros = [32]int{
	655360, 10, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 960, 1280, 1920,
	2560, 3840, 5120, 7680, 10240, 15360, 20480, 30720, 40960, 61440, 81920, 122880, 163840, 245760, 327680, 491520,
}

// SyndromeText says what the syndrome of an AETH means.
func SyndromeText(s uint8) string {
	code := s & 0x1f
	switch s >> 5 {
	case 0:
		if code == 0x1f {
			return "ok" // no credit count
		}
		return "ok credit=" + strconv.Itoa(int(code))
	case 1:
		return "RNR " + strconv.FormatFloat(float64(rnrMicros[code])/1000, 'f', -1, 64) + "ms"
	case 3:
		if int(code) < len(nakNames) {
			return "NAK " + nakNames[code]
		}
	}
	return "syndrome 0x" + strconv.FormatUint(uint64(s), 16)
}

var nakNames = []string{"sequence", "invalid request", "remote access", "remote operational", "invalid RD request"}

// String is the packet on one line, for people: operation, numbers, and the
// fields that the operation has.
func (p *Packet) String() string { return string(p.AppendText(nil, len(p.Payload))) }

// AppendText appends String's text, for a packet of n payload bytes.
func (p *Packet) AppendText(b []byte, n int) []byte {
	h := layout[p.Opcode]
	b = append(b, p.Opcode.String()...)
	b = fmt.Appendf(b, " qp=0x%x psn=%d", p.DestQP, p.PSN)
	if h&hasPayload != 0 {
		b = fmt.Appendf(b, " len=%d", n)
	}
	if h&hasDETH != 0 {
		b = fmt.Appendf(b, " from=0x%x qkey=0x%x", p.SrcQP, p.QKey)
	}
	if h&(hasRETH|hasAtomicETH) != 0 {
		b = fmt.Appendf(b, " va=0x%x rkey=0x%x", p.VA, p.RKey)
	}
	if h&hasRETH != 0 {
		b = fmt.Appendf(b, " dma=%d", p.DMALen)
	}
	switch p.Opcode {
	case RCCompareSwap:
		b = fmt.Appendf(b, " compare=0x%x swap=0x%x", p.Compare, p.Swap)
	case RCFetchAdd:
		b = fmt.Appendf(b, " add=0x%x", p.Swap)
	}
	if h&hasAETH != 0 {
		b = fmt.Appendf(b, " %s msn=%d", SyndromeText(p.Syndrome), p.MSN)
	}
	if h&hasAtomicAck != 0 {
		b = fmt.Appendf(b, " orig=0x%x", p.Orig)
	}
	if h&hasImm != 0 {
		b = fmt.Appendf(b, " imm=0x%x", p.Imm)
	}
	if h&hasIETH != 0 {
		b = fmt.Appendf(b, " invalidate=0x%x", p.RKey)
	}
	for _, f := range []struct {
		on   bool
		name string
	}{{p.Solicited, " solicited"}, {p.AckReq, " ackreq"}, {p.FECN, " FECN"}, {p.BECN, " BECN"}} {
		if f.on {
			b = append(b, f.name...)
		}
	}
	return b
}
