package native

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Update changes what r sets of the container's limits and leaves the rest.
//
// Device rules are not touched: others, such as a GPU's hooks, may have added
// to them.
//
// An update writes all limits, those that it leaves as they are included; so
// one that had read them before another changed them would take that back.
func (i *instance) Update(ctx context.Context, r *specs.LinuxResources) error {
	select {
	case i.updating <- struct{}{}:
		defer func() { <-i.updating }()
	case <-ctx.Done():
		return ctx.Err()
	}
	container, err := i.load()
	if err != nil {
		return err
	}
	config := container.Config()
	merged, err := merge(config.Cgroups.Resources, r)
	if err != nil {
		return err
	}
	// The old ones are what a failed update is rolled back to.
	merged.SkipDevices, config.Cgroups.Resources.SkipDevices = true, true
	// config is a shallow copy of the handle's own: both must not share what
	// is changed, or a failed update could not be rolled back.
	cg := *config.Cgroups
	cg.Resources = merged
	config.Cgroups = &cg
	return container.Set(config)
}

// merge returns a copy of the resources old with what r sets.
func merge(old *cgroups.Resources, r *specs.LinuxResources) (*cgroups.Resources, error) {
	res, err := clone(old)
	if err != nil {
		return nil, err
	}
	mergeMemory(res, r.Memory)
	mergeCPU(res, r.CPU)
	if r.Pids != nil && r.Pids.Limit != nil {
		res.PidsLimit = r.Pids.Limit
	}
	if b := r.BlockIO; b != nil {
		mergeBlockIO(res, b)
	}
	if len(r.HugepageLimits) > 0 {
		res.HugetlbLimit = nil
		for _, l := range r.HugepageLimits {
			res.HugetlbLimit = append(res.HugetlbLimit, &cgroups.HugepageLimit{Pagesize: l.Pagesize, Limit: l.Limit})
		}
	}
	// Only what this update names is written, so earlier raw values do not
	// fight with it.
	res.Unified = r.Unified
	return res, nil
}

// clone copies deeply, by the form in which state.json has it.
func clone(old *cgroups.Resources) (*cgroups.Resources, error) {
	data, err := json.Marshal(old)
	if err != nil {
		return nil, fmt.Errorf("copy resources: %w", err)
	}
	res := new(cgroups.Resources)
	if err := json.Unmarshal(data, res); err != nil {
		return nil, fmt.Errorf("copy resources: %w", err)
	}
	return res, nil
}

func mergeMemory(res *cgroups.Resources, m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	set(&res.Memory, m.Limit)
	set(&res.MemoryReservation, m.Reservation)
	set(&res.MemorySwap, m.Swap)
	if m.Swap == nil && m.Limit != nil && *m.Limit == -1 {
		// A swap limit without a memory limit is refused by libcontainer.
		res.MemorySwap = 0
	}
	if m.Swappiness != nil {
		res.MemorySwappiness = m.Swappiness
	}
	set(&res.OomKillDisable, m.DisableOOMKiller)
	set(&res.MemoryCheckBeforeUpdate, m.CheckBeforeUpdate)
}

func mergeCPU(res *cgroups.Resources, c *specs.LinuxCPU) {
	if c == nil {
		return
	}
	if c.Shares != nil {
		res.CpuShares = *c.Shares
		res.CpuWeight = cgroups.ConvertCPUSharesToCgroupV2Value(*c.Shares)
	}
	// Zero stands for "as it is" in clients that send all fields.
	if c.Period != nil && *c.Period != 0 {
		res.CpuPeriod = *c.Period
	}
	if c.Quota != nil && *c.Quota != 0 {
		res.CpuQuota = *c.Quota
	}
	if c.Burst != nil {
		res.CpuBurst = c.Burst
	}
	set(&res.CpuRtPeriod, c.RealtimePeriod)
	set(&res.CpuRtRuntime, c.RealtimeRuntime)
	if c.Cpus != "" {
		res.CpusetCpus = c.Cpus
	}
	if c.Mems != "" {
		res.CpusetMems = c.Mems
	}
	if c.Idle != nil {
		res.CPUIdle = c.Idle
	}
}

func mergeBlockIO(res *cgroups.Resources, b *specs.LinuxBlockIO) {
	set(&res.BlkioWeight, b.Weight)
	set(&res.BlkioLeafWeight, b.LeafWeight)
	for _, d := range b.WeightDevice {
		var weight, leaf uint16
		set(&weight, d.Weight)
		set(&leaf, d.LeafWeight)
		res.BlkioWeightDevice = upsert(res.BlkioWeightDevice, cgroups.NewWeightDevice(d.Major, d.Minor, weight, leaf),
			func(w *cgroups.WeightDevice) cgroups.BlockIODevice { return w.BlockIODevice })
	}
	for _, t := range []struct {
		to   *[]*cgroups.ThrottleDevice
		from []specs.LinuxThrottleDevice
	}{
		{&res.BlkioThrottleReadBpsDevice, b.ThrottleReadBpsDevice},
		{&res.BlkioThrottleWriteBpsDevice, b.ThrottleWriteBpsDevice},
		{&res.BlkioThrottleReadIOPSDevice, b.ThrottleReadIOPSDevice},
		{&res.BlkioThrottleWriteIOPSDevice, b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.from {
			*t.to = upsert(*t.to, cgroups.NewThrottleDevice(d.Major, d.Minor, d.Rate),
				func(t *cgroups.ThrottleDevice) cgroups.BlockIODevice { return t.BlockIODevice })
		}
	}
}

// upsert puts a limit into a list that has one for each device at most.
func upsert[L any](list []L, limit L, device func(L) cgroups.BlockIODevice) []L {
	i := slices.IndexFunc(list, func(l L) bool { return device(l) == device(limit) })
	if i < 0 {
		return append(list, limit)
	}
	list[i] = limit
	return list
}

// set changes what field points to if there is a value.
func set[T any](field, value *T) {
	if value != nil {
		*field = *value
	}
}
