package suite_test

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/bridge"
	"github.com/zrdma/zrdma/internal/ibv"
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/verbs"
)

// rare calls every verb that the device does not have. What needs an object that
// it cannot make is called on a hollow one, see ibv.Hollow; the software device
// has no such thing: there is nothing behind the type assertion to call.
func rare(t *testing.T, e *env, run func(verb string, want error, f func() error)) {
	cq := e.cq(16, nil)
	rc := e.qp(verbs.QPConfig{})
	mr := e.mr(4096, allAccess)
	srq, err := e.pd.CreateSRQ(verbs.SRQConfig{Attr: verbs.SRQAttr{MaxWR: 4}})
	require.NoError(t, err)
	e.closeAtEnd(srq)
	cmd, cmdFD := e.commandFile()
	pctx := bridge.Inner(e.ctx).(provider.Context)
	ppd := bridge.Inner(e.pd).(provider.PD)
	h := ibv.NewHollow(pctx)
	require.True(t, h != nil || e.soft, "this case knows rxe and the software device")

	no := errors.ErrUnsupported
	table := []struct {
		verb   string
		f      func() (any, error)
		hollow bool // needs h, or is there on the software device
	}{
		{"ibv_alloc_td", func() (any, error) { return e.ctx.AllocTD() }, false},
		{"ibv_dealloc_td", func() (any, error) { return nil, h.TD.Close() }, true},
		{"ibv_alloc_parent_domain", func() (any, error) { return e.pd.AllocParentDomain(nil) }, false},
		{"ibv_import_device", func() (any, error) { return verbs.ImportDevice(cmdFD) }, true},
		{"ibv_import_pd", func() (any, error) { return e.ctx.ImportPD(0) }, false},
		{"ibv_import_mr", func() (any, error) { return e.pd.ImportMR(0) }, false},
		{"ibv_import_dm", func() (any, error) { return e.ctx.ImportDM(0, 4096) }, false},
		{"ibv_reg_dmabuf_mr", func() (any, error) { return e.pd.RegDmabufMR(0, 0, 4096, 0, verbs.AccessLocalWrite) }, true},
		{"ibv_rereg_mr", func() (any, error) {
			err := mr.Rereg(verbs.ReregMRChangeAccess, verbs.ReregConfig{Access: verbs.AccessLocalWrite})
			var re *verbs.ReregError
			require.ErrorAs(t, err, &re)
			require.Equal(t, verbs.ReregMRErrCmd, re.Code)
			require.Equal(t, verbs.ReregUndefined, re.State)
			return nil, err
		}, true},
		{"ibv_advise_mr", func() (any, error) { return nil, e.pd.AdviseMR(verbs.AdviseMRPrefetch, 0, sgl(mr.SGE(0, 64))) }, false},
		{"ibv_alloc_null_mr", func() (any, error) { return e.pd.AllocNullMR() }, false},
		{"ibv_alloc_dm", func() (any, error) { return e.ctx.AllocDM(4096, 0) }, false},
		{"ibv_free_dm", func() (any, error) { return nil, h.DM.Close() }, true},
		{"ibv_memcpy_to_dm", func() (any, error) { return nil, h.DM.CopyTo(0, make([]byte, 4)) }, true},
		{"ibv_memcpy_from_dm", func() (any, error) { return nil, h.DM.CopyFrom(0, make([]byte, 4)) }, true},
		{"ibv_reg_dm_mr", func() (any, error) {
			return ppd.(provider.RareRegistrar).RegDMMR(h.DM, 0, 64, verbs.AccessZeroBased)
		}, true},
		{"ibv_open_xrcd", func() (any, error) { return e.ctx.OpenXRCD(nil, 0) }, false},
		{"ibv_open_xrcd", func() (any, error) { return e.ctx.OpenXRCD(cmd, os.O_CREATE) }, true},
		{"ibv_close_xrcd", func() (any, error) { return nil, h.XRCD.Close() }, true},
		{"ibv_open_qp", func() (any, error) {
			return pctx.(provider.XRCDOpener).OpenQP(&provider.OpenQPInit{XRCD: h.XRCD, QPN: 17, Type: verbs.QPTXRCRecv})
		}, true},
		{"ibv_get_srq_num", func() (any, error) { _, err := srq.Num(); return nil, err }, false},
		{"ibv_post_srq_ops", func() (any, error) {
			n, err := srq.PostOps([]verbs.OpsWR{{ID: 1, Opcode: verbs.WRTagSync}})
			require.Zero(t, n)
			return nil, err
		}, false},
		{"ibv_create_wq", func() (any, error) { return e.pd.CreateWQ(verbs.WQConfig{MaxWR: 4, CQ: cq}) }, false},
		{"ibv_modify_wq", func() (any, error) {
			return nil, h.WQ.Modify(&verbs.WQAttr{State: verbs.WQSRdy}, verbs.WQAttrState)
		}, true},
		{"ibv_post_wq_recv", func() (any, error) {
			_, err := h.WQ.PostRecv([]provider.RecvWR{{ID: 1}}, nil)
			return nil, err
		}, true},
		{"ibv_destroy_wq", func() (any, error) { return nil, h.WQ.Close() }, true},
		{"ibv_create_rwq_ind_table", func() (any, error) {
			return pctx.(provider.WQCreator).CreateRWQIndTable([]provider.WQ{h.WQ, h.WQ}, 1)
		}, true},
		{"ibv_destroy_rwq_ind_table", func() (any, error) { return nil, h.IndTable.Close() }, true},
		{"ibv_create_flow", func() (any, error) {
			return rc.CreateFlow(verbs.FlowConfig{Port: e.port, Specs: []verbs.FlowSpec{verbs.EthSpec{Mask: verbs.EthFields{DstMAC: [6]byte{255, 255, 255, 255, 255, 255}}}}})
		}, false},
		{"ibv_destroy_flow", func() (any, error) { return nil, h.Flow.Close() }, true},
		{"ibv_create_flow_action_esp", func() (any, error) {
			return e.ctx.CreateFlowActionESP(verbs.ESPConfig{SPI: 1, AESGCM: &verbs.AESGCM{Key: make([]byte, 16), ICVLen: 16}, ReplayWindow: 64, Encap: []verbs.FlowSpec{verbs.IPv4Spec{}}})
		}, false},
		{"ibv_modify_flow_action_esp", func() (any, error) { return nil, h.FlowAction.ModifyESP(&provider.ESPAttr{}, nil) }, true},
		{"ibv_destroy_flow_action", func() (any, error) { return nil, h.FlowAction.Close() }, true},
		{"ibv_create_counters", func() (any, error) { return e.ctx.CreateCounters() }, false},
		{"ibv_attach_counters_point_flow", func() (any, error) { return nil, h.Counters.Attach(verbs.CounterBytes, 0, h.Flow) }, true},
		{"ibv_read_counters", func() (any, error) { return nil, h.Counters.Read(make([]uint64, 2), 0) }, true},
		{"ibv_destroy_counters", func() (any, error) { return nil, h.Counters.Close() }, true},
		{"ibv_modify_cq", func() (any, error) { return nil, cq.Modify(4, 10) }, false},
		{"ibv_modify_qp_rate_limit", func() (any, error) { return nil, rc.ModifyRateLimit(1000, 0, 0) }, false},
		{"ibv_query_rt_values_ex", func() (any, error) { _, _, err := e.ctx.QueryRTValues(); return nil, err }, true},
		{"ibv_query_ece", func() (any, error) { _, err := rc.QueryECE(); return nil, err }, false},
		{"ibv_set_ece", func() (any, error) { return nil, rc.SetECE(verbs.ECE{}) }, false},

		{"ibv_alloc_dmah", func() (any, error) { return e.ctx.AllocDMAH(verbs.DMAHConfig{}) }, false},
		{"ibv_dealloc_dmah", func() (any, error) { return nil, h.DMAH.Close() }, true},
		{"ibv_reg_mr_ex", func() (any, error) {
			return e.pd.RegMREx(verbs.MRExConfig{Bytes: e.mem(4096), Access: verbs.AccessLocalWrite})
		}, false},
		{"ibv_dm_export_dmabuf_fd", func() (any, error) { _, err := h.DM.(provider.DmabufExporter).ExportDmabuf(); return nil, err }, true},
		{"ibv_alloc_buf", func() (any, error) { return e.pd.AllocBuf(4096) }, false},
		{"ibv_query_comp_cntr_caps", func() (any, error) { _, err := e.ctx.QueryCompCntrCaps(); return nil, err }, false},
		{"ibv_create_comp_cntr", func() (any, error) { return e.ctx.CreateCompCntr(verbs.CompCntrWRs) }, false},
		{"ibv_set_comp_cntr", func() (any, error) { return nil, h.CompCntr.Set(false, 1) }, true},
		{"ibv_set_err_comp_cntr", func() (any, error) { return nil, h.CompCntr.Set(true, 1) }, true},
		{"ibv_inc_comp_cntr", func() (any, error) { return nil, h.CompCntr.Inc(false, 1) }, true},
		{"ibv_inc_err_comp_cntr", func() (any, error) { return nil, h.CompCntr.Inc(true, 1) }, true},
		{"ibv_read_comp_cntr", func() (any, error) { _, err := h.CompCntr.Read(false); return nil, err }, true},
		{"ibv_read_err_comp_cntr", func() (any, error) { _, err := h.CompCntr.Read(true); return nil, err }, true},
		{"ibv_destroy_comp_cntr", func() (any, error) { return nil, h.CompCntr.Close() }, true},
		{"ibv_qp_attach_comp_cntr", func() (any, error) {
			return nil, bridge.Inner(rc).(provider.CompCntrAttacher).AttachCompCntr(h.CompCntr, verbs.CompCntrSend)
		}, true},
	}
	for _, tt := range table {
		if tt.hollow && h == nil {
			continue
		}
		run(tt.verb, no, func() error {
			o, err := tt.f()
			if c, ok := o.(closer); ok && err == nil {
				_ = c.Close()
			}
			return err
		})
	}
	if h != nil {
		// Undoing an import cannot fail: it must arrive and return.
		require.NoError(t, h.ImportedDM.Close())
		require.NoError(t, h.ImportedMR.Close())
		require.NoError(t, h.ImportedPD.Close())
	}
	// What is wrong before the device is asked.
	run("ibv_import_device", syscall.EINVAL, func() error {
		f, err := os.Open("/proc/self/exe")
		require.NoError(t, err)
		defer f.Close()
		_, err = verbs.ImportDevice(int(f.Fd()))
		return err
	})
	run("ibv_import_device", syscall.ENODEV, func() error {
		f, err := os.Open("/dev/null")
		require.NoError(t, err)
		defer f.Close()
		_, err = verbs.ImportDevice(int(f.Fd()))
		return err
	})
	run("ibv_import_device", syscall.EBADF, func() error { _, err := verbs.ImportDevice(-1); return err })
}

