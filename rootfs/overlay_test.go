package rootfs

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSplitLowers(t *testing.T) {
	for in, want := range map[string][2][]string{
		"/a":            {{"/a"}},
		"/a:/b":         {{"/a", "/b"}},
		`/a\:b:/c\\d`:   {{"/a:b", `/c\d`}},
		"/a:/b::/c::/d": {{"/a", "/b"}, {"/c", "/d"}},
		"":              {},
		":":             {},
		"/a:":           {},
		":/a":           {},
		"::/a":          {},
		"/a:::/b":       {},
		"/a::/b:/c":     {},
		`/a\`:           {},
	} {
		lowers, data, err := splitLowers(in)
		if (want[0] == nil) != (err != nil) || err == nil && (!slices.Equal(lowers, want[0]) || !slices.Equal(data, want[1])) {
			t.Errorf("%q: %q %q %v", in, lowers, data, err)
		}
	}
}

func TestSplitOption(t *testing.T) {
	for in, want := range map[string][]string{
		"a":                      {"a"},
		"a,b=c":                  {"a", "b=c"},
		`context="a:b:c1,c2",ro`: {`context="a:b:c1,c2"`, "ro"},
		`upperdir=/a\,b,ro`:      {`upperdir=/a\,b`, "ro"},
		`a\`:                     {`a\`},
		`a,\`:                    {"a", `\`},
	} {
		if got := splitOption(in); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func unknown(string) int { return 0 }

func TestParse(t *testing.T) {
	r, err := parse(Mount{Type: "overlay", Options: []string{
		"ro,nosuid", "noatime", "relatime", "rw", "sync", `context="u:r:t:s0:c1,c2"`, "index=off", "userxattr",
		"lowerdir=/l/1:/l/2::/d", "upperdir=/u//x", "workdir=/w/.", "defaults", "uidmap=0:1:2,2:9:4", "gidmap=0:1:2",
	}}, unknown)
	must(t, err)
	if r.attrs != unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOATIME || r.readOnly || !r.atime {
		t.Errorf("attributes %#x, read-only %v", r.attrs, r.readOnly)
	}
	if want := []option{{"context", "u:r:t:s0:c1,c2", false}, {"index", "off", false}, {"userxattr", "", true}}; !slices.Equal(r.data, want) {
		t.Errorf("data %v", r.data)
	}
	if !slices.Equal(r.super, []string{"sync"}) || r.ids == nil || len(r.ids.UIDs) != 2 {
		t.Errorf("%v %v", r.super, r.ids)
	}
	o := r.overlay
	if !slices.Equal(o.lowers, []string{"/l/1", "/l/2", "/d"}) || o.dataOnly != 1 || o.upper != "/u/x" || o.work != "/w" {
		t.Errorf("%+v", o)
	}
}

func TestAttributes(t *testing.T) {
	for in, want := range map[string]uint64{
		"ro": unix.MOUNT_ATTR_RDONLY, "ro,rw": 0, "nosuid": unix.MOUNT_ATTR_NOSUID, "nosuid,suid": 0,
		"nodev": unix.MOUNT_ATTR_NODEV, "nodev,dev": 0, "noexec": unix.MOUNT_ATTR_NOEXEC, "noexec,exec": 0,
		"nosymfollow": unix.MOUNT_ATTR_NOSYMFOLLOW, "nosymfollow,symfollow": 0,
		"nodiratime": unix.MOUNT_ATTR_NODIRATIME, "nodiratime,diratime": 0,
		"noatime": unix.MOUNT_ATTR_NOATIME, "noatime,strictatime": unix.MOUNT_ATTR_STRICTATIME,
		"strictatime,noatime": unix.MOUNT_ATTR_STRICTATIME, "strictatime,nostrictatime": 0, "noatime,atime": 0,
		"noatime,relatime": unix.MOUNT_ATTR_NOATIME, "relatime": 0, "defaults": 0,
	} {
		r, err := parse(Mount{Type: "tmpfs", Options: strings.Split(in, ",")}, unknown)
		if err != nil || r.attrs != want || len(r.data) != 0 {
			t.Errorf("%s: %#x %v %v, want %#x", in, r.attrs, r.data, err, want)
		}
	}
}

func TestCommonParent(t *testing.T) {
	for in, want := range map[string]string{
		"/s/1/fs":                  "/s/1 fs",
		"/s/1/fs /s/2/fs /s/10/fs": "/s 1/fs 2/fs 10/fs",
		"/s/1 /s/1/x":              "/s 1 1/x",
		"/s/1/x /s/1":              "/s 1/x 1",
		"/ab/x /a/x":               "/ ab/x a/x",
		"/x /y":                    "/ x y",
		"/a/bc/1 /a/b/1":           "/a bc/1 b/1",
	} {
		parent, names := commonParent(strings.Fields(in))
		if got := parent + " " + strings.Join(names, " "); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// What is accepted is bounded, absolute and clean; options of a file system
// never name a directory.
func FuzzOverlayOptions(f *testing.F) {
	for _, seed := range []string{
		"lowerdir=/a:/b\nupperdir=/u\nworkdir=/w", "lowerdir=/a\\:b::/c", "lowerdir+=/a\nlowerdir+=/b\nro,nosuid",
		"uidmap=0:1:2\ngidmap=0:1:2\nlowerdir=/a:/b\nuserxattr\nmetacopy=on", `context="a,b"` + "\nlowerdir=/a:/..",
		"lowerdir=/0://0", "lowerdir=/a/b/c:/a/b//c:/a/b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parse(Mount{Type: "overlay", Options: strings.Split(s, "\n")}, unknown)
		if err != nil {
			var e *MountError
			if !errors.As(err, &e) || !errors.Is(err, ErrInvalid) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		if r.bind { // what an overlay's options name does not matter then
			return
		}
		o := r.overlay
		if n := len(o.lowers); n == 0 || n > maxLowers || o.dataOnly >= n || (o.upper == "") != (o.work == "") {
			t.Errorf("%q: %+v", s, o)
		}
		for _, p := range append(slices.Clone(o.lowers), o.upper, o.work) {
			if p != "" && (p[0] != '/' || p == "/" || filepath.Clean(p) != p) {
				t.Errorf("%q: path %q", s, p)
			}
		}
		for _, d := range r.data {
			switch d.key {
			case "lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir", "uidmap", "gidmap":
				t.Errorf("%q: %v left", s, d)
			}
		}
		parent, names := commonParent(o.lowers)
		for i, name := range names {
			if filepath.Join(parent, name) != o.lowers[i] || name == "" {
				t.Errorf("%q: %s below %s is not %s", s, name, parent, o.lowers[i])
			}
		}
	})
}
