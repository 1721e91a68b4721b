package rootfs

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inFlight is how many root filesystems are being assembled when the process
// is killed.
const inFlight = 20

// playAssembler assembles over and over, in the tier args[0], as many at once
// as there are further arguments: the options of an overlay, one per line.
func playAssembler(args []string) error {
	tier, err := ParseTier(args[0])
	if err != nil {
		return err
	}
	o := Options{Tier: tier, Workshop: &Workshop{}}
	failed := make(chan error)
	for _, options := range args[1:] {
		m := Mount{Type: "overlay", Source: "overlay", Options: strings.Split(options, "\n")}
		go func() {
			for {
				tree, err := Assemble(context.Background(), []Mount{m}, o)
				if err == nil {
					_, err = tree.Handover("/nonexistent")
				}
				if err != nil {
					failed <- err
				}
				if err := tree.Close(); err != nil {
					failed <- err
				}
			}
		}()
	}
	fmt.Println("ready")
	return <-failed
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

// Killed at any instant, assemblies leave no mount, no process and no file,
// and nothing keeps the layers' file system busy.
func TestKilled(t *testing.T) {
	requireRoot(t)
	for _, tier := range tiers(t) {
		if tier == Host {
			continue // leaves what is attached on the host to Detach
		}
		t.Run(tier.String(), func(t *testing.T) {
			unchanged(t)
			for i := range 12 {
				dir := t.TempDir()
				mountScratch(t, dir)
				s := newSnapshot(t, dir, 20)
				args := []string{tier.String()}
				for range inFlight {
					args = append(args, strings.Join(s.fresh(t, true).Options, "\n"))
				}
				kill(t, play("assembler", args...), time.Duration(i)*1700*time.Microsecond)
				if left := orphans(t, userNSProcess, dir); left != "" {
					t.Errorf("left behind: %s", left)
				}
				if entries, err := os.ReadDir(s.dir); err != nil || len(entries) != 21+inFlight {
					t.Errorf("%d entries in the snapshot directory: %v", len(entries), err)
				}
				// Closing of the dead process's mounts may still be under way.
				var err error
				for range 300 {
					if err = unix.Unmount(dir, 0); err != unix.EBUSY {
						break
					}
					time.Sleep(10 * time.Millisecond)
				}
				must(t, err)
			}
		})
	}
}

// orphans lists live processes whose command line is name or, as a child's that
// has not come to its exec, has one of the words.
func orphans(t *testing.T, name string, words ...string) string {
	t.Helper()
	var found []string
	for range 50 { // the parent-death signal takes a moment
		found = nil
		files, err := filepath.Glob("/proc/[0-9]*/cmdline")
		must(t, err)
		for _, f := range files {
			b, _ := os.ReadFile(f)
			has := func(word string) bool { return strings.Contains(string(b), word) }
			if string(b) == name+"\x00" || slices.ContainsFunc(words, has) {
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
