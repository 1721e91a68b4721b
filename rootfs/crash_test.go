package rootfs

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// playAssembler assembles the mount whose options are args over and over.
func playAssembler(args []string) error {
	fmt.Println("ready")
	for {
		tree, err := Assemble(context.Background(), []Mount{{Type: "overlay", Source: "overlay", Options: args}}, Options{})
		if err != nil {
			return err
		}
		if _, err := tree.Handover("/nonexistent"); err != nil {
			return err
		}
		if err := tree.Close(); err != nil {
			return err
		}
	}
}

// playNamespace makes user namespaces over and over.
func playNamespace([]string) error {
	ids, err := ParseIDMap(testMap, testMap)
	fmt.Println("ready")
	for err == nil {
		var f *os.File
		if f, err = newUserNS(ids); err == nil {
			err = f.Close()
		}
	}
	return err
}

func TestKilledWhileMakingUserNS(t *testing.T) {
	requireRoot(t)
	unchanged(t)
	for i := range 15 {
		kill(t, play("namespace"), time.Duration(i)*300*time.Microsecond)
	}
	if left := orphans(t, userNSProcess); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

// kill starts cmd, and kills it when it has been ready for a while.
func kill(t *testing.T, cmd *exec.Cmd, after time.Duration) {
	t.Helper()
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	_, err = bufio.NewReader(stdout).ReadString('\n')
	must(t, err)
	time.Sleep(after)
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // killed
}

// Killed at any instant, an assembly leaves no mount, no process and no file,
// and nothing keeps the layers' file system busy.
func TestKilled(t *testing.T) {
	requireRoot(t)
	dir := t.TempDir()
	for i := range 12 {
		unchanged(t)
		must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"))
		s := newSnapshot(t, dir, 20)
		kill(t, play("assembler", s.idmapped(t).Options...), time.Duration(i)*700*time.Microsecond)
		if left := orphans(t, userNSProcess); left != "" {
			t.Errorf("left behind: %s", left)
		}
		work, err := os.ReadDir(s.dir)
		if err != nil || len(work) != 21 {
			t.Errorf("%d entries in the snapshot directory: %v", len(work), err)
		}
		// Closing of the dead process's mounts may still be under way.
		for range 100 {
			if err = unix.Unmount(dir, 0); err != unix.EBUSY {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		must(t, err)
	}
}

// orphans lists live processes whose command line is name and whose parent is
// not this process.
func orphans(t *testing.T, name string) string {
	t.Helper()
	var found []string
	for range 50 { // the parent-death signal takes a moment
		found = nil
		files, err := filepath.Glob("/proc/[0-9]*/cmdline")
		must(t, err)
		for _, f := range files {
			if b, _ := os.ReadFile(f); string(b) == name+"\x00" {
				found = append(found, f)
			}
		}
		if len(found) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return strings.Join(found, " ")
}
