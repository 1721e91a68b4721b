package rootfs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	loopControl = "/dev/loop-control"
	// loopAttempts bounds how often a free device is looked for when another
	// process took the one that the kernel had named.
	loopAttempts = 100
)

// loopDevice puts the file backing behind a loop device (loop(4)) that frees
// itself when its last user closes it. The descriptor is the caller's.
// LOOP_CONFIGURE sets everything in one step since Linux 5.8.
func (c *calls) loopDevice(backing string, readOnly, directIO bool) (fd int, name string, err error) {
	mode := unix.O_RDWR
	if readOnly {
		mode = unix.O_RDONLY
	}
	file, err := c.open(unix.AT_FDCWD, backing, mode, 0)
	if err != nil {
		return -1, "", fmt.Errorf("open %s: %w", backing, err)
	}
	defer c.close(file)
	control, err := c.open(unix.AT_FDCWD, loopControl, unix.O_RDWR, 0)
	if err != nil {
		return -1, "", fmt.Errorf("open %s: %w", loopControl, err)
	}
	defer c.close(control)

	config := unix.LoopConfig{Fd: uint32(file)}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	if readOnly {
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	if directIO {
		config.Info.Flags |= unix.LO_FLAGS_DIRECT_IO
	}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], backing)
	for range loopAttempts {
		fd, name, err = c.configureLoop(control, mode, &config)
		if !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	return fd, name, err
}

func (c *calls) configureLoop(control, mode int, config *unix.LoopConfig) (fd int, name string, err error) {
	var number int
	err = c.do(func() error {
		number, err = unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE)
		return err
	})
	if err != nil {
		return -1, "", fmt.Errorf("LOOP_CTL_GET_FREE: %w", err)
	}
	name = fmt.Sprintf("/dev/loop%d", number)
	fd, err = c.open(unix.AT_FDCWD, name, mode, 0)
	if err != nil {
		return -1, "", fmt.Errorf("open %s: %w", name, err)
	}
	if err = c.do(func() error { return unix.IoctlLoopConfigure(fd, config) }); err != nil {
		c.close(fd)
		return -1, "", fmt.Errorf("LOOP_CONFIGURE %s: %w", name, err)
	}
	return fd, name, nil
}
