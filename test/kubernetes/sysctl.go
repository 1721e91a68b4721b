package kubernetes

import (
	"errors"
	"fmt"
	"os"
)

// kernelSettings are the kernel parameters of the whole machine that kubelet
// sets when it starts (pkg/kubelet/cm/container_manager_linux.go,
// setupKernelTunables).
var kernelSettings = [...]string{
	"/proc/sys/vm/overcommit_memory", "/proc/sys/vm/panic_on_oom",
	"/proc/sys/kernel/panic", "/proc/sys/kernel/panic_on_oops",
	"/proc/sys/kernel/keys/root_maxkeys", "/proc/sys/kernel/keys/root_maxbytes",
}

// keepKernelSettings returns what puts them back.
func keepKernelSettings() (restore func() error, err error) {
	before := map[string][]byte{}
	for _, file := range kernelSettings {
		if before[file], err = os.ReadFile(file); err != nil {
			return nil, fmt.Errorf("kernel setting: %w", err)
		}
	}
	return func() error {
		var err error
		for file, value := range before {
			err = errors.Join(err, os.WriteFile(file, value, 0))
		}
		return err
	}, nil
}
