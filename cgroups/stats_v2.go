package cgroups

import (
	"math"
	"strconv"
	"strings"

	stats "github.com/containerd/cgroups/v3/cgroup2/stats"
)

// unlimitedV2 is what the v2 message holds for the word "max".
const unlimitedV2 = math.MaxUint64

// readV2 fills the message of v2, from the files of the kernel's
// Documentation/admin-guide/cgroup-v2.rst.
func (c *Cgroup) readV2() (*stats.Metrics, error) {
	r := &reader{dir: c.dirs[unified]}
	m := &stats.Metrics{
		Pids: &stats.PidsStat{
			Current: r.number("pids.current", unlimitedV2),
			Limit:   r.number("pids.max", unlimitedV2),
		},
		CPU:          cpuV2(r),
		Memory:       memoryV2(r),
		MemoryEvents: memoryEventsV2(r),
		Io:           &stats.IOStat{Usage: parseIO(r.text("io.stat")), PSI: pressure(r, "io.pressure")},
		Rdma:         rdmaV2(r),
	}
	for _, size := range hugePageSizes() {
		prefix := "hugetlb." + size + "."
		m.Hugetlb = append(m.Hugetlb, &stats.HugeTlbStat{
			Pagesize: size,
			Current:  r.number(prefix+"current", unlimitedV2),
			Max:      r.number(prefix+"max", unlimitedV2),
			Failcnt:  r.keyed(prefix + "events")["max"],
		})
	}
	return m, r.err
}

func cpuV2(r *reader) *stats.CPUStat {
	stat := r.keyed("cpu.stat")
	return &stats.CPUStat{
		UsageUsec:     stat["usage_usec"],
		UserUsec:      stat["user_usec"],
		SystemUsec:    stat["system_usec"],
		NrPeriods:     stat["nr_periods"],
		NrThrottled:   stat["nr_throttled"],
		ThrottledUsec: stat["throttled_usec"],
		NrBursts:      stat["nr_bursts"],
		BurstUsec:     stat["burst_usec"],
		PSI:           pressure(r, "cpu.pressure"),
	}
}

func memoryV2(r *reader) *stats.MemoryStat {
	stat := r.keyed("memory.stat")
	if len(stat) == 0 {
		return &stats.MemoryStat{} // the controller is not enabled
	}
	return &stats.MemoryStat{
		Anon:                  stat["anon"],
		File:                  stat["file"],
		KernelStack:           stat["kernel_stack"],
		Slab:                  stat["slab"],
		Sock:                  stat["sock"],
		Shmem:                 stat["shmem"],
		FileMapped:            stat["file_mapped"],
		FileDirty:             stat["file_dirty"],
		FileWriteback:         stat["file_writeback"],
		AnonThp:               stat["anon_thp"],
		InactiveAnon:          stat["inactive_anon"],
		ActiveAnon:            stat["active_anon"],
		InactiveFile:          stat["inactive_file"],
		ActiveFile:            stat["active_file"],
		Unevictable:           stat["unevictable"],
		SlabReclaimable:       stat["slab_reclaimable"],
		SlabUnreclaimable:     stat["slab_unreclaimable"],
		Pgfault:               stat["pgfault"],
		Pgmajfault:            stat["pgmajfault"],
		WorkingsetRefault:     stat["workingset_refault"],
		WorkingsetActivate:    stat["workingset_activate"],
		WorkingsetNodereclaim: stat["workingset_nodereclaim"],
		Pgrefill:              stat["pgrefill"],
		Pgscan:                stat["pgscan"],
		Pgsteal:               stat["pgsteal"],
		Pgactivate:            stat["pgactivate"],
		Pgdeactivate:          stat["pgdeactivate"],
		Pglazyfree:            stat["pglazyfree"],
		Pglazyfreed:           stat["pglazyfreed"],
		ThpFaultAlloc:         stat["thp_fault_alloc"],
		ThpCollapseAlloc:      stat["thp_collapse_alloc"],
		Usage:                 r.number("memory.current", unlimitedV2),
		UsageLimit:            r.number("memory.max", unlimitedV2),
		MaxUsage:              r.number("memory.peak", unlimitedV2), // since 5.19
		SwapUsage:             r.number("memory.swap.current", unlimitedV2),
		SwapLimit:             r.number("memory.swap.max", unlimitedV2),
		SwapMaxUsage:          r.number("memory.swap.peak", unlimitedV2), // since 6.5
		PSI:                   pressure(r, "memory.pressure"),
	}
}

