package shim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// deleteBudget bounds a delete from the beginning of its process: on a
	// busy machine some time passes before it does anything. containerd kills
	// it after 5 s (io.containerd.timeout.shim.cleanup).
	deleteBudget = 4500 * time.Millisecond

	// leastBudget is what a delete has however late it begins: time to kill.
	// To be killed itself then costs nothing, as the next one takes up from
	// there, and containerd may have been told to wait for longer.
	leastBudget = time.Second

	// deleteParallel bounds how many containers of a dead group are deleted at
	// once: more than a pod has, so that all are killed at once, and none waits
	// for another to end.
	deleteParallel = 64

	// ticksPerSecond is the unit of times in /proc, the kernel's USER_HZ.
	ticksPerSecond = 100
)

// delete cleans up what is left of one container. If the container is the one
// that its group is named after and the group's daemon died, it also cleans
// up the rest of the group: containerd up to 2.4.1 does not ask for those.
func (r Runtime) delete(ctx context.Context, f flags) error {
	bundle, err := f.bundleDir()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, budget(age()))
	defer cancel()
	own := Target{Namespace: f.namespace, ID: f.id, Bundle: bundle, Address: f.address, Debug: f.debug}

	var exit Exit
	socket, dead := deadGroup(own, r.tuned().socketDir)
	if dead {
		exit, err = r.deleteGroup(ctx, own, socket)
	} else {
		exit, err = r.Delete(ctx, own)
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", f.id, err)
	}

	if exit.At.IsZero() {
		exit.At = time.Now()
	}
	data, err := proto.Marshal(&task.DeleteResponse{
		Pid:        exit.Pid,
		ExitStatus: exit.Status,
		ExitedAt:   timestamppb.New(exit.At),
	})
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	if _, err := os.Stdout.Write(data); err != nil {
		return fmt.Errorf("write the answer to stdout: %w", err)
	}
	return nil
}

// budget is the time that is left to a delete whose process is of this age.
func budget(age time.Duration) time.Duration { return max(deleteBudget-age, leastBudget) }

// age is for how long this process has existed, at most the whole budget of a
// delete; 0 if that is not known.
func age() time.Duration {
	const startField = 22 // of proc_pid_stat(5); the second ends with the last ")"
	stat, err := os.ReadFile("/proc/self/stat")
	var now unix.Timespec
	if err != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return 0
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) <= startField-3 {
		return 0
	}
	ticks, err := strconv.ParseInt(fields[startField-3], 10, 64)
	if err != nil {
		return 0
	}
	begun := time.Duration(ticks) * (time.Second / ticksPerSecond)
	return min(max(time.Duration(now.Nano())-begun, 0), deleteBudget)
}

// deadGroup tells whether the container is the one its group is named after
// and the group's daemon died, and where that one listened. Nothing is read
// but the address unless a socket refuses connections.
func deadGroup(own Target, defaultDir string) (socket string, dead bool) {
	socket, err := recordedSocket(own, defaultDir)
	if err != nil {
		return "", false
	}
	if answer, err := dial(socket); err != nil || answer != refusing {
		return "", false
	}
	if group, err := groupOf(own.Bundle, own.ID); err == nil {
		return socket, group == own.ID
	}
	// Without a config.json, the socket's name tells the group.
	named, err := socketPath(filepath.Dir(socket), own.Address, own.Namespace, own.ID, false)
	return socket, err == nil && named == socket
}

// recordedSocket returns where the daemon of the container's group listens or
// listened. Without a record, that is where it would if the group has the
// container's id.
func recordedSocket(own Target, defaultDir string) (string, error) {
	address, err := os.ReadFile(filepath.Join(own.Bundle, addressName))
	if path, ok := strings.CutPrefix(string(address), unixScheme); err == nil && ok {
		return path, nil
	}
	dir, err := os.Readlink(filepath.Join(own.Bundle, socketDirName))
	if err != nil {
		dir = defaultDir
	}
	return socketPath(dir, own.Address, own.Namespace, own.ID, false)
}

// deleteGroup deletes a container and its siblings, and then the socket that
// shows that the group needs it: if something went wrong, the next delete
// finds it again.
func (r Runtime) deleteGroup(ctx context.Context, own Target, socket string) (Exit, error) {
	siblings, err := siblingsOf(own)
	if err != nil {
		log.G(ctx).WithError(err).Warn("some containers of the group may be left")
	}
	complete := err == nil

	var (
		group sync.WaitGroup
		mu    sync.Mutex // guards complete
		slots = make(chan struct{}, deleteParallel)
	)
	for _, sibling := range siblings {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			err := r.deleteSibling(ctx, sibling, socket)
			if err == nil {
				return
			}
			log.G(ctx).WithError(err).WithField("id", sibling.ID).Warn("delete a container of the same group")
			mu.Lock()
			defer mu.Unlock()
			complete = false
		})
	}
	exit, err := r.Delete(ctx, own)
	group.Wait()
	if err != nil || !complete {
		return exit, err
	}
	if err := removeRefusing(socket); err != nil {
		log.G(ctx).WithError(err).Warn("remove the group's socket")
	}
	return exit, nil
}

// deleteSibling deletes another container of a dead group, unless the group
// has a daemon again.
func (r Runtime) deleteSibling(ctx context.Context, sibling Target, socket string) error {
	answer, err := dial(socket)
	if err != nil {
		return err
	}
	if answer == listening {
		return nil
	}
	_, err = r.Delete(ctx, sibling)
	return err
}

// siblingsOf returns the other containers whose bundles lie beside this one's
// and that are of the group with its id.
func siblingsOf(own Target) ([]Target, error) {
	parent := filepath.Dir(own.Bundle)
	entries, err := os.ReadDir(parent)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for containers of group %s: %w", own.ID, err)
	}
	var siblings []Target
	var failed error
	for _, entry := range entries {
		id := entry.Name()
		if id == own.ID || !entry.IsDir() || validateID(id) != nil {
			continue
		}
		bundle := filepath.Join(parent, id)
		config, err := os.ReadFile(filepath.Join(bundle, configName))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("look for containers of group %s: %w", own.ID, err))
			continue
		}
		if !bytes.Contains(config, []byte(own.ID)) { // spares parsing; ids have nothing that JSON escapes
			continue
		}
		// One that does not parse had no daemon: start fails on it.
		if group, err := groupFrom(config, id); err == nil && group == own.ID {
			sibling := own
			sibling.ID, sibling.Bundle = id, bundle
			siblings = append(siblings, sibling)
		}
	}
	return siblings, failed
}
