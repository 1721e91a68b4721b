package vm

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestKernelPackages(t *testing.T) {
	got := kernelPackages([]string{
		"linux-image-6.1.0-50-cloud-amd64", "linux-image-6.1.0-50-cloud-amd64-unsigned", "linux-image-6.1.0-50-amd64",
		"linux-image-6.19.14+deb13-cloud-amd64", "linux-binary-6.19.14+deb13-cloud-amd64",
		"linux-image-7.3.4+deb13-cloud-amd64", "linux-binary-7.3.4+deb13-cloud-amd64", "linux-modules-7.3.4+deb13-cloud-amd64",
		"linux-image-cloud-amd64", "linux-headers-6.1.0-50-cloud-amd64",
	})
	want := map[string][]string{
		"6.1.0-50-cloud-amd64":    {"linux-image-6.1.0-50-cloud-amd64"},
		"7.3.4+deb13-cloud-amd64": {"linux-binary-7.3.4+deb13-cloud-amd64", "linux-modules-7.3.4+deb13-cloud-amd64"},
	}
	if !maps.EqualFunc(got, want, slices.Equal[[]string]) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestNewest(t *testing.T) {
	releases := []string{"6.1.0-9", "6.1.0-50", "6.12.9+deb13", "6.12.117+deb13", "7.3.4+deb13", "7.10.1+deb13", "70.1"}
	for series, want := range map[string]string{
		"6.1": "6.1.0-50", "6.12": "6.12.117+deb13", "7": "7.10.1+deb13", "7.3": "7.3.4+deb13", "6.2": "", "5": "",
	} {
		if got := newest(series, releases); got != want {
			t.Errorf("newest of %s is %q, want %q", series, got, want)
		}
	}
}

func TestMachineMirror(t *testing.T) {
	for _, test := range []struct{ name, file, text, want string }{
		{"list", "sources.list", "# deb http://no.example/debian bookworm main\ndeb http://a.example/debian bookworm-updates main\ndeb http://b.example/debian bookworm main\n", "http://b.example/debian"},
		{"options", "sources.list.d/x.list", "deb-src http://a.example/ bookworm main\ndeb [ arch=amd64 signed-by=/k ] http://b.example/debian bookworm main\n", "http://b.example/debian"},
		{"stanzas", "sources.list.d/x.sources", "Types: deb\nURIs: http://s.example/debian-security\nSuites: bookworm-security\n\nTypes: deb deb-src\n# URIs: http://no.example/\nURIs: http://b.example/debian\nSuites: bookworm bookworm-updates\n", "http://b.example/debian"},
		{"other release", "sources.list", "deb http://a.example/debian trixie main\n", ""},
		{"broken", "sources.list", "deb\ndeb [\ndeb [a\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range map[string]string{"os-release": "ID=debian\nVERSION_CODENAME=\"bookworm\"\n", test.file: test.text} {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := machineMirror(dir, filepath.Join(dir, "os-release"))
			if got != test.want || (err == nil) != (test.want != "") {
				t.Errorf("got %q, error %v, want %q", got, err, test.want)
			}
		})
	}
}

func TestTopologyArguments(t *testing.T) {
	args, err := Topology{Sockets: 2, Threads: 2}.withDefaults(1001).arguments()
	if err != nil {
		t.Fatal(err)
	}
	want := "-smp 4,sockets=2,cores=1,threads=2 " +
		"-object memory-backend-ram,id=m0,size=500M -numa node,nodeid=0,memdev=m0,cpus=0-1 " +
		"-object memory-backend-ram,id=m1,size=500M -numa node,nodeid=1,memdev=m1,cpus=2-3 -m 1000M"
	if got := strings.Join(args, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for name, bad := range map[string]Topology{
		"node without memory": {Nodes: []Node{{CPUs: "0"}}},
		"distances":           {Distances: [][]int{{10, 20}}},
		"ragged distances":    {Sockets: 2, Distances: [][]int{{10, 20}, {10}}},
	} {
		if args, err := bad.withDefaults(512).arguments(); err == nil {
			t.Errorf("%s: no error, %v", name, args)
		}
	}
}
