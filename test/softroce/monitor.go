package softroce

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"time"
)

// monitor speaks QEMU's machine protocol (QMP): a line of JSON each way.
type monitor struct {
	mu   sync.Mutex // held for a command and its answer
	conn net.Conn
	dec  *json.Decoder // nil until the first command
}

// monitorPatience is for an answer: QEMU gives it at once, unless it is stuck.
const monitorPatience = 30 * time.Second

func (m *monitor) do(ctx context.Context, command string, args any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	deadline := time.Now().Add(monitorPatience)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := m.conn.SetDeadline(deadline); err != nil {
		return err
	}
	if m.dec == nil {
		m.dec = json.NewDecoder(m.conn)
		var greeting struct{ QMP json.RawMessage }
		if err := m.dec.Decode(&greeting); err != nil {
			return fmt.Errorf("QEMU's monitor: %w", err)
		}
		if err := m.ask("qmp_capabilities", nil); err != nil {
			return err
		}
	}
	return m.ask(command, args)
}

func (m *monitor) ask(command string, args any) error {
	b, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, args})
	if err != nil {
		return err
	}
	if _, err := m.conn.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("QEMU's monitor: %w", err)
	}
	for {
		var answer struct {
			Return json.RawMessage `json:"return"`
			Error  *struct {
				Desc string `json:"desc"`
			} `json:"error"` // neither: an event
		}
		if err := m.dec.Decode(&answer); err != nil {
			return fmt.Errorf("QEMU's monitor: %s: %w", command, err)
		}
		switch {
		case answer.Error != nil:
			return fmt.Errorf("QEMU's monitor: %s: %s", command, answer.Error.Desc)
		case answer.Return != nil:
			return nil
		}
	}
}

// SetCarrier pulls the cable of a card, or plugs it in: the guest sees the
// carrier go, and rxe's port with it. (A card that the guest itself sets down
// keeps packets that it had to send, and rxe's queue pairs cannot be destroyed
// meanwhile.) A restarted VM has its cables plugged in.
func (h *Host) SetCarrier(ctx context.Context, card int, on bool) error {
	if card < 0 || card >= h.cluster.cfg.Rxe {
		return h.wrap("carrier", nil, fmt.Errorf("there is no card %d", card))
	}
	_, v, err := h.up()
	if err != nil {
		return err
	}
	if err := v.monitor.do(ctx, "set_link", map[string]any{"name": fmt.Sprintf("n%d", card), "up": on}); err != nil {
		return h.wrap("carrier", v, err)
	}
	return nil
}
