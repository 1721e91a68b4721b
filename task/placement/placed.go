package placement

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-numa-v1/cgroups"
	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/cpuset"
	"containerd-shim-numa-v1/numa/ledger"
)

// The variables that tell a container its place as of its creation.
const (
	envNodes = "CONTAINERD_NUMA_NODES"
	envCPUs  = "CONTAINERD_NUMA_CPUS"
)

// Apply changes a container's cgroup as an engine's Update does.
type Apply func(ctx context.Context, r *specs.LinuxResources) error

// Placed is a container in the ledger.
type Placed struct {
	placer   *Placer
	ledger   *ledger.Ledger
	id       string
	bundle   string
	systemd  bool
	settings Settings

	// released is set when the container is gone, and orphaned as well if that
	// was while a change of it hung.
	released, orphaned atomic.Bool

	// busy is held by whoever changes what follows or the container's cpuset.
	busy chan struct{}
	host *host // as it was when the container was last looked at
	// spec is what the container asks for, without what the placement made of
	// it, and with the updates that there have been.
	spec      *specs.Spec
	asked     asked
	claim     numa.Claim
	placement numa.Placement
	init      ledger.Process
	// cpus and mems are those in force: what the kernel was told, or would
	// have been, had it not been all that there is above.
	cpus, mems cpuset.Set
	// fault says why the placement is not in force; "" if it is.
	fault string
	// cgroup is the container's, nil if it is not known.
	cgroup *cgroups.Cgroup
	// lacking are CPUs of cpus that the cgroup above did not have when they
	// were to be given.
	lacking cpuset.Set
	// behind: the last update is not in the ledger.
	behind bool
	// widened: its memory nodes ran short, so it has all that it is granted.
	widened bool
	// unwatch ends the goroutine that watches them; nil without.
	unwatch func()
}

func (p *Placed) take(ctx context.Context) error {
	select {
	case p.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("placement of %s: another change of it is under way: %w", p.id, ctx.Err())
	}
}

// give ends what take began.
func (p *Placed) give() {
	if p.orphaned.CompareAndSwap(true, false) {
		p.end(context.Background()) // it may be in the ledger again
	}
	<-p.busy
}

// reserve enters the container in the ledger.
func (p *Placed) reserve(ctx context.Context) error {
	h, err := p.placer.open(ctx)
	if err != nil {
		return err
	}
	p.host, p.ledger = h, h.ledger
	m, err := h.look(p.spec, p.systemd)
	if err != nil {
		return err
	}
	if p.asked, err = ask(p.spec, p.settings, m); err != nil {
		return failure{"the spec", err}
	}
	if p.claim, p.placement, err = h.choose(ctx, p.bundle, &p.asked, decision{}); err != nil {
		return err
	}
	p.settle(m)
	return nil
}

// settle finds what a choice means for the container's cgroup. That of one whose
// CPUs stay as they are is all that it is granted.
func (p *Placed) settle(m machine) {
	p.cpus, p.mems = p.placement.CPUs, p.placement.Mems.Intersect(m.mems)
	if p.widened && !p.bound().IsEmpty() {
		p.mems = p.asked.Mems
	}
	if p.mems.IsEmpty() && !p.placement.Mems.IsEmpty() {
		p.asked.missed = append(p.asked.missed, "memory on nodes "+p.placement.Mems.String())
	}
}

// edit writes the placement into the spec. CPUs that are all that the
// container would have anyway are not written: it costs something, and what is
// not there cannot be lost by a reload of systemd.
func (p *Placed) edit(spec *specs.Spec) {
	if !p.cpus.Equal(p.asked.Granted) {
		cpuOf(spec).Cpus = p.cpus.String()
	}
	p.editMemory(spec)
	if p.settings.tells() && !p.asked.sandbox && spec.Process != nil && !p.placement.Nodes.IsEmpty() {
		setEnv(spec.Process, envNodes, p.placement.Nodes.String())
		setEnv(spec.Process, envCPUs, p.cpus.String())
	}
}

// cpuOf is a spec's own copy of what it says about CPUs.
func cpuOf(spec *specs.Spec) *specs.LinuxCPU {
	var r specs.LinuxResources
	if spec.Linux.Resources != nil {
		r = *spec.Linux.Resources
	}
	var cpu specs.LinuxCPU
	if r.CPU != nil {
		cpu = *r.CPU
	}
	r.CPU, spec.Linux.Resources = &cpu, &r
	return &cpu
}

// setEnv sets a variable that is not set.
func setEnv(p *specs.Process, name, value string) {
	if !slices.ContainsFunc(p.Env, func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
		p.Env = append(p.Env, name+"="+value)
	}
}

// Near are the CPUs on which the shim's work for the container is best done;
// empty where it does not matter.
func (p *Placed) Near() cpuset.Set {
	if p == nil || !p.settings.PinCreate || p.claim.Nodes.IsEmpty() {
		return cpuset.Set{}
	}
	return p.cpus
}

