package rootfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// playInit is what a container's init does first. It then tells what it sees:
// its part of the mount table, and what a program that it executes would find
// in descriptors 3 and 4.
func playInit(args []string) error {
	if err := AttachInherited(); err != nil {
		return err
	}
	for _, fd := range []int{inheritedMount, inheritedTarget} {
		link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		flags, flagsErr := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		fmt.Printf("fd %d: %s cloexec=%v %v\n", fd, link, flags&unix.FD_CLOEXEC != 0, errors.Join(err, flagsErr))
	}
	for _, path := range args {
		uid, err := owner(path)
		fmt.Printf("%s: %d %v\n", path, uid, err)
		if err == nil && strings.HasSuffix(path, "layer1") {
			fmt.Println("write:", os.WriteFile(path, []byte("x"), 0))
		}
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	fmt.Printf("%s", table)
	return err
}

// propagation gives the optional fields of the mount on path.
func propagation(table, path string) string {
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) > 6 && fields[4] == path {
			return strings.Trim(fields[6], "-0123456789:")
		}
	}
	return "absent"
}

func TestHandover(t *testing.T) {
	requireRoot(t)
	for _, user := range []bool{false, true} {
		t.Run(fmt.Sprintf("user namespace=%v", user), func(t *testing.T) {
			// As on a host: the bundle and the volumes lie on shared mounts.
			run, volumes := tmpfs(t), tmpfs(t)
			for dir := run; dir != "/"; dir = filepath.Dir(dir) {
				must(t, os.Chmod(dir, 0o1777))
			}
			for _, shared := range []string{run, volumes} {
				must(t, unix.Mount("", shared, "", unix.MS_SHARED, ""))
			}
			bundle := filepath.Join(run, "ns", "id")
			must(t, os.MkdirAll(filepath.Join(bundle, "rootfs"), 0o711))
			// Lexically, "linked" is below another directory than its mount's.
			link := filepath.Join(volumes, "link")
			must(t, os.Symlink(filepath.Join(run, "ns"), link))
			must(t, os.Chmod(volumes, 0o755))
			target := filepath.Join(link, "id", "rootfs")
			real := filepath.Join(bundle, "rootfs")

			s := newSnapshot(t, tmpfs(t), 3)
			m := s.mount()
			if user {
				m = s.idmapped(t)
			}
			unchanged(t)
			tree := assemble(t, Options{}, m)
			files, err := tree.Handover(target)
			must(t, err)

			cmd := play("init", real+"/layer1")
			cmd.ExtraFiles = files
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
			if user {
				maps := []syscall.SysProcIDMap{{ContainerID: 0, HostID: testRoot, Size: 65536}}
				cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
				cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = maps, maps
				cmd.SysProcAttr.Credential = &syscall.Credential{}
			}
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %s", err, stderr.String())
			}
			must(t, tree.Close())
			got := string(out)
			for _, want := range []string{
				"fd 3: /dev/null cloexec=true <nil>\n", "fd 4: /dev/null cloexec=true <nil>\n",
				real + "/layer1: 33 <nil>\n", "write: <nil>\n", " " + real + " rw",
			} {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
			if p := propagation(got, run); p != "master" {
				t.Errorf("the bundle's mount is %q in the container, want master: a slave of the host's", p)
			}
			want := "shared"
			if user {
				want = "master" // a copy for another user namespace is a slave
			}
			if p := propagation(got, volumes); p != want {
				t.Errorf("another mount is %q in the container, want %q", p, want)
			}
			want0 := uint32(33)
			if user {
				want0 += testRoot
			}
			if uid, err := owner(filepath.Join(s.upper, "layer1")); err != nil || uid != want0 {
				t.Errorf("copied up file belongs to %d (%v), want %d", uid, err, want0)
			}
		})
	}
}

// The prologue runs in every init and exec, mostly without a handover.
func TestAttachInheritedWithoutHandover(t *testing.T) {
	requireRoot(t)
	unchanged(t)
	sealed := func(content string) *os.File {
		f, err := sealedFile("test", content)
		must(t, err)
		t.Cleanup(func() { f.Close() })
		return f
	}
	unsealed, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	must(t, err)
	open := os.NewFile(uintptr(unsealed), "unsealed")
	defer open.Close()
	_, err = open.WriteString(targetMagic + "/tmp")
	must(t, err)
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer null.Close()
	for name, files := range map[string][]*os.File{
		"none":          nil,
		"one":           {null},
		"two":           {null, null},
		"other content": {null, sealed("#!" + strings.Repeat("x", 100))},
		"empty":         {null, sealed("")},
		"no path":       {null, sealed(targetMagic)},
		"unsealed":      {null, open},
	} {
		cmd := play("init")
		cmd.ExtraFiles = files
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
		if len(files) == 2 && strings.Contains(string(out), "cloexec=true") {
			t.Errorf("%s: took over descriptors of others:\n%s", name, out)
		}
	}
}

func TestAttachInheritedFails(t *testing.T) {
	requireRoot(t)
	unchanged(t)
	tree := assemble(t, Options{}, Mount{Type: "tmpfs", Source: "tmpfs"})
	for _, target := range []string{"/nonexistent/rootfs", "/dev/null"} {
		files, err := tree.Handover(target)
		must(t, err)
		cmd := play("init")
		cmd.ExtraFiles = files
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || !strings.Contains(string(out), target) {
			t.Errorf("%s: %v: %s", target, err, out)
		}
	}
	for _, target := range []string{"", "/", "relative", "/a/../b", "/" + strings.Repeat("x", 4096)} {
		if _, err := tree.Handover(target); !errors.Is(err, ErrInvalid) {
			t.Errorf("handover for %.20q: %v", target, err)
		}
	}
}
