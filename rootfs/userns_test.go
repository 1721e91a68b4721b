package rootfs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseIDMap(t *testing.T) {
	for in, want := range map[string]string{
		"0:100000:65536":              "0:100000:65536",
		"0:1:1":                       "0:1:1",
		"10:200:10,0:100:10":          "0:100:10,10:200:10",
		"0:100:10,10:110:10":          "0:100:20",
		"0:0:4294967295":              "0:0:4294967295",
		"4294967294:0:1":              "4294967294:0:1",
		"":                            "",
		"0:1":                         "",
		"0:1:2:3":                     "",
		"0:1:2,":                      "",
		"0:1:0":                       "",
		"-1:1:1":                      "",
		"+1:1:1":                      "",
		"0x1:1:1":                     "",
		" 0:1:1":                      "",
		"0:1:4294967295":              "",
		"4294967295:1:1":              "",
		"4294967296:1:1":              "",
		"99999999999999999999:1:1":    "",
		"0:100:10,5:200:10":           "",
		"0:100:10,20:105:10":          "",
		"4294967290:4294967290:10":    "",
		"0:0:1,4294967295:4294967295": "",
	} {
		got, err := ParseIDMap(in, in)
		if want == "" {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%q: %v, %v", in, got, err)
			}
			continue
		}
		if err != nil || got.String() != "uidmap="+want+";gidmap="+want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	var many []string
	for i := range maxExtents + 1 {
		many = append(many, fmt.Sprintf("%d:%d:1", 2*i, i))
	}
	if _, err := ParseIDMap(strings.Join(many, ","), "0:0:1"); err == nil {
		t.Error("more extents than the kernel takes")
	}
	if _, err := ParseIDMap(strings.Join(many[:maxExtents], ","), "0:0:1"); err != nil {
		t.Error(err)
	}
}

func mapping(t testing.TB, uids, gids string) IDMap {
	t.Helper()
	ids, err := ParseIDMap(uids, gids)
	must(t, err)
	return ids
}

// playSleeper stays in its user namespace until its input ends.
func playSleeper([]string) error {
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// sleeper starts a process in a new user namespace, such as a pod's first one.
func sleeper(t *testing.T, uids, gids []syscall.SysProcIDMap) *exec.Cmd {
	t.Helper()
	cmd := play("sleeper")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: uids, GidMappings: gids}
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		stdin.Close()
		must(t, cmd.Wait())
	})
	_, err = bufio.NewReader(stdout).ReadString('\n')
	must(t, err)
	return cmd
}

func TestExistingUserNS(t *testing.T) {
	requireRoot(t)
	unchanged(t)
	// Two extents that continue one another are one mapping.
	cmd := sleeper(t,
		[]syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 10}, {ContainerID: 10, HostID: 100010, Size: 20}},
		[]syscall.SysProcIDMap{{ContainerID: 0, HostID: 200000, Size: 30}})
	pod := fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid)
	equal := mapping(t, "0:100000:30", "0:200000:30")
	f := existingUserNS(pod, equal)
	if f == nil {
		t.Fatal("the pod's namespace was not recognized")
	}
	defer f.Close()
	want, err := os.Stat(pod)
	must(t, err)
	got, err := f.Stat()
	must(t, err)
	if !os.SameFile(want, got) {
		t.Error("another namespace")
	}
	for path, ids := range map[string]IDMap{
		pod:                      mapping(t, "0:100000:31", "0:200000:30"),
		"/proc/self/ns/user":     equal,
		"/proc/4194305/ns/user":  equal,
		"/proc/self/../ns/user":  equal,
		"/var/run/userns/pinned": equal,
		"":                       equal,
	} {
		if f := existingUserNS(path, ids); f != nil {
			f.Close()
			t.Errorf("%q taken for %v", path, ids)
		}
	}
	s := newSnapshot(t, tmpfs(t), 2)
	tree := assemble(t, Options{UserNS: pod}, s.mount("uidmap=0:100000:30", "gidmap=0:200000:30"))
	inside(t, tree, func(root string) error {
		var st unix.Stat_t
		if err := unix.Lstat(root+"/top", &st); err != nil || st.Uid != 100000 || st.Gid != 200000 {
			t.Errorf("top belongs to %d:%d: %v", st.Uid, st.Gid, err)
		}
		return nil
	})
}

func TestUserNSCache(t *testing.T) {
	requireRoot(t)
	unchanged(t)
	var cache UserNSCache
	inode := func(ids IDMap) (uint64, error) {
		f, err := cache.Get(t.Context(), ids)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		var st unix.Stat_t
		err = unix.Fstat(int(f.Fd()), &st)
		return st.Ino, err
	}
	ids := mapping(t, testMap, testMap)
	const callers = 8
	inodes := make([]uint64, callers)
	var wg sync.WaitGroup
	for i := range inodes {
		wg.Go(func() {
			var err error
			if inodes[i], err = inode(ids); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(slices.Compact(slices.Clone(inodes))) != 1 {
		t.Errorf("several namespaces for one mapping: %v", inodes)
	}
	for i := range fileCacheSize + 3 {
		if _, err := inode(mapping(t, fmt.Sprintf("0:%d:10", i), testMap)); err != nil {
			t.Error(err)
		}
	}
	if n := len(cache.entries); n != fileCacheSize || n != len(cache.order) {
		t.Errorf("%d entries in the cache, %d in order", n, len(cache.order))
	}
	if _, err := inode(ids); err != nil {
		t.Error("after eviction:", err)
	}
	must(t, cache.Close())
	must(t, cache.Close())
	if _, err := inode(ids); err == nil {
		t.Error("a closed cache made a namespace")
	}
}

// A caller that waits for another's namespace gives up with its context.
func TestUserNSCacheWait(t *testing.T) {
	var cache UserNSCache
	ids := mapping(t, testMap, testMap)
	if _, mine, err := cache.entry(ids.String()); err != nil || !mine {
		t.Fatal(mine, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := cache.Get(ctx, ids); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func FuzzIDMap(f *testing.F) {
	for _, seed := range []string{testMap, "0:1:2,2:3:4", "", "0:0:4294967295", "1:2", "a:b:c", "10:200:10,0:100:10"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ids, err := ParseIDMap(s, s)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		again, err := ParseIDMap(formatExtents(ids.UIDs), formatExtents(ids.GIDs))
		if err != nil || again.String() != ids.String() {
			t.Errorf("%q: %v, then %v (%v)", s, ids, again, err)
		}
		var end uint64
		for _, e := range ids.UIDs {
			if uint64(e.Container) < end || e.Size == 0 {
				t.Errorf("%q: %v overlaps or is empty", s, e)
			}
			end = uint64(e.Container) + uint64(e.Size)
			if end > endOfIDs || uint64(e.Host)+uint64(e.Size) > endOfIDs {
				t.Errorf("%q: %v passes the last ID", s, e)
			}
		}
	})
}