// Confirm is for when the container exists: it tells the ledger of the init of
// one that owns CPUs, which keeps them as long as it lives, and sees whether the
// kernel has done what it was told. cg is the container's cgroup, nil if it is
// not known.
func (p *Placed) Confirm(ctx context.Context, pid int, cg *cgroups.Cgroup, apply Apply) {
	if p == nil {
		return
	}
	if err := p.take(ctx); err != nil {
		p.log(ctx).WithError(err).Warn("placement is not confirmed")
		return
	}
	defer p.give()
	if p.released.Load() {
		return
	}
	p.cgroup = cg
	p.confirmInit(ctx, pid)
	p.verify(ctx, cg)
	p.watchMemory(apply)
}

func (p *Placed) confirmInit(ctx context.Context, pid int) {
	if p.claim.Owned.IsEmpty() {
		return // a share is nothing that an init alone could hold on to
	}
	init, err := ledger.ProcessOf(pid)
	if errors.Is(err, fs.ErrNotExist) {
		return // it has exited
	}
	if err == nil {
		_, _, err = p.host.ledger.Confirm(ctx, p.bundle, init)
	}
	if err != nil {
		p.log(ctx).WithError(err).Warn("its CPUs are not its own any longer than the shim lives")
		return
	}
	p.init = init
	p.note()
}

func (p *Placed) without(entries []ledger.Entry) []numa.Claim {
	claims := make([]numa.Claim, 0, len(entries))
	for i := range entries {
		if entries[i].Bundle != p.bundle {
			claims = append(claims, entries[i].Claim)
		}
	}
	return claims
}

// verify compares what the kernel made of the placement. A cpuset outside of
// the one above is not refused but ignored, so the write tells nothing.
func (p *Placed) verify(ctx context.Context, cg *cgroups.Cgroup) {
	if cg == nil || p.asked.keep != "" {
		return
	}
	cpus, err := cg.EffectiveCPUs()
	if err != nil || cpus.IsEmpty() {
		p.log(ctx).WithError(err).Debug("cannot tell whether the placement is in force")
		return
	}
	if cpus.IsSubset(p.cpus) {
		return
	}
	p.unplace(ctx, fmt.Sprintf("the kernel lets it run on CPUs %s", cpus))
}

// unplace gives up a placement that is not in force.
func (p *Placed) unplace(ctx context.Context, fault string) {
	p.log(ctx).Warnf("placed on CPUs %s, but %s: it is unplaced", p.cpus, fault)
	p.fault, p.asked.keep = fault, fault
	p.enter(ctx, p.asked.claim(numa.Placement{}))
	p.note()
}

// enter replaces the container's claim by one that nothing needs to be found
// for, whether or not somebody still waits for the request that has led to it.
func (p *Placed) enter(ctx context.Context, claim numa.Claim) {
	p.claim = claim
	if err := p.ledger.Replace(context.WithoutCancel(ctx), p.bundle, claim); err != nil {
		p.log(ctx).WithError(err).Warn("others do not know yet what it holds")
		p.placer.changed()
	}
}

// Release takes the container out of the ledger. What fails is told, and is
// left for Settle, and for the delete command, to do.
func (p *Placed) Release(ctx context.Context) {
	if p == nil {
		return
	}
	p.released.Store(true)
	if err := p.take(ctx); err == nil {
		defer p.give()
		p.end(ctx)
		return
	}
	p.leave(ctx)
	p.orphaned.Store(true)
	select {
	case p.busy <- struct{}{}:
		p.give()
	default: // who has it gives it
	}
}

// end ends what there is of the container here.
func (p *Placed) end(ctx context.Context) {
	if p.unwatch != nil {
		p.unwatch()
		p.unwatch = nil
	}
	p.leave(ctx)
}

// leave releases the container's place.
func (p *Placed) leave(ctx context.Context) {
	if err := release(ctx, p.ledger, p.bundle); err != nil {
		p.log(ctx).WithError(err).Warn("its place is not free yet")
		p.placer.changed()
	}
}

func (p *Placed) log(ctx context.Context) *log.Entry { return log.G(ctx).WithField("id", p.id) }

// tell says in words where the container is.
func (p *Placed) tell(ctx context.Context) {
	switch missed := strings.Join(p.missed(), "; "); {
	case p.asked.keep != "":
		p.log(ctx).Infof("left on CPUs %s: %s", p.cpus, p.asked.keep)
	case missed != "":
		p.log(ctx).Infof("placed on node %s, CPUs %s: %s (missed: %s)", p.placement.Nodes, p.cpus, p.placement.Reason, missed)
	default:
		p.log(ctx).Infof("placed on node %s, CPUs %s: %s", p.placement.Nodes, p.cpus, p.placement.Reason)
	}
}

func (p *Placed) missed() []string {
	missed := append(slices.Clone(p.asked.missed), p.placement.Missed...)
	if !p.lacking.IsEmpty() {
		missed = append(missed, fmt.Sprintf("CPUs %s: the cgroup above has lost them", p.lacking))
	}
	return missed
}
