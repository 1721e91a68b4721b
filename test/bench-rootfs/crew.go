package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// workerEnv tells a re-executed program which part it plays: slaveRole, or
// that of the worker that its JSON describes.
const (
	workerEnv = "BENCH_ROOTFS_WORKER"
	slaveRole = "slave"
)

// boardFD is where a worker finds its crew's shared memory.
const boardFD = 3

// post is what a worker must know.
type post struct {
	Crew, Number int
	Images       [][]string
	Containers   []struct{ Upper, Work, Target string }
}

// crew is a number of processes that do the same at the same time.
type crew struct {
	n      int
	board  *board
	lines  []line
	shared *os.File
	cmds   []*exec.Cmd
}

func (h *host) newCrew(n int) (_ *crew, err error) {
	fd, err := unix.MemfdCreate("board", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	c := &crew{n: n, shared: os.NewFile(uintptr(fd), "board")}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	if err := c.shared.Truncate(int64(boardSize) + int64(n)*int64(lineSize)); err != nil {
		return nil, err
	}
	if c.board, c.lines, err = mapBoard(c.shared, n); err != nil {
		return nil, err
	}
	for i := range n {
		if err := h.hire(c, i); err != nil {
			return nil, err
		}
	}
	return c, c.order(begin)
}

// hire starts a worker.
func (h *host) hire(c *crew, number int) error {
	p := post{Crew: c.n, Number: number}
	for _, layers := range h.layers {
		p.Images = append(p.Images, h.image(layers))
	}
	for i := range maxEach {
		at, err := h.container(fmt.Sprintf("%d-%d-%d", c.n, number, i))
		if err != nil {
			return err
		}
		p.Containers = append(p.Containers, struct{ Upper, Work, Target string }{at.upper, at.work, at.target})
	}
	description, err := json.Marshal(p)
	if err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{workerEnv + "=worker"}
	cmd.ExtraFiles = []*os.File{c.shared}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start worker %d of %d: %w", number, c.n, err)
	}
	c.cmds = append(c.cmds, cmd)
	_, err = stdin.Write(description)
	return errors.Join(err, stdin.Close())
}

// tell has all workers do something, and waits for them. It gives the time
// when they were told.
func (c *crew) tell(p phase) (told int64, err error) {
	b := c.board
	b.phase = p
	b.done.Store(0)
	b.gate.Add(1)
	told = clock()
	wake(&b.gate, c.n)
	if err := await(&b.done, uint32(c.n), ownerPatience); err != nil {
		return 0, fmt.Errorf("wait for %d workers: %w", c.n, err)
	}
	if failed := b.failed.Load(); failed > 0 {
		return 0, fmt.Errorf("%d of %d workers failed", failed, c.n)
	}
	return told, nil
}

func (c *crew) order(p phase) error {
	_, err := c.tell(p)
	return err
}

// sample is what one round of a crew took.
type sample struct {
	each        []span        // each root filesystem, until it is ready
	ready, gone time.Duration // per root filesystem, of the time that all took together
}

// round has each worker make a number of root filesystems, all of them at the
// same time, and take them away.
func (c *crew) round(w, layers int, mapped bool, each int) (*sample, error) {
	b := c.board
	b.way, b.layers, b.mapped, b.each = int32(w), int32(layers), mapped, int32(each)
	began, err := c.tell(makeAll)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", allWays[w].name, err)
	}
	removing, err := c.tell(takeAway)
	if err != nil {
		return nil, fmt.Errorf("take away %s: %w", allWays[w].name, err)
	}
	s := &sample{}
	ready, gone := began, removing
	for _, l := range c.lines {
		s.each = append(s.each, l.made[:each]...)
		ready, gone = max(ready, l.made[each-1].to), max(gone, l.removed[each-1].to)
	}
	s.ready = time.Duration(ready-began) / time.Duration(len(s.each))
	s.gone = time.Duration(gone-removing) / time.Duration(len(s.each))
	return s, nil
}

// close ends the workers.
func (c *crew) close() (err error) {
	if len(c.cmds) == c.n && c.board.failed.Load() == 0 {
		err = c.order(end)
	} else {
		for _, cmd := range c.cmds {
			_ = cmd.Process.Kill()
		}
	}
	for _, cmd := range c.cmds {
		_ = cmd.Wait() // what mattered has been said on its standard error
	}
	return errors.Join(err, c.shared.Close())
}

// work is a worker's life.
func work() error {
	if os.Getenv(workerEnv) == slaveRole {
		return playSlave()
	}
	var p post
	if err := json.NewDecoder(os.Stdin).Decode(&p); err != nil {
		return err
	}
	unix.CloseOnExec(boardFD)
	b, lines, err := mapBoard(os.NewFile(boardFD, "board"), p.Crew)
	if err != nil {
		return err
	}
	s, err := newShim(context.Background())
	if err != nil {
		return err
	}
	containers := make([]*container, len(p.Containers))
	for i, c := range p.Containers {
		containers[i] = &container{upper: c.Upper, work: c.Work, target: c.Target}
	}
	type request struct {
		container, layers int32
		mapped            bool
	}
	jobs := map[request]job{} // all made in the first round, which does not count
	var there [maxEach]made
	for turn := uint32(1); ; turn++ {
		if err := await(&b.gate, turn, workerPatience); err != nil {
			return err
		}
		switch b.phase {
		case makeAll:
			for i := range b.each {
				which := request{i, b.layers, b.mapped}
				j, ok := jobs[which]
				if !ok {
					j = newJob(containers[i], p.Images[b.layers], b.mapped)
					jobs[which] = j
				}
				from := clock()
				there[i], err = allWays[b.way].make(s, j)
				lines[p.Number].made[i] = span{from, clock()}
				if err != nil {
					break
				}
			}
		case takeAway:
			for i := range b.each {
				from := clock()
				err = errors.Join(err, there[i].remove())
				lines[p.Number].removed[i] = span{from, clock()}
			}
		}
		last := b.phase == end
		if err != nil {
			b.failed.Add(1)
		}
		if b.done.Add(1) == uint32(p.Crew) {
			wake(&b.done, 1)
		}
		if err != nil || last {
			return err
		}
	}
}
