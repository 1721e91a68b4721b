package rootfs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestBadInput(t *testing.T) {
	requireRoot(t)
	s := newSnapshot(t, tmpfs(t), 3)
	must(t, os.Symlink(s.lowers[0], filepath.Join(s.dir, "link")))
	must(t, os.Symlink(filepath.Dir(s.lowers[0]), filepath.Join(s.dir, "middle")))
	many := make([]string, maxLowers+1)
	for i := range many {
		many[i] = s.lowers[0]
	}
	lower := func(dirs ...string) Mount {
		return Mount{Type: "overlay", Options: []string{"lowerdir=" + strings.Join(dirs, ":"), "upperdir=" + s.upper, "workdir=" + s.work}}
	}
	ids := func(m string) Mount { return s.mount("uidmap="+m, "gidmap=0:1:2") }
	for name, c := range map[string]struct {
		mounts []Mount
		kind   error
		text   string
	}{
		"none":             {nil, ErrInvalid, "no mounts"},
		"relative":         {[]Mount{lower("a/b", s.lowers[0])}, ErrInvalid, "absolute"},
		"dotdot":           {[]Mount{lower(s.dir + "/1/../2/fs")}, ErrInvalid, `".."`},
		"root":             {[]Mount{lower("/")}, ErrInvalid, "root directory"},
		"too many":         {[]Mount{lower(many...)}, ErrInvalid, "501 lower directories"},
		"empty lower":      {[]Mount{lower("")}, ErrInvalid, "empty name"},
		"twice":            {[]Mount{s.mount("upperdir=" + s.upper)}, ErrInvalid, "more than once"},
		"no work":          {[]Mount{{Type: "overlay", Options: []string{"lowerdir=/a:/b", "upperdir=/c"}}}, ErrInvalid, "one without the other"},
		"single lower":     {[]Mount{{Type: "overlay", Options: []string{"lowerdir=/a"}}}, ErrInvalid, "bind mount"},
		"link":             {[]Mount{lower(s.dir+"/link", s.lowers[1])}, nil, "symbolic link"},
		"link in between":  {[]Mount{lower(s.dir+"/middle/fs", s.lowers[1])}, nil, "symbolic link"},
		"missing":          {[]Mount{lower(s.dir+"/9/fs", s.lowers[1])}, unix.ENOENT, "/9/fs"},
		"lower twice":      {[]Mount{lower(s.lowers[0], s.lowers[0])}, unix.ELOOP, "is, or lies in, another"},
		"upper is lower":   {[]Mount{lower(s.upper, s.lowers[0])}, unix.ELOOP, "is, or lies in, another"},
		"file":             {[]Mount{lower(s.lowers[0]+"/top", s.lowers[1])}, unix.ENOTDIR, "/top"},
		"not consumed":     {[]Mount{s.mount("X-containerd.mkdir.path=/x")}, ErrInvalid, "mount manager"},
		"unknown option":   {[]Mount{s.mount("frobnicate=1")}, unix.EINVAL, "kernel: e overlay: Unknown parameter 'frobnicate'"},
		"conflict":         {[]Mount{s.mount("userxattr", "metacopy=on")}, ErrInvalid, "userxattr"},
		"half a map":       {[]Mount{s.mount("uidmap=0:1:2")}, ErrInvalid, "one without the other"},
		"bad map":          {[]Mount{ids("0:1")}, ErrInvalid, "container:host:size"},
		"unknown type":     {[]Mount{{Type: "nosuchfs", Source: "x"}}, unix.ENODEV, "nosuchfs"},
		"untransformed":    {[]Mount{{Type: "format/overlay", Source: "x"}}, ErrInvalid, "no lower directory"},
		"fuse":             {[]Mount{{Type: "fuse3.fuse-overlayfs", Source: "x"}}, ErrNeedsPath, "helper"},
		"relative bind":    {[]Mount{{Type: "bind", Source: "x"}}, ErrInvalid, "absolute"},
		"missing bind":     {[]Mount{{Type: "bind", Source: "/nonexistent"}}, unix.ENOENT, "/nonexistent"},
		"second root":      {[]Mount{s.mount(), {Type: "tmpfs"}}, ErrNeedsPath, "second mount"},
		"first not root":   {[]Mount{{Type: "tmpfs", Target: "/x"}}, ErrNeedsPath, "first mount"},
		"missing target":   {[]Mount{s.mount(), {Type: "tmpfs", Target: "/x/y"}}, unix.ENOENT, "/x/y"},
		"NUL":              {[]Mount{{Type: "tmpfs", Options: []string{"a\x00b"}}}, ErrInvalid, "NUL"},
		"long value":       {[]Mount{{Type: "tmpfs", Options: []string{"size=" + strings.Repeat("0", 256)}}}, ErrUnsupported, "255"},
		"cannot be mapped": {[]Mount{{Type: "proc", Source: "proc", Options: []string{"uidmap=0:1:2", "gidmap=0:1:2"}}}, unix.EINVAL, "ID mappings"},
		"missing image":    {[]Mount{{Type: "ext4", Source: "/nonexistent", Options: []string{"loop"}}}, unix.ENOENT, "/nonexistent"},
	} {
		t.Run(name, func(t *testing.T) {
			unchanged(t)
			tree, err := Assemble(t.Context(), c.mounts, Options{})
			if err == nil {
				tree.Close()
				t.Fatal("accepted")
			}
			if name == "unknown option" && !slices.Contains(tiers(t), Names) {
				t.Skip("overlayfs says so in the ring buffer only, before Linux 6.5")
			}
			if c.kind != nil && !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %v and %q", err, c.kind, c.text)
			}
			if c.kind != ErrUnsupported && errors.Is(err, ErrUnsupported) {
				t.Errorf("%v invites a fallback", err)
			}
		})
	}
}

