package dpu

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// guidText writes eight bytes as sysfs does: four groups of four digits.
func guidText(b []byte) string {
	if len(b) != 8 {
		return ""
	}
	h := hex.EncodeToString(b)
	return fmt.Sprintf("%s:%s:%s:%s", h[:4], h[4:8], h[8:12], h[12:])
}

// reversedGUID turns a GUID of the netlink library, its bytes back to front and
// one by one, into sysfs's; "" when it is none.
func reversedGUID(s string) string {
	b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	if err != nil {
		return ""
	}
	slices.Reverse(b)
	return guidText(b)
}

// guidOfSwitch is the system image GUID in a phys_switch_id: mlx5 copies it from
// memory, so on a little-endian machine its bytes are back to front.
func guidOfSwitch(id string) string {
	return reversedGUID(id)
}

// isGUID tells a GUID from an empty one.
func isGUID(s string) bool {
	return len(s) == 19 && strings.Trim(s, "0:") != ""
}

func sorted(l []string) []string {
	slices.Sort(l)
	return l
}
