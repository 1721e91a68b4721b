package native

import (
	"fmt"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task"
	"containerd-shim-numa-v1/task/children"
)

// processOf translates a process of the runtime-spec into libcontainer's.
func processOf(p *specs.Process, f task.Files) (*libcontainer.Process, error) {
	lp := &libcontainer.Process{
		Args: p.Args, Env: p.Env, Cwd: p.Cwd,
		UID: int(p.User.UID), GID: int(p.User.GID),
		NoNewPrivileges: &p.NoNewPrivileges,
		AppArmorProfile: p.ApparmorProfile,
		Label:           p.SelinuxLabel,
		Scheduler:       p.Scheduler,
		IOPriority:      p.IOPriority,
		LogLevel:        logLevel(),
	}
	for _, gid := range p.User.AdditionalGids {
		lp.AdditionalGroups = append(lp.AdditionalGroups, int(gid))
	}
	if c := p.Capabilities; c != nil {
		lp.Capabilities = &configs.Capabilities{
			Bounding: c.Bounding, Effective: c.Effective, Inheritable: c.Inheritable,
			Permitted: c.Permitted, Ambient: c.Ambient,
		}
	}
	if s := p.ConsoleSize; s != nil {
		lp.ConsoleWidth, lp.ConsoleHeight = uint16(s.Width), uint16(s.Height)
	}
	for _, l := range p.Rlimits {
		kind, ok := rlimits[l.Type]
		if !ok {
			return nil, fmt.Errorf("wrong rlimit value: %s", l.Type)
		}
		lp.Rlimits = append(lp.Rlimits, configs.Rlimit{Type: kind, Hard: l.Hard, Soft: l.Soft})
	}
	affinity, err := configs.ConvertCPUAffinity(p.ExecCPUAffinity)
	if err != nil {
		return nil, err
	}
	lp.CPUAffinity = affinity
	setStreams(lp, f)
	return lp, nil
}

// setStreams sets only what there is: a nil *os.File in one of the interfaces
// would not be nil. libcontainer is given files rather than readers and
// writers, for which it would copy in goroutines of its own.
func setStreams(lp *libcontainer.Process, f task.Files) {
	if f.Stdin != nil {
		lp.Stdin = f.Stdin
	}
	if f.Stdout != nil {
		lp.Stdout = f.Stdout
	}
	if f.Stderr != nil {
		lp.Stderr = f.Stderr
	}
	lp.ConsoleSocket = f.Console
}

// rlimits are the names of the runtime-spec (config.md, POSIX process) and
// their numbers (getrlimit(2)).
var rlimits = map[string]int{
	"RLIMIT_AS":         unix.RLIMIT_AS,
	"RLIMIT_CORE":       unix.RLIMIT_CORE,
	"RLIMIT_CPU":        unix.RLIMIT_CPU,
	"RLIMIT_DATA":       unix.RLIMIT_DATA,
	"RLIMIT_FSIZE":      unix.RLIMIT_FSIZE,
	"RLIMIT_LOCKS":      unix.RLIMIT_LOCKS,
	"RLIMIT_MEMLOCK":    unix.RLIMIT_MEMLOCK,
	"RLIMIT_MSGQUEUE":   unix.RLIMIT_MSGQUEUE,
	"RLIMIT_NICE":       unix.RLIMIT_NICE,
	"RLIMIT_NOFILE":     unix.RLIMIT_NOFILE,
	"RLIMIT_NPROC":      unix.RLIMIT_NPROC,
	"RLIMIT_RSS":        unix.RLIMIT_RSS,
	"RLIMIT_RTPRIO":     unix.RLIMIT_RTPRIO,
	"RLIMIT_RTTIME":     unix.RLIMIT_RTTIME,
	"RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING,
	"RLIMIT_STACK":      unix.RLIMIT_STACK,
}

// child is a process of a container, and of the shim.
type child struct {
	*children.Handle
	process *libcontainer.Process
}

// newChild takes over a process that libcontainer has started.
func newChild(p *libcontainer.Process) (*child, error) {
	pid, err := p.Pid()
	if err != nil {
		return nil, err
	}
	h, err := children.Open(pid)
	if err != nil {
		return nil, err
	}
	return &child{Handle: h, process: p}, nil
}