// overlayfs falls back to read-only when it cannot write its work directory.
func TestSilentReadOnly(t *testing.T) {
	requireRoot(t)
	unchanged(t)
	s := newSnapshot(t, tmpfs(t), 2)
	writable := s.dir + "/3"
	// Root of the host has no ID in this view: it cannot create the directory.
	view := Mount{Type: "bind", Source: writable, Options: []string{"bind", "uidmap=" + testMap, "gidmap=" + testMap}}
	must(t, assemble(t, Options{}, view).Attach(writable))
	defer func() { must(t, Detach(writable)) }()
	_, err := Assemble(t.Context(), []Mount{s.mount()}, Options{})
	if err == nil || !strings.Contains(err.Error(), "read-only") || errors.Is(err, ErrUnsupported) {
		t.Errorf("overlay that cannot use its work directory: %v", err)
	}
}

// What overlayfs does not explain is not blamed on the kernel's age.
func TestWorkElsewhere(t *testing.T) {
	requireRoot(t)
	unchanged(t)
	s := newSnapshot(t, tmpfs(t), 2)
	s.work = t.TempDir()
	_, err := Assemble(t.Context(), []Mount{s.idmapped(t)}, Options{})
	if !errors.Is(err, unix.EINVAL) || errors.Is(err, ErrUnsupported) {
		t.Errorf("work directory on another mount: %v", err)
	}
}

func TestReadOnlyUpper(t *testing.T) {
	eachTier(t, func(t *testing.T, o Options) {
		unchanged(t)
		s := newSnapshot(t, tmpfs(t), 2)
		writable := s.dir + "/3"
		view := Mount{Type: "bind", Source: writable, Options: []string{"bind", "ro"}}
		must(t, assemble(t, Options{}, view).Attach(writable))
		defer func() { must(t, Detach(writable)) }()
		_, err := Assemble(t.Context(), []Mount{s.mount()}, o)
		if err == nil || !strings.Contains(err.Error(), "is read-only") || errors.Is(err, ErrUnsupported) {
			t.Errorf("overlay with a read-only upper directory: %v", err)
		}
	})
}

func TestCancelled(t *testing.T) {
	requireRoot(t)
	unchanged(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("task deleted")
	cancel(reason)
	if _, err := Assemble(ctx, []Mount{{Type: "tmpfs"}}, Options{}); !errors.Is(err, reason) {
		t.Errorf("got %v", err)
	}
}
