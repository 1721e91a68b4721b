package placement

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-numa-v1/cgroups"
	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/ledger"
)

// Placer places the containers of one shim process.
type Placer struct {
	node    Settings
	changed func()
	// opening is held by whoever opens the host; it guards host.
	opening chan struct{}
	host    *host

	mu       sync.Mutex // guards what follows
	failures map[string]int
}

// New returns a Placer with a node's settings. It opens nothing before there
// is a container to be placed. changed, if not nil, is called when the CPUs of
// containers of this process may have changed by another of its containers, or
// when there is something to Settle. It must not block.
func New(node Settings, changed func()) *Placer {
	if changed == nil {
		changed = func() {}
	}
	return &Placer{node: node.Clone(), changed: changed, opening: make(chan struct{}, 1), failures: map[string]int{}}
}

// Container is a container that is about to be created.
type Container struct {
	ID, Bundle string
	// Spec is changed by Place.
	Spec *specs.Spec
	// Systemd tells that systemd makes its cgroup.
	Systemd bool
	// Settings are those in force for it, without its annotations.
	Settings Settings
}

// Place finds a place for a container, enters it in the ledger and writes it
// into the spec. nil is a container that is left alone.
//
// The error wraps errdefs.ErrInvalidArgument for an annotation's value that
// cannot be, and, only where the policy demands a placement,
// errdefs.ErrResourceExhausted if there is none now, or
// errdefs.ErrFailedPrecondition if there can be none here. Nothing is left
// behind then.
func (p *Placer) Place(ctx context.Context, c Container) (*Placed, error) {
	s, ignored, err := c.Settings.annotated(c.Spec.Annotations)
	if err != nil {
		return nil, err
	}
	if len(ignored) > 0 {
		log.G(ctx).WithField("id", c.ID).Warnf("annotations %q are not among those that this node allows", ignored)
	}
	if s.Policy == None && c.Settings.Policy == None {
		return nil, nil
	}
	placed := &Placed{
		placer: p, id: c.ID, bundle: c.Bundle, systemd: c.Systemd, settings: s,
		spec: digest(c.Spec), busy: make(chan struct{}, 1),
	}
	if err := placed.reserve(ctx); err != nil {
		if c.Spec.Annotations[criType] == typeSandbox {
			s.Policy = "" // it runs nothing, so that it has nothing to demand
		}
		if err := p.failOpen(ctx, s, err); err != nil {
			return nil, err
		}
		placed.noteUnplaced(err)
		if placed.host != nil {
			placed.host.ledger.Count(ledger.FailedOpen)
			p.changed()
		}
		return nil, nil
	}
	placed.edit(c.Spec)
	placed.note()
	placed.tell(ctx)
	return placed, nil
}

// open returns the host as it is now, opened if it has not been.
func (p *Placer) open(ctx context.Context) (*host, error) {
	select {
	case p.opening <- struct{}{}:
		defer func() { <-p.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if p.host == nil {
		h, err := openHost(p.node, p.changed, func(err error) {
			log.L.WithError(err).Warn("the ledger of placements has a defect")
		})
		if err != nil {
			return nil, failure{"the machine", err}
		}
		p.host = h
		return h, nil
	}
	h, err := p.host.current()
	if err != nil {
		// What was known of it is better than nothing.
		log.G(ctx).WithError(err).Debug("cannot tell whether CPUs or nodes have come or gone")
	}
	was := p.host.topology.Online
	p.host = h
	if now := h.topology.Online; !now.Equal(was) {
		log.G(ctx).Infof("CPUs %s are online, were %s", now, was)
		p.changed()
	}
	return h, nil
}

// Settle enters into the ledger what could not be entered when it was due, and
// tells whether something is left.
func (p *Placer) Settle(ctx context.Context) (left bool) {
	l := p.opened(ctx)
	if l == nil {
		return false
	}
	if err := l.Settle(ctx); err != nil {
		log.G(ctx).WithError(err).Debug("places of containers that are gone are not free yet")
		return true
	}
	return false
}

// opened is the ledger, nil if it has not been opened.
func (p *Placer) opened(ctx context.Context) *ledger.Ledger {
	select {
	case p.opening <- struct{}{}:
		defer func() { <-p.opening }()
	case <-ctx.Done():
		return nil
	}
	if p.host == nil {
		return nil
	}
	return p.host.ledger
}

// failure is a reason why a container is not placed. Its cause is what those
// that have the same reason have in common.
type failure struct {
	cause string
	err   error
}

func (f failure) Error() string { return f.err.Error() }
func (f failure) Unwrap() error { return f.err }

// failOpen turns the error of a placement into nil, so that the container runs
// without one, unless the policy demands it.
func (p *Placer) failOpen(ctx context.Context, s Settings, err error) error {
	if wishes, _ := s.wishes(); wishes.Policy == numa.Restricted || wishes.Policy == numa.SingleNode {
		if errors.Is(err, errdefs.ErrResourceExhausted) || errors.Is(err, errdefs.ErrFailedPrecondition) {
			return fmt.Errorf("placement by policy %s: %w", s.Policy, err)
		}
		return fmt.Errorf("placement by policy %s: %w: %w", s.Policy, err, errdefs.ErrFailedPrecondition)
	}
	p.count(ctx, err)
	return nil
}

// count counts a container that is not placed. The first of each cause is
// told.
func (p *Placer) count(ctx context.Context, err error) {
	cause := "the container"
	var f failure
	if errors.As(err, &f) {
		cause = f.cause
	}
	p.mu.Lock()
	p.failures[cause]++
	n := p.failures[cause]
	p.mu.Unlock()
	entry := log.G(ctx).WithError(err).WithFields(log.Fields{"cause": cause, "count": n})
	if n == 1 {
		entry.Warn("containers run unplaced")
		return
	}
	entry.Debug("container runs unplaced")
}

// Failures tell how many containers have run unplaced, by cause.
func (p *Placer) Failures() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[string]int, len(p.failures))
	for cause, n := range p.failures {
		all[cause] = n
	}
	return all
}

