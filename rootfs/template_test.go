package rootfs

import (
	"fmt"
	"strings"
	"testing"
	"text/template"
)

var testEarlier = []earlier{
	{source: "/s0", target: "/t0", mount: "/m0"},
	{source: "/s1", target: "", mount: "/m1"},
	{source: "s 2", target: "t", mount: "/m2"},
}

func TestExpand(t *testing.T) {
	for in, want := range map[string]string{
		"":                                       "",
		"plain":                                  "plain",
		"a }} b":                                 "a }} b",
		"{ {":                                    "{ {",
		"{{ source 0 }}":                         "/s0",
		"{{source 2}}":                           "s 2",
		"{{ target 0 }}{{ target 1 }}":           "/t0",
		"upperdir={{ mount 0 }}/upper":           "upperdir=/m0/upper",
		"{{\tmount\n1\r}}":                       "/m1",
		"lowerdir={{ overlay 0 2 }}":             "lowerdir=/m0:/m1:/m2",
		"lowerdir={{ overlay 2 0 }}":             "lowerdir=/m2:/m1:/m0",
		"lowerdir={{ overlay 1 1 }}":             "lowerdir=/m1",
		"{{ mount 0 }}:{{ overlay 1 2 }}:/x}}":   "/m0:/m1:/m2:/x}}",
		"X-containerd.mkdir.path={{ mount 0 }}/": "X-containerd.mkdir.path=/m0/",
	} {
		if got, err := expand(in, testEarlier); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
		if got, err := reference(in, testEarlier); err != nil || got != want {
			t.Errorf("containerd: %q: %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{
		"{{", "{{ }}", "{{ mount }}", "{{ mount 3 }}", "{{ mount -1 }}", "{{ mount x }}", "{{ mount 0 1 }}", "{{ mount 0x1 }}",
		"{{ mount 01 }}", "{{ mount 99999999999999999999 }}", "{{ overlay 0 }}", "{{ overlay 0 3 }}", "{{ overlay 3 0 }}",
		"{{ overlay 0 1 2 }}", "{{ other 0 }}", "{{ mount 0", "{{- mount 0 }}", "{{ mount 0 -}}", "{{/* x */}}", "{{ 0 | mount }}",
		`{{ printf "x" }}`, "{{ mount 0 }}{{", "{{ mount (0) }}", "{{mount0}}", "{{ mount\u00a00 }}", "{{ Mount 0 }}",
	} {
		if got, err := expand(in, testEarlier); err == nil {
			t.Errorf("%q: gave %q", in, got)
		}
	}
}

// reference expands as containerd does, by a Go template.
func reference(s string, a []earlier) (string, error) {
	if !strings.Contains(s, "{{") {
		return s, nil
	}
	field := func(get func(earlier) string) func(int) (string, error) {
		return func(i int) (string, error) {
			if i < 0 || i >= len(a) {
				return "", fmt.Errorf("no mount %d", i)
			}
			return get(a[i]), nil
		}
	}
	parsed, err := template.New("").Funcs(template.FuncMap{
		"source": field(func(e earlier) string { return e.source }),
		"target": field(func(e earlier) string { return e.target }),
		"mount":  field(func(e earlier) string { return e.mount }),
		"overlay": func(from, to int) (string, error) {
			if min(from, to) < 0 || max(from, to) >= len(a) {
				return "", fmt.Errorf("no mounts %d to %d", from, to)
			}
			var dirs []string
			for i := from; ; {
				dirs = append(dirs, a[i].mount)
				switch {
				case i < to:
					i++
				case i > to:
					i--
				default:
					return strings.Join(dirs, ":"), nil
				}
			}
		},
	}).Parse(s)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = parsed.Execute(&b, nil)
	return b.String(), err
}

// What we take, containerd takes, and for the same.
func FuzzExpand(f *testing.F) {
	for _, s := range []string{
		"{{ overlay 0 2 }}", "a{{ mount 0 }}b{{ source 1 }}}}", "{{- mount 0 -}}", "{{ mount 00 }}", "{{ mount 1_0 }}", "{{{ mount 0 }}",
		"{{/* mount 0 */}}", "{{\nmount\t0}}", "{{ target 2 }} - {{ overlay 2 1}}", "{{ mount 0 }}-{{ mount 0 }}", `{{ "}}" }}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := expand(s, testEarlier)
		if err != nil {
			return
		}
		if want, err := reference(s, testEarlier); err != nil || got != want {
			t.Errorf("%q: %q, containerd %q, %v", s, got, want, err)
		}
	})
}

func TestParseDirectory(t *testing.T) {
	const root = "/var/lib/containerd/io.containerd.snapshotter.v1.erofs"
	for in, want := range map[string]directory{
		"path=" + root + "/a":               {place{root, "a"}, 0o700, noOwner, noOwner},
		"path=" + root + "/a/b:0755":        {place{root, "a/b"}, 0o755, noOwner, noOwner},
		"path=" + root + "/a:750:1:2":       {place{root, "a"}, 0o750, 1, 2},
		"path=" + mountName(3) + "/upper:0": {place{mountName(3), "upper"}, 0, noOwner, noOwner},
	} {
		if got, err := parseDirectory(in); err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "path=", "mode=1", "path=a", "path=/", "path=/etc/a", "path=" + root, "path=" + root + "/", "path=" + root + "/../x", "path=" + root + "/./x",
		"path=" + mountName(0), "path=" + mountName(0) + "/", "path=" + mountName(0) + "/..", "path=" + mountName(0) + "x", "path=/io.containerd./x",
		"path=" + root + "/a:", "path=" + root + "/a:8", "path=" + root + "/a:1777", "path=" + root + "/a:755:1", "path=" + root + "/a:755:1:2:3",
		"path=" + root + "/a:755:-1:2", "path=" + root + "/a:755:1:4294967295", "path=/{mount x}/a", "path=/{mount 0",
	} {
		if got, err := parseDirectory(in); err == nil {
			t.Errorf("%q: gave %+v", in, got)
		}
	}
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{
		"1": 1, "67108864": 64 << 20, "64m": 64 << 20, "64MB": 64 << 20, "64MiB": 64 << 20, "64 MiB": 64 << 20, "1.5k": 1536, "2G": 2 << 30, "1T": 1 << 40, "7b": 7,
	} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "0", "0.1", "-1", "m", "1x", "1kk", "1  k", "inf", "NaN", "1e9", "17T", "99999999999999999999p", "0x10", "1 2", ".", "1i", "1km"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("%q: gave %d", in, got)
		}
	}
}
