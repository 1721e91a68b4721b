package cgroups

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestParseNUMAStat(t *testing.T) {
	page := uint64(os.Getpagesize())
	for _, c := range []struct {
		name, text string
		parse      func(string) []NodeMemory
		want       []NodeMemory
	}{
		{"v1", `total=9 N0=9 N1=0
anon=9 N0=9 N1=0
hierarchical_total=66 N0=45 N1=21
hierarchical_file=30 N0=20 N1=10
hierarchical_anon=30 N0=20 N1=10
hierarchical_unevictable=6 N0=5 N1=1
`, parseNUMAStatV1, []NodeMemory{{0, 20 * page, 20 * page, 5 * page}, {1, 10 * page, 10 * page, page}}},
		{"v2", `anon N0=4096 N2=8192
file N0=100 N2=0
kernel_stack N0=1 N2=0
pagetables N0=2 N2=0
shmem N0=50 N2=0
inactive_anon N0=4096 N2=8192
slab_reclaimable N0=4 N2=0
slab_unreclaimable N0=8 N2=0
workingset_refault_anon N0=99 N2=99
`, parseNUMAStatV2, []NodeMemory{{0, 4096, 100, 15}, {2, 8192, 0, 0}}},
		{"empty", "", parseNUMAStatV2, nil},
		{"odd", "\n \nanon\nanon N=1 Nx=2 N-1=3 N1 N10=5 N2=-1\n", parseNUMAStatV2, []NodeMemory{{2, 0, 0, 0}, {10, 5, 0, 0}}},
	} {
		if got := c.parse(c.text); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestNUMAStat has a process touch memory, and none of it counts once the
// cgroup is gone.
func TestNUMAStat(t *testing.T) {
	const bytes = 4 << 20
	fill := "x=$(dd if=/dev/zero bs=1M count=4 2>/dev/null | tr '\\000' x); exec 2>&-; read forever < /dev/zero"
	dirs := map[string]string{}
	if v2, err := isV2(); err != nil {
		t.Fatal(err)
	} else if v2 {
		_, dirs[unified] = makeV2(t)
	} else {
		_, dirs = makeV1(t, "memory")
	}
	c := load(t, dirs)
	if nodes, err := c.NUMAStat(); err != nil || len(nodes) == 0 {
		t.Skipf("needs a kernel that tells memory by node: %v, %v", nodes, err)
	}
	for _, dir := range dirs {
		start(t, fill, dir)
	}
	eventually(t, "its memory is on some node", func() bool {
		nodes, err := c.NUMAStat()
		if err != nil {
			t.Fatal(err)
		}
		var anon uint64
		for _, n := range nodes {
			anon += n.Anon
			if n.Total() < n.Anon {
				t.Errorf("node %d: %+v", n.Node, n)
			}
		}
		return anon >= bytes
	})
	gone := load(t, map[string]string{unified: strings.TrimSuffix(t.TempDir(), "/") + "/gone"})
	if nodes, err := gone.NUMAStat(); err != nil || len(nodes) != 0 {
		t.Errorf("a cgroup that is gone: %v, %v", nodes, err)
	}
}

func FuzzNUMAStat(f *testing.F) {
	f.Add("hierarchical_anon=2 N0=1 N1=1\nanon N0=1\n")
	f.Fuzz(func(_ *testing.T, text string) {
		parseNUMAStatV1(text)
		parseNUMAStatV2(text)
	})
}
