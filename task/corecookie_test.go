package task

import (
	"errors"
	"os/exec"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cookieOf is the core-scheduling cookie of a thread, 0 if it has none.
func cookieOf(t *testing.T, tid int) (cookie uint64) {
	t.Helper()
	err := unix.Prctl(unix.PR_SCHED_CORE, unix.PR_SCHED_CORE_GET, uintptr(tid),
		unix.PR_SCHED_CORE_SCOPE_THREAD, uintptr(unsafe.Pointer(&cookie)))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) {
		t.Skipf("needs a kernel with CONFIG_SCHED_CORE, which Debian's have not, and SMT: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return cookie
}

// The shim makes one cookie, and what it starts has it. A host that cannot give
// one is no obstacle.
func TestCoreCookie(t *testing.T) {
	var s Service
	s.shareCores()
	own := cookieOf(t, unix.Gettid())
	if own == 0 {
		t.Error("no cookie was made")
	}
	s.shareCores()
	if again := cookieOf(t, unix.Gettid()); again != own {
		t.Errorf("the cookie changed from %#x to %#x", own, again)
	}
	child := exec.Command("/bin/sleep", "1000")
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = child.Process.Kill(), child.Wait() }()
	if got := cookieOf(t, child.Process.Pid); got != own {
		t.Errorf("the child has cookie %#x, the shim %#x", got, own)
	}
}
