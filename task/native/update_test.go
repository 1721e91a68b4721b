package native

import (
	"encoding/json"
	"testing"

	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// What an update names changes, and nothing else.
func TestMerge(t *testing.T) {
	swappiness, limit := uint64(3), int64(11)
	base := func() *cgroups.Resources {
		return &cgroups.Resources{
			Memory: 100, MemoryReservation: 50, MemorySwap: 200, MemorySwappiness: &swappiness,
			CpuShares: 1024, CpuWeight: 39, CpuQuota: 5000, CpuPeriod: 10000, CpusetCpus: "0-1", CpusetMems: "0", PidsLimit: &limit,
			BlkioWeightDevice:          []*cgroups.WeightDevice{cgroups.NewWeightDevice(8, 0, 10, 0)},
			BlkioThrottleReadBpsDevice: []*cgroups.ThrottleDevice{cgroups.NewThrottleDevice(8, 0, 1000)},
			HugetlbLimit:               []*cgroups.HugepageLimit{{Pagesize: "2MB", Limit: 1}},
			Unified:                    map[string]string{"memory.high": "1"},
		}
	}
	for name, c := range map[string]struct {
		update string
		change func(*cgroups.Resources)
	}{
		"nothing":          {`{}`, func(*cgroups.Resources) {}},
		"empty sections":   {`{"memory":{},"cpu":{},"pids":{},"blockIO":{}}`, func(*cgroups.Resources) {}},
		"memory":           {`{"memory":{"limit":300}}`, func(r *cgroups.Resources) { r.Memory = 300 }},
		"memory, no limit": {`{"memory":{"limit":-1}}`, func(r *cgroups.Resources) { r.Memory, r.MemorySwap = -1, 0 }},
		"no limit, swap":   {`{"memory":{"limit":-1,"swap":-1}}`, func(r *cgroups.Resources) { r.Memory, r.MemorySwap = -1, -1 }},
		"all of memory": {`{"memory":{"limit":1,"reservation":2,"swap":3,"swappiness":4,"disableOOMKiller":true,"checkBeforeUpdate":true}}`, func(r *cgroups.Resources) {
			n := uint64(4)
			r.Memory, r.MemoryReservation, r.MemorySwap, r.MemorySwappiness, r.OomKillDisable, r.MemoryCheckBeforeUpdate = 1, 2, 3, &n, true, true
		}},
		"quota":             {`{"cpu":{"quota":7000}}`, func(r *cgroups.Resources) { r.CpuQuota = 7000 }},
		"no quota":          {`{"cpu":{"quota":-1}}`, func(r *cgroups.Resources) { r.CpuQuota = -1 }},
		"period":            {`{"cpu":{"period":20000}}`, func(r *cgroups.Resources) { r.CpuPeriod = 20000 }},
		"quota and period":  {`{"cpu":{"quota":1,"period":2}}`, func(r *cgroups.Resources) { r.CpuQuota, r.CpuPeriod = 1, 2 }},
		"zeros, empty sets": {`{"cpu":{"quota":0,"period":0,"cpus":"","mems":""}}`, func(*cgroups.Resources) {}},
		"sets":              {`{"cpu":{"cpus":"1","mems":"1"}}`, func(r *cgroups.Resources) { r.CpusetCpus, r.CpusetMems = "1", "1" }},
		"shares":            {`{"cpu":{"shares":2}}`, func(r *cgroups.Resources) { r.CpuShares, r.CpuWeight = 2, 1 }},
		"idle and burst":    {`{"cpu":{"idle":1,"burst":5}}`, func(r *cgroups.Resources) { idle, burst := int64(1), uint64(5); r.CPUIdle, r.CpuBurst = &idle, &burst }},
		"pids":              {`{"pids":{"limit":-1}}`, func(r *cgroups.Resources) { n := int64(-1); r.PidsLimit = &n }},
		"hugepages":         {`{"hugepageLimits":[{"pageSize":"2MB","limit":9}]}`, func(r *cgroups.Resources) { r.HugetlbLimit[0].Limit = 9 }},
		"block, same device": {`{"blockIO":{"weight":5,"weightDevice":[{"major":8,"minor":0,"weight":20}],"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":2}]}}`, func(r *cgroups.Resources) {
			r.BlkioWeight = 5
			r.BlkioWeightDevice[0] = cgroups.NewWeightDevice(8, 0, 20, 0)
			r.BlkioThrottleReadBpsDevice[0] = cgroups.NewThrottleDevice(8, 0, 2)
		}},
		"block, other device": {`{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":16,"rate":2}],"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":3}]}}`, func(r *cgroups.Resources) {
			r.BlkioThrottleReadBpsDevice = append(r.BlkioThrottleReadBpsDevice, cgroups.NewThrottleDevice(8, 16, 2))
			r.BlkioThrottleWriteIOPSDevice = []*cgroups.ThrottleDevice{cgroups.NewThrottleDevice(8, 0, 3)}
		}},
		"unified": {`{"unified":{"memory.low":"2"}}`, func(r *cgroups.Resources) { r.Unified = map[string]string{"memory.low": "2"} }},
	} {
		t.Run(name, func(t *testing.T) {
			var update specs.LinuxResources
			must(t, json.Unmarshal([]byte(c.update), &update))
			old, want := base(), base()
			want.Unified = nil // written once, by the update that named it
			c.change(want)
			got, err := merge(old, &update)
			must(t, err)
			if g, w := toJSON(t, got), toJSON(t, want); g != w {
				t.Errorf("\n%s, want\n%s", g, w)
			}
			if toJSON(t, old) != toJSON(t, base()) {
				t.Error("the old values were changed")
			}
		})
	}
}

func toJSON(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	must(t, err)
	return string(data)
}
