package kubernetes

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// settings are the node's: pods may set every key by annotation.
const settings = `[placement]
annotations = ["policy", "cpu-policy", "thread-policy", "cache-policy", "memory-policy"]
`

// settingsPath is where shims look for them.
const settingsPath = "/etc/containerd-shim-numa/config.toml"

// writeSettings writes the node's settings into an /etc of the mount
// namespace's own, whose changes are in a tmpfs below dir.
func writeSettings(dir string) error {
	changes := filepath.Join(dir, "etc")
	if err := os.Mkdir(changes, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("rig", changes, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", changes, err)
	}
	upper, work := filepath.Join(changes, "upper"), filepath.Join(changes, "work")
	for _, d := range []string{upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("etc", "/etc", "overlay", 0, "lowerdir=/etc,upperdir="+upper+",workdir="+work); err != nil {
		return fmt.Errorf("mount a private /etc: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(settingsPath), 0o755); err != nil {
		return err
	}
	return os.WriteFile(settingsPath, []byte(settings), 0o600)
}