func memoryEventsV2(r *reader) *stats.MemoryEvents {
	events := r.keyed(memoryEvents)
	if len(events) == 0 {
		return nil
	}
	return &stats.MemoryEvents{
		Low:          events["low"],
		High:         events["high"],
		Max:          events["max"],
		Oom:          events["oom"],
		OomKill:      events[oomKill],
		OomGroupKill: events["oom_group_kill"], // since 5.17
	}
}

// parseIO reads lines "major:minor key=value...".
func parseIO(text string) []*stats.IOEntry {
	var entries []*stats.IOEntry
	for line := range strings.Lines(text) {
		// Some kernels leave the device with a blank where there was no I/O.
		device, values, hasValues := strings.Cut(line, " ")
		major, minor, isDevice := strings.Cut(device, ":")
		if !hasValues || !isDevice {
			continue
		}
		entry := &stats.IOEntry{Major: parseNumber(major), Minor: parseNumber(minor)}
		for field := range strings.FieldsSeq(values) {
			switch key, value, _ := strings.Cut(field, "="); key {
			case "rbytes":
				entry.Rbytes = parseNumber(value)
			case "wbytes":
				entry.Wbytes = parseNumber(value)
			case "rios":
				entry.Rios = parseNumber(value)
			case "wios":
				entry.Wios = parseNumber(value)
			}
		}
		entries = append(entries, entry)
	}
	return entries
}

// pressure reads a file of pressure stall information, kernel
// Documentation/accounting/psi.rst. It is nil where the kernel has none.
func pressure(r *reader, name string) *stats.PSIStats {
	text := r.text(name)
	if text == "" {
		return nil
	}
	psi := &stats.PSIStats{}
	for line := range strings.Lines(text) {
		kind, values, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch kind {
		case "some":
			psi.Some = parsePressure(values)
		case "full":
			psi.Full = parsePressure(values)
		}
	}
	return psi
}

func parsePressure(values string) *stats.PSIData {
	data := &stats.PSIData{}
	for field := range strings.FieldsSeq(values) {
		key, value, _ := strings.Cut(field, "=")
		average, _ := strconv.ParseFloat(value, 64) // malformed is zero, as for every number here
		switch key {
		case "avg10":
			data.Avg10 = average
		case "avg60":
			data.Avg60 = average
		case "avg300":
			data.Avg300 = average
		case "total":
			data.Total = parseNumber(value)
		}
	}
	return data
}

func rdmaV2(r *reader) *stats.RdmaStat {
	m := &stats.RdmaStat{}
	for _, d := range parseRdma(r.text("rdma.current")) {
		m.Current = append(m.Current, &stats.RdmaEntry{Device: d.device, HcaHandles: d.handles, HcaObjects: d.objects})
	}
	for _, d := range parseRdma(r.text("rdma.max")) {
		m.Limit = append(m.Limit, &stats.RdmaEntry{Device: d.device, HcaHandles: d.handles, HcaObjects: d.objects})
	}
	return m
}

// rdmaDevice is a line of rdma.current or rdma.max, the same on v1 and v2.
type rdmaDevice struct {
	device           string
	handles, objects uint32
}

// parseRdma reads lines "device hca_handle=number hca_object=number", where a
// number may be "max".
func parseRdma(text string) []rdmaDevice {
	var devices []rdmaDevice
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		d := rdmaDevice{device: fields[0]}
		for _, field := range fields[1:] {
			key, value, _ := strings.Cut(field, "=")
			n := uint32(min(parseNumber(value), math.MaxUint32))
			if value == "max" {
				n = math.MaxUint32
			}
			switch key {
			case "hca_handle":
				d.handles = n
			case "hca_object":
				d.objects = n
			}
		}
		devices = append(devices, d)
	}
	return devices
}
