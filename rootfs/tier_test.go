package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tiers lists what this kernel can do, by asking it.
func tiers(t testing.TB) (can []Tier) {
	t.Helper()
	var w Workshop
	defer w.Close()
	for tier := Detached; tier <= Host; tier++ {
		ok, err := w.probe(tier)
		must(t, err)
		if ok {
			can = append(can, tier)
		} else if !w.lacks(tier) {
			t.Errorf("a clear no of tier %v was not kept", tier)
		}
	}
	return can
}

func bestTier(t testing.TB) Tier {
	if tier, err := ParseTier(os.Getenv(tierEnv)); err == nil {
		return tier
	}
	return tiers(t)[0]
}

// usedWorkshop is one that has its namespace, so that this is not a leak, and
// knows which tiers the kernel lacks.
func usedWorkshop(t *testing.T) *Workshop {
	t.Helper()
	var workshop Workshop
	t.Cleanup(func() { must(t, workshop.Close()) })
	ns, err := workshop.namespace(&calls{})
	must(t, err)
	must(t, ns.Close())
	for tier := Detached; tier < Host; tier++ {
		_, err := workshop.probe(tier)
		must(t, err)
	}
	return &workshop
}

// eachTier runs a test in each tier that this kernel has.
func eachTier(t *testing.T, run func(t *testing.T, o Options)) {
	requireRoot(t)
	workshop := usedWorkshop(t)
	var cache UserNSCache
	t.Cleanup(func() { must(t, cache.Close()) })
	f, err := cache.Get(t.Context(), mapping(t, testMap, testMap))
	must(t, err)
	must(t, f.Close())
	for _, tier := range tiers(t) {
		t.Run(tier.String(), func(t *testing.T) {
			o := Options{Tier: tier, Workshop: workshop, Cache: &cache}
			if tier == Host {
				o.Target = t.TempDir()
			}
			run(t, o)
		})
	}
}

func TestParseTier(t *testing.T) {
	for tier := Auto; tier <= Host; tier++ {
		if got, err := ParseTier(tier.String()); err != nil || got != tier {
			t.Errorf("%v: %v, %v", tier, got, err)
		}
	}
	for _, s := range []string{"", "Auto", "tier(9)", "detached "} {
		if _, err := ParseTier(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", s, err)
		}
	}
	_, err := Assemble(t.Context(), []Mount{{Type: "overlay", Options: []string{"lowerdir=/a:/b"}}}, Options{Tier: Host + 1})
	if !errors.Is(err, ErrInvalid) {
		t.Errorf("unknown tier: %v", err)
	}
}

// The number of operations on mount tables does not depend on the layers, and
// the host's changes in the last tier only.
func TestTableOperations(t *testing.T) {
	type operations struct{ attached, private int }
	eachTier(t, func(t *testing.T, o Options) {
		unchanged(t)
		for _, mapped := range []bool{false, true} {
			var first operations
			for _, n := range []int{2, 30, 300} {
				s := newSnapshot(t, tmpfs(t), n)
				m := s.mount()
				if mapped {
					m = s.idmapped(t)
				}
				before := mountTable(t)
				tree := assemble(t, o, m)
				got := operations{tree.Stats().Attached, tree.Stats().Private}
				if n == 2 {
					first = got
				}
				if got != first {
					t.Errorf("mapped=%v: %+v with %d layers, %+v with 2", mapped, got, n, first)
				}
				if tree.Stats().Tier != o.Tier || (o.Tier == Host) != (tree.Host() != "") || (o.Tier == Host) != (got.attached > 0) {
					t.Errorf("stats %+v, host %q", tree.Stats(), tree.Host())
				}
				if lines := strings.Count(mountTable(t), "\n") - strings.Count(before, "\n"); o.Tier == Host && lines != 1 {
					t.Errorf("mapped=%v: %d more mounts on the host", mapped, lines)
				}
				if o.Tier != Host && mountTable(t) != before {
					t.Errorf("the host's mount table changed:\n%s", mountTable(t))
				}
				inside(t, tree, func(root string) error {
					_, err := os.Stat(filepath.Join(root, fmt.Sprint("layer", n)))
					return err
				})
			}
		}
	})
}

