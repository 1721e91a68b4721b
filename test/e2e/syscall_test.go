package e2e

import (
	"strconv"

	"golang.org/x/sys/unix"
)

func mountTmpfs(dir string) error { return unix.Mount("rig", dir, "tmpfs", 0, "") }

func unmount(dir string) error { return unix.Unmount(dir, 0) }

func pidString(c *container) string { return strconv.Itoa(int(c.Pid())) }
