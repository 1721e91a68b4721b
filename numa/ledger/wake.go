package ledger

import (
	"errors"

	"golang.org/x/sys/unix"
)

// WakeSignal tells a shim to read the ledger and to give its shared containers
// the CPUs that are theirs now. A process that does not know of it ignores it.
const WakeSignal = unix.SIGWINCH

// tell tells everybody concerned of a change. It is best effort: whoever is
// not reached gives its containers the right CPUs at its next occasion.
func (l *Ledger) tell(n news) {
	if err := errors.Join(n.defects...); err != nil && l.config.Defect != nil {
		l.config.Defect(err)
	}
	own := false
	for _, p := range n.owners {
		if p == l.self {
			own = true
		} else {
			l.wake(p)
		}
	}
	if own && l.config.Changed != nil {
		l.config.Changed()
	}
}

// wake signals a process through a descriptor that is certain to be its.
func (l *Ledger) wake(p Process) {
	if p.Namespace != l.self.Namespace {
		return
	}
	fd, err := unix.PidfdOpen(p.Pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	// The descriptor was opened before the look: if the process that has the
	// pid now is the right one, so was that of the descriptor.
	if l.isDead(p) {
		return
	}
	_ = unix.PidfdSendSignal(fd, WakeSignal, nil, 0)
}