// 500 layers, of which the names exceed a page.
func TestMostLayers(t *testing.T) {
	eachTier(t, func(t *testing.T, o Options) {
		dir := filepath.Join(tmpfs(t), "io.containerd.snapshotter.v1.overlayfs", "snapshots")
		s := newSnapshot(t, dir, maxLowers)
		tree := assemble(t, o, s.idmapped(t))
		inside(t, tree, func(root string) error {
			for _, i := range []int{1, 250, maxLowers} {
				if uid, err := owner(filepath.Join(root, fmt.Sprint("layer", i))); err != nil || uid != testRoot+33 {
					t.Errorf("layer%d belongs to %d: %v", i, uid, err)
				}
			}
			b, err := os.ReadFile(filepath.Join(root, "top"))
			if err == nil && string(b) != fmt.Sprint(maxLowers) {
				err = fmt.Errorf("top is %q", b)
			}
			return err
		})
	})
}

// Characters that separate or escape in overlay's options mean nothing in a
// name.
func TestAwkwardNames(t *testing.T) {
	eachTier(t, func(t *testing.T, o Options) {
		s := newSnapshot(t, tmpfs(t), 5)
		m := s.mount()
		m.Options = m.Options[:0]
		upper := filepath.Join(s.dir, `up:p\e,r`)
		must(t, os.Mkdir(upper, 0o755))
		must(t, os.Rename(s.upper, filepath.Join(upper, `f\s`)))
		must(t, os.Rename(s.work, filepath.Join(upper, "w,rk")))
		m.Options = append(m.Options, "upperdir="+escape(upper+`/f\s`, `\,`), "workdir="+escape(upper+"/w,rk", `\,`))
		for i, name := range []string{"a:b", `c\d`, `"e"`, " f", "g=h"} {
			must(t, os.Rename(filepath.Dir(s.lowers[i]), filepath.Join(s.dir, name)))
			m.Options = append(m.Options, "lowerdir+="+filepath.Join(s.dir, name, "fs"))
		}
		inside(t, assemble(t, o, m), func(root string) error {
			for i := 1; i <= 5; i++ {
				if _, err := os.Stat(filepath.Join(root, fmt.Sprint("layer", i))); err != nil {
					t.Error(err)
				}
			}
			return os.WriteFile(filepath.Join(root, "new"), nil, 0o600)
		})
		if _, err := os.Stat(filepath.Join(upper, `f\s`, "new")); err != nil {
			t.Error(err)
		}
	})
}

// A layer that is a mount of its own is never the directory underneath.
func TestLayerOnItsOwnMount(t *testing.T) {
	eachTier(t, func(t *testing.T, o Options) {
		for _, n := range []int{3, 2 * byNameFrom} {
			for _, at := range []int{0, 1, n - 1} {
				for _, mapped := range []bool{false, true} {
					s := newSnapshot(t, tmpfs(t), n)
					mountOver(t, s.lowers[at])
					write(t, filepath.Join(s.lowers[at], "over"), "mounted", 7, 0o644)
					m, want := s.mount(), uint32(7)
					if mapped {
						m, want = s.idmapped(t), testRoot+7
					}
					inside(t, assemble(t, o, m), func(root string) error {
						if uid, err := owner(filepath.Join(root, "over")); err != nil || uid != want {
							t.Errorf("layer %d of %d, mapped=%v: %d %v", at, n, mapped, uid, err)
						}
						return nil
					})
					must(t, unix.Unmount(s.lowers[at], 0))
				}
			}
		}
	})
}

// A mount that cannot be ID-mapped, below the layers' common directory, must
// not matter.
func TestForeignMountBesideLayers(t *testing.T) {
	eachTier(t, func(t *testing.T, o Options) {
		if o.Tier == Host {
			t.Skip("mounts with ID mappings on the host need a directory that can be mapped as a whole")
		}
		for _, n := range []int{3, 2 * byNameFrom} {
			dir := tmpfs(t)
			s := newSnapshot(t, dir, n)
			foreign := filepath.Join(dir, "foreign")
			must(t, os.Mkdir(foreign, 0o755))
			must(t, unix.Mount("proc", foreign, "proc", 0, ""))
			inside(t, assemble(t, o, s.idmapped(t)), func(root string) error {
				uid, err := owner(filepath.Join(root, "layer1"))
				if uid != testRoot+33 {
					t.Errorf("%d layers: layer1 belongs to %d", n, uid)
				}
				return err
			})
			must(t, unix.Unmount(foreign, 0))
		}
	})
}

