package main

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/rootfs"
)

// container is where one container lies.
type container struct{ upper, work, target string }

// job is one root filesystem to make.
type job struct {
	*container
	layers []string // topmost first
	mapped bool
	mount  rootfs.Mount // the same, as containerd asks a shim for it
}

func newJob(c *container, layers []string, mapped bool) job {
	options := []string{"workdir=" + c.work, "upperdir=" + c.upper, "lowerdir=" + strings.Join(layers, ":")}
	if mapped {
		options = append(options, "uidmap="+mapping, "gidmap="+mapping)
	}
	return job{c, layers, mapped, rootfs.Mount{Type: "overlay", Source: "overlay", Options: options}}
}

// made is a root filesystem that is ready to be handed over.
type made struct {
	remove   func() error
	syscalls int // made for it, without those of Go's runtime
}

// way makes a root filesystem. A shim's process has what options it keeps, and
// a user namespace, at hand.
type way struct {
	name          string
	mapped, plain bool // whether it is one with, and without an ID mapping
	promised      bool // whether a promise is about it
	make          func(*shim, job) (made, error)
}

// Names of the ways that verdicts are about.
const (
	nothing      = "nothing"
	ours         = "detached"
	onBase       = "shared base"
	commonParent = "common parent"
	perLayer     = "per layer"
	plainMount   = "mount(2)"
)

// allWays are the ways in the order of the tables.
var allWays = []way{
	{nothing, true, true, true, func(*shim, job) (made, error) {
		return made{remove: func() error { return nil }}, nil
	}},
	{onBase, true, true, true, inTier(rootfs.Detached, true)},
	{"shared base, its first", true, true, false, firstOnBase},
	{ours, true, true, true, inTier(rootfs.Detached, false)},
	{"descriptors", true, true, false, inTier(rootfs.Descriptors, false)},
	{"names", true, true, false, inTier(rootfs.Names, false)},
	{"options", true, true, false, inTier(rootfs.OptionString, false)},
	{"host", true, true, false, inTier(rootfs.Host, false)},
	{plainMount, false, true, true, byMount},
	{commonParent, true, false, true, throughCommonParent},
	{perLayer, true, false, true, throughEachLayer},
}

// shim is what a shim's process keeps between containers.
type shim struct {
	cache    rootfs.UserNSCache
	base     rootfs.BaseCache
	workshop rootfs.Workshop
	userNS   *os.File
}

const mapping = "0:100000:65536"

func newShim(ctx context.Context) (*shim, error) {
	s := &shim{}
	ids, err := rootfs.ParseIDMap(mapping, mapping)
	if err != nil {
		return nil, err
	}
	s.userNS, err = s.cache.Get(ctx, ids)
	return s, err
}

func (s *shim) assemble(j job, tier rootfs.Tier, base *rootfs.BaseCache) (made, error) {
	tree, err := rootfs.Assemble(context.Background(), []rootfs.Mount{j.mount},
		rootfs.Options{Cache: &s.cache, Workshop: &s.workshop, Base: base, Tier: tier, Target: j.target})
	if err != nil {
		return made{}, err
	}
	return made{
		syscalls: tree.Stats().Syscalls,
		remove: func() error {
			if err := tree.Close(); err != nil || tree.Host() == "" {
				return err
			}
			return rootfs.Detach(tree.Host())
		},
	}, nil
}

func inTier(tier rootfs.Tier, base bool) func(*shim, job) (made, error) {
	return func(s *shim, j job) (made, error) {
		if base {
			return s.assemble(j, tier, &s.base)
		}
		return s.assemble(j, tier, nil)
	}
}

// firstOnBase makes the base as well.
func firstOnBase(s *shim, j job) (made, error) {
	base := &rootfs.BaseCache{}
	m, err := s.assemble(j, rootfs.Detached, base)
	if err != nil {
		return made{}, err
	}
	removeTop := m.remove
	m.remove = func() error {
		if err := removeTop(); err != nil {
			return err
		}
		return base.Close()
	}
	return m, nil
}

// calls makes containerd's system calls, until one fails, and counts them.
type calls struct {
	n   int
	err error
}

