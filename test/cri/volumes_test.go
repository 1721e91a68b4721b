package cri

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"containerd-shim-numa-v1/test/kubelet"
	"containerd-shim-numa-v1/test/rig"
)

// mountTmpfs mounts one on a directory that it makes, until the test ends.
func (s *scene) mountTmpfs(dir string) {
	s.t.Helper()
	s.must(os.MkdirAll(dir, 0o755))
	s.must(unix.Mount("volume", dir, "tmpfs", 0, ""))
	s.t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
}

// TestPropagation mounts on the node and in the container, under a volume of
// each propagation, and looks from the other side.
func TestPropagation(t *testing.T) {
	for name, c := range map[string]struct {
		mode                 runtimeapi.MountPropagation
		fromHost, fromInside bool
	}{
		"private":         {runtimeapi.MountPropagation_PROPAGATION_PRIVATE, false, false},
		"HostToContainer": {runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, true, false},
		"Bidirectional":   {runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			p := s.pod(kubelet.Privileged) // as kubelet demands for Bidirectional
			volume := s.volume(p, "data")
			s.mountTmpfs(filepath.Join(volume, "before"))
			main := s.run(p, "main", idle,
				kubelet.Security(func(sc *runtimeapi.LinuxContainerSecurityContext) { sc.Privileged = true }),
				kubelet.Mount(&runtimeapi.Mount{HostPath: volume, ContainerPath: "/volume", Propagation: c.mode}))
			s.mountTmpfs(filepath.Join(volume, "after"))
			inside := s.shell(main, "cat /proc/mounts")
			want(t, "that the container has the mount from before", strings.Contains(inside, " /volume/before "), true)
			want(t, "that the container has the node's later mount", strings.Contains(inside, " /volume/after "), c.fromHost)

			s.shell(main, "mkdir /volume/inside && mount -t tmpfs volume /volume/inside")
			reached := rig.CountMounts(" on "+filepath.Join(volume, "inside")) == 1
			want(t, "that the container's mount reached the node", reached, c.fromInside)
			if reached {
				s.must(unix.Unmount(filepath.Join(volume, "inside"), unix.MNT_DETACH))
			}
		})
	}
}

// TestReadOnlyVolumes has a read-only volume with a mount below it: that is
// writable, as ever, unless all is to be read-only.
func TestReadOnlyVolumes(t *testing.T) {
	s := begin(t)
	p := s.pod()
	volume := s.volume(p, "data")
	s.mountTmpfs(filepath.Join(volume, "below"))
	const try = "touch /volume/file 2>/dev/null && echo -n writable; touch /volume/below/file 2>/dev/null && echo -n +below; true"
	plain := s.run(p, "plain", idle, kubelet.Mount(&runtimeapi.Mount{HostPath: volume, ContainerPath: "/volume", Readonly: true}))
	want(t, "what is writable", s.shell(plain, try), "+below")
	recursive, err := p.Run(s.ctx, "recursive", idle, kubelet.Mount(&runtimeapi.Mount{
		HostPath: volume, ContainerPath: "/volume", Readonly: true, RecursiveReadOnly: true}))
	s.must(err)
	writable := ""
	if old() {
		writable = "+below" // 1.7 does not know of it; nor does it tell kubelet that it does
	}
	want(t, "what is writable of the recursive", s.shell(recursive, try), writable)
}

// TestSharedMemory has one /dev/shm for a pod's containers, in memory, and
// none of it for another pod.
func TestSharedMemory(t *testing.T) {
	s := begin(t)
	var options []kubelet.PodOption
	if mapped() {
		options = append(options, kubelet.UserNamespace(100000))
	}
	p, stranger := s.pod(options...), s.pod()
	writer, reader := s.run(p, "writer", idle), s.run(p, "reader", idle)
	s.shell(writer, "echo shared > /dev/shm/file")
	want(t, "what the pod's other container reads", s.shell(reader, "cat /dev/shm/file"), "shared")
	want(t, "file system of /dev/shm", s.shell(reader, "/payload stats /dev/shm"), "0x1021994") // TMPFS_MAGIC
	want(t, "what another pod has", s.shell(s.run(stranger, "main", idle), "ls /dev/shm"), "")
}

// TestMemoryVolume is an emptyDir in memory, which kubelet mounts, shared by
// two containers, with a file of it mounted alone, as by subPath.
func TestMemoryVolume(t *testing.T) {
	s := begin(t)
	p := s.pod()
	volume := filepath.Join(p.Dir(), "volumes", "memory")
	s.mountTmpfs(volume)
	s.must(os.WriteFile(filepath.Join(volume, "file"), []byte("content"), 0o644))
	writer := s.run(p, "writer", idle, kubelet.Mount(&runtimeapi.Mount{HostPath: volume, ContainerPath: "/cache"}))
	reader := s.run(p, "reader", idle,
		kubelet.Mount(&runtimeapi.Mount{HostPath: filepath.Join(volume, "file"), ContainerPath: "/etc/file", Readonly: true}))
	s.shell(writer, "echo -n more >> /cache/file")
	want(t, "what is read", s.shell(reader, "cat /etc/file"), "contentmore")
	want(t, "file system", s.shell(writer, "/payload stats /cache"), "0x1021994")
}

// imageVolume mounts the content of an image.
func imageVolume(image, path string) kubelet.ContainerOption {
	return kubelet.Mount(&runtimeapi.Mount{
		ContainerPath: path, Readonly: true,
		Image: &runtimeapi.ImageSpec{Image: image, UserSpecifiedImage: image},
	})
}

// TestImageVolume mounts an image's content, read-only. 1.7 knows no image
// volumes.
func TestImageVolume(t *testing.T) {
	s := begin(t)
	p := s.pod()
	c, err := p.Create(s.ctx, "main", idle, imageVolume(kubelet.LayeredImage, "/image"))
	if old() {
		if err == nil {
			t.Error("1.7 made a container with an image volume")
		}
		return
	}
	s.must(err)
	s.must(c.Start(s.ctx))
	want(t, "tree", s.shell(c, "/payload tree /image/data")+"\n", s.Tree.String())
	want(t, "that it is writable", s.shell(c, "touch /image/file 2>/dev/null && echo yes || echo no"), "no")
}

// TestDevice gives a container a device of the node, to write to only.
func TestDevice(t *testing.T) {
	s := begin(t)
	c := s.run(s.pod(), "main", idle, kubelet.WithConfig(func(c *runtimeapi.ContainerConfig) {
		c.Devices = []*runtimeapi.Device{{HostPath: "/dev/kmsg", ContainerPath: "/dev/given", Permissions: "w"}}
	}))
	want(t, "that it can be opened to write", s.shell(c, "(: > /dev/given) 2>/dev/null && echo yes || echo no"), "yes")
	want(t, "that it can be opened to read", s.shell(c, "(: < /dev/given) 2>/dev/null && echo yes || echo no"), "no")
}
