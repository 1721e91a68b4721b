package mountoptions

import (
	"math/rand/v2"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
)

// words are options that lists are made of: all of containerd's own, and data
// for the file system, good and bad. $own is a fresh directory, $layers that of
// the layers.
var words = []string{
	"async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "noatime", "nodev", "nodiratime", "noexec", "norelatime",
	"nostrictatime", "nosuid", "rbind", "relatime", "remount", "ro", "rw", "strictatime", "suid", "sync", "mand", "nomand",
	"", "lazytime", "nosymfollow", "ro,nosuid", "X-containerd.x=1", "nosuch", "nosuch=1", "=", "=1", "source=x",
	"uidmap=0:100000:65536", "gidmap=0:100000:65536", "uidmap=0:1:0", "gidmap=x", "uidmap=", "gidmap=",
}

var ofTmpfs = []string{"size=1m", "size=", "size=x", "size", "mode=0755", "mode=9", "nr_inodes=10", "uid=7", "uid=-1", "huge=never"}

var ofOverlay = []string{
	"lowerdir=$layers/1/fs:$layers/2/fs", "lowerdir=$layers/3/fs", "lowerdir=$layers/1/fs:$layers/2/fs::$layers/3/fs",
	"lowerdir=$layers/1/fs::$layers/2/fs", "lowerdir=:$layers/1/fs", "lowerdir=$layers/1/fs:", "lowerdir=$layers/1/fs:$layers/none/fs",
	"lowerdir=$layers//1/fs/:$layers/./2/fs", "lowerdir=", "lowerdir", `lowerdir=$layers/\1/fs:$layers/2/fs`,
	"lowerdir=relative:$layers/1/fs", "lowerdir=$layers/../layers/1/fs:$layers/2/fs",
	"lowerdir+=$layers/1/fs", "lowerdir+=$layers/2/fs", "datadir+=$layers/3/fs",
	"upperdir=$own/fs", "workdir=$own/work", "upperdir=$own/none", "workdir=", "upperdir=$own/fs/", "workdir=$own/fs/below",
	"index=off", "index=on", "index=x", "index", "metacopy=on", "metacopy=off", "redirect_dir=on", "redirect_dir=off", "redirect_dir=nofollow",
	"redirect_dir=x", "userxattr", "userxattr=1", "volatile", "xino=auto", "xino=on", "xino=off", "nfs_export=on", "uuid=null", "verity=off",
}

// usual makes most lists of overlays ones that could be of a snapshotter.
var usual = []string{"lowerdir=$layers/1/fs:$layers/2/fs", "upperdir=$own/fs", "workdir=$own/work"}

// generate makes a mount of the choices that next gives, each below n.
func generate(next func(n int) int) mount.Mount {
	pick := func(from []string) string { return from[next(len(from))] }
	var m mount.Mount
	var data []string
	switch next(8) {
	case 0, 1:
		m, data = mount.Mount{Type: "tmpfs", Source: "tmpfs"}, ofTmpfs
	case 2:
		m = mount.Mount{Type: "bind", Source: "$layers/1/fs", Options: []string{"rbind"}}
	case 3:
		m, data = mount.Mount{Type: "overlay", Source: "overlay"}, ofOverlay
	default:
		m, data = mount.Mount{Type: "overlay", Source: "overlay"}, ofOverlay
		m.Options = append(m.Options, usual...)
	}
	for range next(5) {
		if len(data) > 0 && next(2) == 0 {
			m.Options = append(m.Options, pick(data))
		} else {
			m.Options = append(m.Options, pick(words))
		}
	}
	if next(8) == 0 { // both halves, so that there are some with a mapping
		m.Options = append(m.Options, "uidmap=0:100000:65536", "gidmap=0:100000:65536")
	}
	return m
}

// TestOptions compares lists that are the same in every run.
func TestOptions(t *testing.T) {
	const lists = 2000
	s := newSite(t)
	random := rand.New(rand.NewPCG(1, 2))
	for range lists {
		s.compare(t, generate(random.IntN))
	}
}

// FuzzOptions compares lists that the fuzzer chooses.
func FuzzOptions(f *testing.F) {
	f.Add([]byte{0, 1, 0, 3})
	f.Add([]byte{4, 2, 1, 4, 0, 9})
	s := newSite(f)
	f.Fuzz(func(t *testing.T, choices []byte) {
		s.compare(t, generate(func(n int) int {
			if len(choices) == 0 {
				return 0
			}
			c := int(choices[0])
			choices = choices[1:]
			return c % n
		}))
	})
}

// TestTimes compares all lists of three options about access times, which the
// kernel takes as bits of one number, not one after the other.
func TestTimes(t *testing.T) {
	words := []string{"atime", "noatime", "relatime", "norelatime", "strictatime", "nostrictatime", ""}
	s := newSite(t)
	for _, a := range words {
		for _, b := range words {
			for _, c := range words {
				s.compare(t, mount.Mount{Type: "tmpfs", Source: "tmpfs", Options: []string{a, b, c}})
			}
		}
	}
}