func (c *calls) do(call func() error) {
	if c.err == nil {
		c.n++
		c.err = call()
	}
}

// attachClone attaches a clone of dir on point, with the ID mapping.
func (c *calls) attachClone(s *shim, dir, point string, attributes uint64) {
	fd := -1
	c.do(func() (err error) {
		fd, err = unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		return err
	})
	c.do(func() error {
		return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{
			Attr_set: unix.MOUNT_ATTR_IDMAP | attributes, Propagation: unix.MS_PRIVATE, Userns_fd: uint64(s.userNS.Fd()),
		})
	})
	c.do(func() error { return unix.MoveMount(fd, "", unix.AT_FDCWD, point, unix.MOVE_MOUNT_F_EMPTY_PATH) })
	if fd >= 0 {
		c.n++
		unix.Close(fd)
	}
}

// pageLimit is what containerd gives to mount(2) as one string at most.
const pageLimit = 4096 - 512

// overlay is one mount(2), from the directory above the layers if their names
// do not fit otherwise. The layers are names below parent.
func (c *calls) overlay(j job, parent string, names []string) {
	data := func(names []string) string {
		return "workdir=" + j.work + ",upperdir=" + j.upper + ",lowerdir=" + strings.Join(names, ":")
	}
	full := make([]string, len(names))
	for i, name := range names {
		full[i] = parent + "/" + name
	}
	if s := data(full); len(s) < pageLimit {
		c.do(func() error { return unix.Mount("overlay", j.target, "overlay", 0, s) })
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread's directory is not ours
		c.do(func() error { return unix.Unshare(unix.CLONE_FS) })
		c.do(func() error { return unix.Chdir(parent) })
		c.do(func() error { return unix.Mount("overlay", j.target, "overlay", 0, data(names)) })
		c.do(func() error { return unix.Chdir("/") }) // or the thread keeps parent busy until it has ended
	}()
	<-done
}

func (c *calls) made(j job) (made, error) {
	return made{syscalls: c.n, remove: func() error { return unix.Unmount(j.target, 0) }}, c.err
}

// below gives the directory above the layers, and their names.
func below(layers []string) (parent string, names []string) {
	parent = filepath.Dir(filepath.Dir(layers[0]))
	names = make([]string, len(layers))
	for i, layer := range layers {
		names[i] = layer[len(parent)+1:]
	}
	return parent, names
}

func byMount(_ *shim, j job) (made, error) {
	var c calls
	parent, names := below(j.layers)
	c.overlay(j, parent, names)
	return c.made(j)
}

// throughCommonParent is containerd since 2.2. containerd reads the mount
// table as well before it unmounts.
func throughCommonParent(s *shim, j job) (made, error) {
	var c calls
	var dir string
	c.do(func() (err error) {
		dir, err = os.MkdirTemp(tempMounts, "ovl-idmapped")
		return err
	})
	parent, names := below(j.layers)
	c.attachClone(s, parent, dir, unix.MOUNT_ATTR_RDONLY)
	c.overlay(j, dir, names)
	c.do(func() error { return unix.Unmount(dir, 0) })
	c.do(func() error { return unix.Rmdir(dir) })
	return c.made(j)
}

// throughEachLayer is containerd until 2.1.
func throughEachLayer(s *shim, j job) (made, error) {
	var c calls
	var dir string
	c.do(func() (err error) {
		dir, err = os.MkdirTemp(tempMounts, "ovl-idmapped")
		return err
	})
	names := make([]string, len(j.layers))
	for i, layer := range j.layers {
		names[i] = strconv.Itoa(i)
		point := dir + "/" + names[i]
		c.do(func() error { return unix.Mkdir(point, 0o700) })
		c.attachClone(s, layer, point, 0)
	}
	c.overlay(j, dir, names)
	for _, name := range names {
		c.do(func() error { return unix.Unmount(dir+"/"+name, 0) })
	}
	for _, name := range names {
		c.do(func() error { return unix.Rmdir(dir + "/" + name) })
	}
	c.do(func() error { return unix.Rmdir(dir) })
	return c.made(j)
}