// commandFile is the device's command descriptor. The software device has none.
func (e *env) commandFile() (*os.File, int) {
	e.t.Helper()
	cmd, err := e.ctx.CmdFile()
	if e.soft {
		require.ErrorIs(e.t, err, errors.ErrUnsupported)
		return nil, -1
	}
	require.NoError(e.t, err)
	e.t.Cleanup(func() { cmd.Close() })
	fd := -1
	raw, err := cmd.SyscallConn()
	require.NoError(e.t, err)
	require.NoError(e.t, raw.Control(func(d uintptr) { fd = int(d) }))
	return cmd, fd
}

func init() {
	register("D17", "unsupported verbs", func(t *testing.T, e *env) {
		n := 0
		rare(t, e, func(verb string, want error, f func() error) {
			n++
			err := f()
			require.ErrorIs(t, err, want, verb)
			require.False(t, want != errors.ErrUnsupported && errors.Is(err, errors.ErrUnsupported), "%s: %v", verb, err)
			var ve *verbs.Error
			if errors.As(err, &ve) {
				require.Equal(t, verb, ve.Verb)
			}
		})
		if e.soft {
			require.Equal(t, 27, n)
			e.softExtras()
		} else {
			require.Equal(t, 60, n)
		}

		// A library that lacks a verb says which rdma-core has it; one that has it asks the kernel.
		speed, err := e.ctx.QueryPortSpeed(uint32(e.port))
		if err != nil {
			require.ErrorIs(t, err, errors.ErrUnsupported)
			if errors.Is(err, syscall.ENOSYS) {
				require.Contains(t, err.Error(), "rdma-core 62")
			}
		} else {
			require.NotZero(t, speed)
		}
		require.NotEmpty(t, verbs.WROpcodeStr(verbs.WRSend))
		require.Equal(t, verbs.WROpcode(0xee).String(), verbs.WROpcodeStr(0xee))

		// FLUSH is an operation of the builder, which a queue pair must be created with.
		q := e.qp(verbs.QPConfig{SendOps: verbs.QPExWithSend})
		e.up(q, q.QPN(), e.gid.GID, 0, 0, link{})
		i, err := q.WRPost([]verbs.SendWR{{ID: 1, Opcode: verbs.WRFlush}}, true)
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.Zero(t, i)
		_, err = e.pd.CreateQP(verbs.QPConfig{SendCQ: q.SendCQ(), Cap: verbs.QPCap{MaxSendWR: 1, MaxSendSGE: 1}, SendOps: verbs.QPExWithFlush})
		if err != nil { // rdma-core 45 and newer take it
			require.ErrorIs(t, err, errors.ErrUnsupported)
		}
	})

	register("C11", "modify_cq", func(t *testing.T, e *env) {
		for _, cfg := range []*verbs.CQConfig{nil, {Extended: true}} {
			require.ErrorIs(t, e.cq(8, cfg).Modify(4, 100), errors.ErrUnsupported)
		}
	})

	register("Q04", "unsupported types", func(t *testing.T, e *env) {
		cq := e.cq(16, nil)
		qpc := verbs.QPCap{MaxSendWR: 4, MaxRecvWR: 4, MaxSendSGE: 1, MaxRecvSGE: 1}
		for _, typ := range []verbs.QPType{verbs.QPTRawPacket, verbs.QPTXRCSend} {
			q, err := e.pd.CreateQP(verbs.QPConfig{Type: typ, SendCQ: cq, Cap: qpc})
			if err == nil {
				_ = q.Close()
			}
			require.ErrorIs(t, err, errors.ErrUnsupported, "%v", typ)
			require.True(t, strings.Contains(err.Error(), "ibv_create_qp"), err.Error())
		}
		// XRC receive needs a domain, which rxe does not make: a hollow one gets past our own checks.
		pctx := bridge.Inner(e.ctx).(provider.Context)
		in := provider.QPInit{Ex: true, Type: verbs.QPTXRCRecv}
		if h := ibv.NewHollow(pctx); h != nil {
			in.XRCD = h.XRCD
		}
		_, err := pctx.CreateQP(&in)
		require.ErrorIs(t, err, errors.ErrUnsupported)
		_, err = e.ctx.OpenXRCD(nil, 0)
		require.ErrorIs(t, err, errors.ErrUnsupported)
	})

	register("X03", "SRQ non-basic", func(t *testing.T, e *env) {
		cq := e.cq(16, nil)
		_, err := e.pd.CreateSRQ(verbs.SRQConfig{Type: verbs.SRQTTM, CQ: cq, MaxNumTags: 4, MaxOps: 4, Attr: verbs.SRQAttr{MaxWR: 4}})
		require.ErrorIs(t, err, errors.ErrUnsupported)
		// One for XRC needs a domain: without it the request is wrong, and rxe makes none.
		_, err = e.pd.CreateSRQ(verbs.SRQConfig{Type: verbs.SRQTXRC, CQ: cq, Attr: verbs.SRQAttr{MaxWR: 4}})
		require.ErrorIs(t, err, syscall.EINVAL)
		_, err = e.ctx.OpenXRCD(nil, 0)
		require.ErrorIs(t, err, errors.ErrUnsupported)
		// The same extended verb makes a basic one.
		s, err := e.pd.CreateSRQ(verbs.SRQConfig{Type: verbs.SRQTBasic, CQ: cq, Attr: verbs.SRQAttr{MaxWR: 4}})
		if err == nil {
			require.NoError(t, s.Close())
		} else {
			require.ErrorIs(t, err, errors.ErrUnsupported)
		}
	})
}
