package task

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/api/events"
	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Checkpoint writes the container's processes, as they are at one moment, to
// the directory that the request names. They go on, or end if the options say
// so; that they end is told as every exit is, after the checkpoint.
func (s *Service) Checkpoint(ctx context.Context, r *taskv3.CheckpointTaskRequest) (*emptypb.Empty, error) {
	c, err := s.container(r.ID)
	if err != nil {
		return nil, err
	}
	engine, ok := c.instance.(Checkpointer)
	if !ok {
		return nil, fmt.Errorf("checkpoint of container %q: its engine makes none: %w", c.id, errdefs.ErrNotImplemented)
	}
	q, err := checkpointRequest(c, r)
	if err != nil {
		return nil, fmt.Errorf("checkpoint of container %q: %w", c.id, err)
	}
	before, err := c.beginCheckpoint()
	if err != nil {
		return nil, err
	}
	if err = c.awaitStarts(ctx); err == nil {
		err = os.MkdirAll(q.Images, imagesMode)
	}
	if err == nil {
		err = c.withCriu(dumpLog, q.Work, func() error { return engine.Checkpoint(ctx, q) })
	}
	if before == Paused {
		err = errors.Join(err, c.thawDoomed(ctx))
	}
	return c.endCheckpoint(before, q.Images, err)
}

// imagesMode is for images of all of a container's memory.
const imagesMode = 0o700

// beginCheckpoint holds back what would change the container's processes, and
// the exit of its init.
func (c *Container) beginCheckpoint() (before Status, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before = c.init.status
	if err := before.allow("checkpoint", Running, Paused); err != nil {
		return before, err
	}
	if c.dying {
		return before, errFinished()
	}
	c.init.status.to(checkpointingFrom(before))
	c.checkpointing = make(chan struct{})
	return before, nil
}

func checkpointingFrom(before Status) Status {
	if before == Paused {
		return CheckpointingPaused
	}
	return Checkpointing
}

func (c *Container) endCheckpoint(before Status, images string, err error) (*emptypb.Empty, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.init.status.to(before)
	close(c.checkpointing)
	c.checkpointing = nil
	if err != nil {
		return nil, fmt.Errorf("OCI runtime checkpoint failed: %w", err)
	}
	c.publish(topicCheckpointed, &events.TaskCheckpointed{ContainerID: c.id, Checkpoint: images})
	return &emptypb.Empty{}, nil
}

// thawDoomed thaws a paused container whose init was sent SIGKILL while a
// checkpoint kept it from being thawed.
func (c *Container) thawDoomed(ctx context.Context) error {
	c.mu.Lock()
	doomed := c.doomed
	c.mu.Unlock()
	if !doomed {
		return nil
	}
	if err := c.instance.Resume(ctx); err != nil {
		return fmt.Errorf("thaw the killed container: %w", err)
	}
	return nil
}

// awaitCheckpoint waits until no checkpoint is under way. The caller has made
// sure that no further one begins.
func (c *Container) awaitCheckpoint() {
	c.mu.Lock()
	checkpointing := c.checkpointing
	c.mu.Unlock()
	if checkpointing != nil {
		<-checkpointing
	}
}

// checkpointRequest reads the options of a request, containerd.runc.v1's
// CheckpointOptions. Where its image_path and the request's path differ the
// latter holds, which containerd makes of the former.
func checkpointRequest(c *Container, r *taskv3.CheckpointTaskRequest) (CheckpointRequest, error) {
	var o runcoptions.CheckpointOptions
	if a := r.GetOptions(); a != nil {
		if err := typeurl.UnmarshalTo(a, &o); err != nil {
			return CheckpointRequest{}, invalid("options %s: %v", a.GetTypeUrl(), err)
		}
	}
	q := CheckpointRequest{
		Images: r.Path, Work: o.WorkPath, Parent: o.ParentPath, LeaveRunning: !o.Exit,
		OpenTCP: o.OpenTcp, ExternalUnixSockets: o.ExternalUnixSockets, Terminal: o.Terminal,
		FileLocks: o.FileLocks, EmptyNamespaces: o.EmptyNamespaces, CgroupsMode: o.CgroupsMode,
	}
	if q.Images == "" {
		q.Images = o.ImagePath
	}
	if q.Work == "" {
		q.Work = criuWork(c.bundle)
	}
	switch {
	case !filepath.IsAbs(q.Images):
		return q, invalid("path of the images %q is not absolute", q.Images)
	case !filepath.IsAbs(q.Work):
		return q, invalid("work path %q is not absolute", q.Work)
	case q.Parent == "":
		return q, nil
	case filepath.IsAbs(q.Parent):
		return q, invalid("parent path %q is not relative to that of the images", q.Parent)
	}
	return q, checkImages(filepath.Join(q.Images, q.Parent))
}

// checkImages refuses what cannot hold a checkpoint.
func checkImages(dir string) error {
	if !filepath.IsAbs(dir) {
		return invalid("directory of checkpoint images %q is not an absolute path", dir)
	}
	st, err := os.Stat(dir)
	if err == nil && !st.IsDir() {
		err = errors.New("not a directory")
	}
	if err != nil {
		return invalid("directory of checkpoint images: %s: %v", dir, err)
	}
	return nil
}

// What criu calls its logs, in its work directory, and what those of a failure
// are called that are kept in the bundle's.
const (
	dumpLog    = "dump.log"
	restoreLog = "restore.log"
	keptPrefix = "criu-"
)

// workDir is containerd's directory, linked into the bundle, of what need not
// be in memory.
func workDir(bundle string) string { return filepath.Join(bundle, "work") }

// criuWork is the directory of criu's log and statistics if a client names
// none: it is removed when criu is done.
func criuWork(bundle string) string { return filepath.Join(workDir(bundle), "criu") }

// withCriu has a work directory for what do has criu do. Should that fail, the
// log is kept and its errors are part of the error.
func (c *Container) withCriu(log, work string, do func() error) error {
	if work == criuWork(c.bundle) {
		defer os.RemoveAll(work)
	}
	if err := os.MkdirAll(work, imagesMode); err != nil {
		return fmt.Errorf("directory for criu's log: %w", err)
	}
	err := do()
	if err == nil {
		return nil
	}
	data, readErr := readFile(filepath.Join(work, log), maxLogSize)
	if readErr != nil {
		return err // criu has not come so far
	}
	kept := filepath.Join(workDir(c.bundle), keptPrefix+log)
	if keepErr := writeAtomic(kept, data, 0o600); keepErr != nil {
		c.log().WithError(keepErr).Warn("criu's log is not kept")
		kept = "lost"
	}
	return fmt.Errorf("%w: %s (criu's log: %s)", err, criuErrors(data), kept)
}

// maxLogSize bounds a log of criu's, in bytes: some hundred lines for each
// process, of a hundred bytes.
const maxLogSize = 64 << 20

// maxCriuErrors is how many lines of a log are quoted. criu calls errors also
// what it finds out about the machine; what ended it comes last.
const maxCriuErrors = 4

// criuErrors are the last errors in a log of criu's, whose lines are
//
//	(00.012345) Error (criu/file.c:123): what is wrong
//
// or its last line if there is none.
func criuErrors(log []byte) string {
	var found []string
	last := "it is empty"
	for line := range bytes.Lines(log) {
		text := strings.TrimSpace(string(line))
		if text != "" {
			last = text
		}
		if _, after, ok := strings.Cut(text, "Error "); ok {
			found = append(found, after)
		}
	}
	if len(found) == 0 {
		return last
	}
	return strings.Join(found[max(0, len(found)-maxCriuErrors):], "; ")
}
