package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"containerd-shim-numa-v1/test/rig"
)

// victim is a running container whose shim, as that of a pod, is also asked
// for what cannot be.
type victim struct {
	*container
	shim        int // its pid
	descriptors int // that it had before
	execs       int
}

// victim runs a container, and others beside it, of which one fails, so that
// what a shim opens once is open.
func (s *scene) victim() *victim {
	s.t.Helper()
	id := s.newID()
	v := &victim{container: s.run(idle, withID(id), withAnnotation(sandboxAnnotation, id))}
	for _, shim := range rig.Shims(rig.ShimBinary(*runtimeFlag)) {
		if shim.ID == id {
			v.shim = shim.Pid
		}
	}
	if v.shim == 0 {
		s.t.Fatal("found no shim of the pod")
	}
	want(s.t, "exit status of a container of the pod", s.run([]string{"/bin/true"}, v.beside()).finish(), 0)
	v.refused(v.attempt([]string{"/no/such/program"}), "/no/such/program")
	v.descriptors = len(v.open())
	return v
}

// beside puts a container into the victim's pod.
func (v *victim) beside() option { return withAnnotation(sandboxAnnotation, v.ID()) }

// open are the files that the shim has open. libcontainer opens the root of the
// cgroups when it first needs it, for good, and leaves the FIFO of a container
// that failed to start to the garbage collector.
func (v *victim) open() []string {
	dir := fmt.Sprintf("/proc/%d/fd", v.shim)
	entries, _ := os.ReadDir(dir)
	var open []string
	for _, e := range entries {
		file, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err == nil && file != "/sys/fs/cgroup" && !strings.HasSuffix(file, "exec.fifo (deleted)") {
			open = append(open, file)
		}
	}
	return open
}

// unharmed sees that the shim serves the victim, and holds no file that it did
// not hold before.
func (v *victim) unharmed() {
	v.t.Helper()
	v.execs++
	p := v.exec(fmt.Sprintf("alive-%d", v.execs), []string{"/bin/true"})
	want(v.t, "exit status of an exec in the victim", p.status(), 0)
	p.delete()
	if v.descriptors == 0 || !ours() {
		return
	}
	if !rig.Eventually(eventBound, func() bool { return len(v.open()) <= v.descriptors }) {
		v.t.Errorf("the shim had %d files open, now: %q", v.descriptors, v.open())
	}
}

// attempt creates and starts a container in the victim's pod and tells why
// that failed. What is left of it is removed.
func (v *victim) attempt(args []string, opts ...option) error {
	v.t.Helper()
	first := len(v.ids)
	c, err := v.tryCreate(args, append(opts, v.beside())...)
	if err == nil {
		err = c.Start(v.ctx)
	}
	for _, id := range v.ids[first:] {
		if removeErr := v.scene.remove(id); removeErr != nil {
			v.t.Errorf("remove %s: %v", id, removeErr)
		}
	}
	return err
}

// refused checks that an attempt failed for the reason that the words tell,
// and that the victim does not suffer. The words are those of our shim.
func (v *victim) refused(err error, words string) {
	v.t.Helper()
	switch {
	case err == nil:
		v.t.Error("it was not refused")
	case !detached():
	case !strings.Contains(err.Error(), words):
		v.t.Errorf("refused with %q, which does not say %q", err, words)
	case strings.Contains(err.Error(), "panic"), strings.Contains(err.Error(), "\n"):
		v.t.Errorf("refused with %q", err)
	}
	v.unharmed()
}
