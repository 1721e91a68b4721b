package numa

import (
	"os"
	"testing"

	"containerd-shim-numa-v1/numa/machines"
)

// BenchmarkDiscover reads this machine's /sys, and machines written out as
// files.
func BenchmarkDiscover(b *testing.B) {
	b.Run("this", func(b *testing.B) { benchmarkDiscover(b, "/sys") })
	for _, name := range machines.Names() {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			if err := machines.Expand(name, dir); err != nil {
				b.Fatal(err)
			}
			benchmarkDiscover(b, dir)
		})
	}
}

func benchmarkDiscover(b *testing.B, dir string) {
	fsys := os.DirFS(dir)
	b.Run("anew", func(b *testing.B) {
		for b.Loop() {
			if _, err := Discover(fsys); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("cached", func(b *testing.B) {
		cache := ownDir(b)
		for b.Loop() {
			if _, err := loadCached(cache, fsys, "boot"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
