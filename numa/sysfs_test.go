package numa

import (
	"strings"
	"testing"
	"testing/fstest"
)

// Most files of sysfs have a few bytes: room for the longest is not made in
// advance, in every shim.
func TestReadMakesRoomAsNeeded(t *testing.T) {
	long := strings.Repeat("0,", pageSize) + "0" // three reads, the last short
	s := &sysfs{fsys: fstest.MapFS{"short": {Data: []byte("0-3\n")}, "long": {Data: []byte(long)}}}
	for _, c := range []struct {
		file, want string
		room       int
	}{{"short", "0-3", pageSize}, {"long", long, 4 * pageSize}, {"short", "0-3", 4 * pageSize}} {
		text, found, err := s.text(c.file)
		if err != nil || !found || text != c.want {
			t.Errorf("%s: %.20q, %t, %v", c.file, text, found, err)
		}
		if len(s.buf) > c.room {
			t.Errorf("%s: room for %d bytes, want at most %d", c.file, len(s.buf), c.room)
		}
	}
}