// digest keeps of a spec what a placement depends on.
func digest(s *specs.Spec) *specs.Spec {
	d := &specs.Spec{Annotations: s.Annotations, Linux: &specs.Linux{}}
	if l := s.Linux; l != nil {
		r := resourcesOf(&specs.Spec{Linux: l})
		d.Linux = &specs.Linux{
			CgroupsPath: l.CgroupsPath, MemoryPolicy: l.MemoryPolicy, Devices: l.Devices,
			Resources: &specs.LinuxResources{CPU: r.CPU, Memory: r.Memory, HugepageLimits: r.HugepageLimits, Unified: r.Unified},
		}
	}
	if s.Process != nil {
		d.Process = &specs.Process{OOMScoreAdj: s.Process.OOMScoreAdj}
		for _, e := range s.Process.Env {
			if strings.HasPrefix(e, draPrefix) {
				d.Process.Env = append(d.Process.Env, e)
			}
		}
	}
	return d
}

// look reads what a request depends on besides the spec. The cgroups above it
// are of this machine: where another one's sysfs is read, it has all of that.
func (h *host) look(spec *specs.Spec, systemd bool) (machine, error) {
	m := machine{topology: h.topology, sysfs: h.sysfs}
	if h.foreign {
		m.cpus, m.mems = h.topology.Online, h.nodes()
		return m, nil
	}
	var err error
	m.cpus, m.mems, err = cgroups.ParentEffective(spec.Linux.CgroupsPath, systemd)
	if err != nil {
		return m, failure{"cpuset", err}
	}
	return m, nil
}

// choose finds a place for a request and enters it, together with the CPUs that
// the container holds by what was decided before, if anything.
func (h *host) choose(ctx context.Context, bundle string, a *asked, before decision) (claim numa.Claim, placed numa.Placement, err error) {
	held := before.claim
	state := h.state(a.Request)
	h.credit(&state, before)
	insist := true
	_, err = h.ledger.Reserve(ctx, bundle, func(others []numa.Claim, d numa.Demand) (numa.Claim, error) {
		s := state
		s.Claims, s.Demand = others, d
		var err error
		placed, err = h.topology.Place(s, a.Request)
		if err == nil && insist && a.CPU == numa.Dedicated && placed.Owned.IsEmpty() {
			// It can do without CPUs of its own, but the ledger looks for the
			// dead, who may have them, only if it is refused.
			insist = false
			return numa.Claim{}, fmt.Errorf("%w: no CPUs of its own", numa.ErrRefused)
		}
		claim = a.claim(placed)
		entered := claim
		entered.Owned, entered.Idle = claim.Owned.Union(held.Owned), claim.Idle.Union(held.Idle)
		return entered, err
	})
	if errors.Is(err, numa.ErrRefused) {
		// Would it have been accepted had nobody else been there?
		kind := error(errdefs.ErrResourceExhausted)
		if _, never := h.topology.Place(numa.State{}, a.Request); never != nil {
			kind = errdefs.ErrFailedPrecondition
		}
		return claim, placed, fmt.Errorf("%w: %w", err, kind)
	}
	if err != nil {
		return claim, placed, failure{"the ledger", err}
	}
	return claim, placed, nil
}
