#include "zr_rare.h"

enum { MAX_ENCAP = 8 };

// attr is a struct ibv_flow_attr with its specifications behind it.
int zr_create_flow(struct ibv_qp *qp, void *attr, struct ibv_flow **out) {
	errno = 0;
	*out = ibv_create_flow(qp, attr);
	return *out ? 0 : zr_errno();
}

int zr_destroy_flow(struct ibv_flow *f) {
	errno = 0;
	return zr_ret(ibv_destroy_flow(f));
}

// The pieces that an ESP attribute points at; they only live during the call.
struct esp_parts {
	struct ibv_flow_action_esp esp;
	struct ibv_flow_action_esp_keymat_aes_gcm keymat;
	struct ibv_flow_action_esp_replay_bmp replay;
	struct ibv_flow_action_esp_encap encap[MAX_ENCAP];
	struct ibv_flow_action_esp_attr attr;
};

static int esp_build(struct esp_parts *p, struct zr_esp *e, struct zr_esp_encap *encap, int n) {
	if (n > MAX_ENCAP || e->key_len > sizeof p->keymat.aes_key) return EINVAL;
	memset(p, 0, sizeof *p);
	p->esp.spi = e->spi;
	p->esp.seq = e->seq;
	p->esp.tfc_pad = e->tfc_pad;
	p->esp.flags = e->flags;
	p->esp.hard_limit_pkts = e->hard_limit_pkts;
	p->attr.esp_attr = &p->esp;
	if (e->has_keymat) {
		p->keymat.iv = e->iv;
		p->keymat.iv_algo = e->iv_algo;
		p->keymat.salt = e->salt;
		p->keymat.icv_len = e->icv_len;
		p->keymat.key_len = e->key_len;
		memcpy(p->keymat.aes_key, e->key, e->key_len);
		p->attr.keymat_proto = IB_UVERBS_FLOW_ACTION_ESP_KEYMAT_AES_GCM;
		p->attr.keymat_len = sizeof p->keymat;
		p->attr.keymat_ptr = &p->keymat;
	}
	p->attr.replay_proto = IB_UVERBS_FLOW_ACTION_ESP_REPLAY_NONE;
	if (e->replay_size) {
		p->replay.size = e->replay_size;
		p->attr.replay_proto = IB_UVERBS_FLOW_ACTION_ESP_REPLAY_BMP;
		p->attr.replay_len = sizeof p->replay;
		p->attr.replay_ptr = &p->replay;
	}
	for (int i = 0; i < n; i++) {
		p->encap[i].val_ptr = encap[i].val;
		p->encap[i].len = encap[i].len;
		p->encap[i].type = encap[i].type;
		p->encap[i].next_ptr = i + 1 < n ? &p->encap[i + 1] : NULL;
	}
	if (n) p->attr.esp_encap = p->encap;
	p->attr.comp_mask = e->comp_mask;
	p->attr.esn = e->esn;
	return 0;
}

int zr_create_esp(struct ibv_context *c, struct zr_esp *e, struct zr_esp_encap *encap, int n, struct ibv_flow_action **out) {
	struct esp_parts p;
	int rc = esp_build(&p, e, encap, n);
	if (rc) return rc;
	errno = 0;
	*out = ibv_create_flow_action_esp(c, &p.attr);
	rc = *out ? 0 : zr_errno();
	explicit_bzero(&p, sizeof p);  // the key
	return rc;
}

int zr_modify_esp(struct ibv_flow_action *a, struct zr_esp *e, struct zr_esp_encap *encap, int n) {
	struct esp_parts p;
	int rc = esp_build(&p, e, encap, n);
	if (rc) return rc;
	errno = 0;
	rc = zr_ret(ibv_modify_flow_action_esp(a, &p.attr));
	explicit_bzero(&p, sizeof p);
	return rc;
}

int zr_destroy_flow_action(struct ibv_flow_action *a) {
	errno = 0;
	return zr_ret(ibv_destroy_flow_action(a));
}

int zr_create_counters(struct ibv_context *c, struct ibv_counters **out) {
	struct ibv_counters_init_attr a = {0};
	errno = 0;
	*out = ibv_create_counters(c, &a);
	return *out ? 0 : zr_errno();
}

int zr_destroy_counters(struct ibv_counters *o) {
	errno = 0;
	return zr_ret(ibv_destroy_counters(o));
}

int zr_attach_counters(struct ibv_counters *o, uint32_t what, uint32_t index, struct ibv_flow *f) {
	struct ibv_counter_attach_attr a = {.counter_desc = what, .index = index};
	errno = 0;
	return zr_ret(ibv_attach_counters_point_flow(o, &a, f));
}

int zr_read_counters(struct ibv_counters *o, uint64_t *v, uint32_t n, uint32_t flags) {
	errno = 0;
	return zr_ret(ibv_read_counters(o, v, n, flags));
}
