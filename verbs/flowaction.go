package verbs

import (
	"syscall"

	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/provider"
)

// ESPFlags say what an ESP action does. Zero: inline crypto, tunnel mode, decrypt.
//
// Source: enum ibv_flow_action_esp_flags.
type ESPFlags = provider.ESPFlags

// Values of ESPFlags.
const (
	ESPFullOffload  = provider.ESPFullOffload
	ESPTransport    = provider.ESPTransport
	ESPEncrypt      = provider.ESPEncrypt
	ESPESNNewWindow = provider.ESPESNNewWindow
)

// AESGCM is the key material of an ESP action.
//
// Source: struct ibv_flow_action_esp_keymat_aes_gcm.
type AESGCM struct {
	Key    []byte // 16, 24 or 32 bytes
	IV     uint64 // the first; later ones count up
	Salt   uint32
	ICVLen uint32 // bytes of the integrity check value: 8, 12 or 16
}

// ESPConfig describes what an ESP action does.
//
// Source: struct ibv_flow_action_esp_attr.
type ESPConfig struct {
	SPI, Seq      uint32
	TFCPad        uint32 // traffic flow confidentiality padding, bytes
	Flags         ESPFlags
	HardLimitPkts uint64  // packets after which the action ends; 0: none
	AESGCM        *AESGCM // nil: leave as it is (modify)
	ReplayWindow  uint32  // bits; 0: no replay protection
	ESN           *uint32 // high half of extended sequence numbers; nil: not used
	// Encap are the headers that tunnel mode adds, outermost first: the Val of
	// matches, at most 8.
	Encap []FlowSpec
}

func (c *ESPConfig) flat(verb string) (*provider.ESPAttr, []provider.ESPEncap, error) {
	a := &provider.ESPAttr{SPI: c.SPI, Seq: c.Seq, TFCPad: c.TFCPad, Flags: c.Flags, HardLimitPkts: c.HardLimitPkts, ReplaySize: c.ReplayWindow}
	if k := c.AESGCM; k != nil {
		switch len(k.Key) {
		case 16, 24, 32:
		default:
			return nil, nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "an AES key has 16, 24 or 32 bytes"}
		}
		a.HasKeymat, a.IV, a.Salt, a.ICVLen, a.KeyLen = 1, k.IV, k.Salt, k.ICVLen, uint32(len(k.Key))
		copy(a.Key[:], k.Key)
	}
	if c.ESN != nil {
		const maskESN = 1 // IBV_FLOW_ACTION_ESP_MASK_ESN
		a.CompMask, a.ESN = maskESN, *c.ESN
	}
	var encap []provider.ESPEncap
	for _, s := range c.Encap {
		var f provider.FlowSpec
		if s != nil {
			f, _ = s.encode()
		}
		if f.Mask == nil || len(f.Val) > len(provider.ESPEncap{}.Val) || len(encap) == 8 {
			return nil, nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "ESPConfig.Encap holds at most 8 matches, no actions"}
		}
		e := provider.ESPEncap{Type: uint16(f.Type), Len: uint16(len(f.Val))}
		copy(e.Val[:], f.Val)
		encap = append(encap, e)
	}
	return a, encap, nil
}

// FlowAction is an action that steering rules do to packets: see HandleAction.
type FlowAction struct {
	h handle.Handle
	p provider.FlowAction
}

// CreateFlowActionESP makes an action that encrypts or decrypts ESP packets. The
// key is copied and not kept here.
//
// Verb: ibv_create_flow_action_esp(3).
func (c *Context) CreateFlowActionESP(cfg ESPConfig) (*FlowAction, error) {
	const verb = "ibv_create_flow_action_esp"
	if cfg.AESGCM == nil {
		return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "ESPConfig.AESGCM is required"}
	}
	a, encap, err := cfg.flat(verb)
	if err != nil {
		return nil, err
	}
	defer clear(a.Key[:])
	p, err := createRare(&c.h, verb, c.p, func(i provider.FlowActionCreator) (provider.FlowAction, error) {
		return i.CreateFlowActionESP(a, encap)
	})
	if err != nil {
		return nil, err
	}
	f := &FlowAction{p: p}
	if err := adopt(&f.h, "verbs.FlowAction", verb, p, &c.h); err != nil {
		return nil, err
	}
	watch(f, &f.h)
	return f, nil
}

// ModifyESP changes the action, also while rules use it.
//
// Verb: ibv_modify_flow_action_esp(3).
func (f *FlowAction) ModifyESP(cfg ESPConfig) error {
	const verb = "ibv_modify_flow_action_esp"
	a, encap, err := cfg.flat(verb)
	if err != nil {
		return err
	}
	defer clear(a.Key[:])
	if err := enter(&f.h, verb); err != nil {
		return err
	}
	defer f.h.Exit()
	return verbErr(verb, f.p.ModifyESP(a, encap))
}

// Close frees the action: ErrInUse while a rule uses it.
//
// Verb: ibv_destroy_flow_action(3).
func (f *FlowAction) Close() error { return verbErr("ibv_destroy_flow_action", f.h.Close(f.p.Close)) }