// No layer is reached through a symbolic link, but links in a container work.
func TestLinks(t *testing.T) {
	eachTier(t, func(t *testing.T, o Options) {
		for _, n := range []int{3, 2 * byNameFrom} {
			for _, mapped := range []bool{false, true} {
				s := newSnapshot(t, tmpfs(t), n)
				must(t, os.Symlink("dir/hidden", filepath.Join(s.lowers[n-1], "relative")))
				must(t, os.Symlink("dir", filepath.Join(s.lowers[n-1], "through")))
				mount := func() Mount {
					if mapped {
						return s.idmapped(t)
					}
					return s.mount()
				}
				inside(t, assemble(t, o, mount()), func(root string) error {
					for _, name := range []string{"relative", "through/hidden"} {
						if _, err := os.ReadFile(filepath.Join(root, name)); err != nil {
							t.Errorf("%d layers, mapped=%v: %v", n, mapped, err)
						}
					}
					return nil
				})
				for _, link := range []string{s.dir + "/link", s.dir + "/middle/fs"} {
					_ = os.Symlink(s.lowers[0], s.dir+"/link")
					_ = os.Symlink(filepath.Dir(s.lowers[0]), s.dir+"/middle")
					good := s.lowers[1]
					s.lowers[1] = link
					tree, err := Assemble(t.Context(), []Mount{mount()}, o)
					if err == nil {
						tree.Close()
						t.Fatalf("%d layers, mapped=%v: %s is a layer", n, mapped, link)
					}
					if !strings.Contains(err.Error(), "symbolic link") || !strings.Contains(err.Error(), link) || errors.Is(err, ErrUnsupported) {
						t.Errorf("%d layers, mapped=%v: %v", n, mapped, err)
					}
					s.lowers[1] = good
				}
			}
		}
	})
}

func TestMountsBelowTheRootInEachTier(t *testing.T) {
	eachTier(t, func(t *testing.T, o Options) {
		s := newSnapshot(t, tmpfs(t), 2)
		for _, d := range []string{"data", "data2"} {
			must(t, os.Mkdir(filepath.Join(s.lowers[0], d), 0o755))
		}
		// A link that leads out of the root, if not resolved within it.
		must(t, os.Symlink("../../../../data2", filepath.Join(s.lowers[0], "link")))
		unchanged(t)
		mounts := []Mount{s.mount(), {Type: "tmpfs", Source: "tmpfs", Target: "/data"}, {Type: "tmpfs", Source: "tmpfs", Target: "link"}}
		inside(t, assemble(t, o, mounts...), func(root string) error {
			for _, d := range []string{"data", "data2"} {
				var st unix.Statfs_t
				must(t, unix.Statfs(filepath.Join(root, d), &st))
				if st.Type != unix.TMPFS_MAGIC {
					t.Errorf("%s: file system %x", d, st.Type)
				}
			}
			return nil
		})
		mounts[2].Target = "missing"
		if tree, err := Assemble(t.Context(), mounts, o); err == nil {
			tree.Close()
			t.Error("mounted on a directory that is not there")
		}
	})
}

func TestHostWithoutTarget(t *testing.T) {
	requireRoot(t)
	unchanged(t)
	s := newSnapshot(t, tmpfs(t), 2)
	for _, m := range []Mount{s.mount(), {Type: "tmpfs", Source: "tmpfs"}} {
		if _, err := Assemble(t.Context(), []Mount{m}, Options{Tier: Host}); !errors.Is(err, ErrNeedsPath) {
			t.Errorf("%s: %v", m.Type, err)
		}
	}
	if _, err := Assemble(t.Context(), []Mount{s.mount()}, Options{Target: "relative"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("relative target: %v", err)
	}
}

// When each better tier fails as on an old kernel, the next one serves; what a
// kernel is known to lack is not tried.
func TestFallback(t *testing.T) {
	requireRoot(t)
	unchanged(t)
	for first := Detached; first <= Host; first++ {
		var workshop Workshop
		for tier := Detached; tier < first; tier++ {
			workshop.remember(tier)
		}
		s := newSnapshot(t, tmpfs(t), 3)
		o := Options{Workshop: &workshop}
		if first == Host {
			if _, err := Assemble(t.Context(), []Mount{s.mount()}, o); !errors.Is(err, ErrUnsupported) {
				t.Errorf("no tier and no target: %v", err)
			}
			o.Target = t.TempDir()
		}
		if first < Host {
			if ok, _ := workshop.probe(first); !ok {
				continue
			}
		}
		tree, err := Assemble(t.Context(), []Mount{s.idmapped(t)}, o)
		must(t, err)
		if tree.Stats().Tier != first {
			t.Errorf("without better ones: %v, want %v", tree.Stats().Tier, first)
		}
		inside(t, tree, func(root string) error { _, err := os.Stat(filepath.Join(root, "top")); return err })
		must(t, workshop.Close())
	}
}
