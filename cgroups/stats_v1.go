package cgroups

import (
	"strconv"
	"strings"

	stats "github.com/containerd/cgroups/v3/cgroup1/stats"
)

const (
	// userHZ is the unit of cpuacct.stat, 1/100 s on every architecture of
	// Linux that Go supports, see times(2).
	userHZ     = 100
	nanosecond = 1_000_000_000
	tick       = nanosecond / userHZ
)

// unlimitedV1 is what the v1 message holds for no limit, by convention.
const unlimitedV1 = 0

// readV1 fills the message of v1. Controllers that the container has no
// cgroup in stay nil, apart from the CPU's.
func (c *Cgroup) readV1() (*stats.Metrics, error) {
	m := &stats.Metrics{CPU: &stats.CPUStat{Throttling: &stats.Throttle{}, Usage: &stats.CPUUsage{}}}
	for controller, fill := range map[string]func(*reader, *stats.Metrics){
		"cpu":     throttlingV1,
		"cpuacct": cpuV1,
		"memory":  memoryV1,
		"pids":    pidsV1,
		"blkio":   blkioV1,
		"hugetlb": hugetlbV1,
		"rdma":    rdmaV1,
	} {
		dir, ok := c.dirs[controller]
		if !ok || !isDir(dir) {
			continue
		}
		r := &reader{dir: dir}
		fill(r, m)
		if r.err != nil {
			return nil, r.err
		}
	}
	return m, nil
}

func throttlingV1(r *reader, m *stats.Metrics) {
	stat := r.keyed("cpu.stat")
	m.CPU.Throttling = &stats.Throttle{
		Periods:          stat["nr_periods"],
		ThrottledPeriods: stat["nr_throttled"],
		ThrottledTime:    stat["throttled_time"],
	}
}

func cpuV1(r *reader, m *stats.Metrics) {
	stat := r.keyed("cpuacct.stat")
	m.CPU.Usage = &stats.CPUUsage{
		Total:  r.number("cpuacct.usage", unlimitedV1),
		Kernel: stat["system"] * tick,
		User:   stat["user"] * tick,
	}
	for usage := range strings.FieldsSeq(r.text("cpuacct.usage_percpu")) {
		m.CPU.Usage.PerCPU = append(m.CPU.Usage.PerCPU, parseNumber(usage))
	}
}

func memoryV1(r *reader, m *stats.Metrics) {
	stat := r.keyed("memory.stat")
	m.Memory = &stats.MemoryStat{
		Cache:                   stat["cache"],
		RSS:                     stat["rss"],
		RSSHuge:                 stat["rss_huge"],
		MappedFile:              stat["mapped_file"],
		Dirty:                   stat["dirty"],
		Writeback:               stat["writeback"],
		PgPgIn:                  stat["pgpgin"],
		PgPgOut:                 stat["pgpgout"],
		PgFault:                 stat["pgfault"],
		PgMajFault:              stat["pgmajfault"],
		InactiveAnon:            stat["inactive_anon"],
		ActiveAnon:              stat["active_anon"],
		InactiveFile:            stat["inactive_file"],
		ActiveFile:              stat["active_file"],
		Unevictable:             stat["unevictable"],
		HierarchicalMemoryLimit: stat["hierarchical_memory_limit"],
		HierarchicalSwapLimit:   stat["hierarchical_memsw_limit"],
		TotalCache:              stat["total_cache"],
		TotalRSS:                stat["total_rss"],
		TotalRSSHuge:            stat["total_rss_huge"],
		TotalMappedFile:         stat["total_mapped_file"],
		TotalDirty:              stat["total_dirty"],
		TotalWriteback:          stat["total_writeback"],
		TotalPgPgIn:             stat["total_pgpgin"],
		TotalPgPgOut:            stat["total_pgpgout"],
		TotalPgFault:            stat["total_pgfault"],
		TotalPgMajFault:         stat["total_pgmajfault"],
		TotalInactiveAnon:       stat["total_inactive_anon"],
		TotalActiveAnon:         stat["total_active_anon"],
		TotalInactiveFile:       stat["total_inactive_file"],
		TotalActiveFile:         stat["total_active_file"],
		TotalUnevictable:        stat["total_unevictable"],
		Usage:                   memoryEntryV1(r, "memory."),
		Swap:                    memoryEntryV1(r, "memory.memsw."),
		Kernel:                  memoryEntryV1(r, "memory.kmem."),
		KernelTCP:               memoryEntryV1(r, "memory.kmem.tcp."),
	}
	oom := r.keyed(oomControl)
	m.MemoryOomControl = &stats.MemoryOomControl{
		OomKillDisable: oom["oom_kill_disable"],
		UnderOom:       oom["under_oom"],
		OomKill:        oom[oomKill],
	}
}

func memoryEntryV1(r *reader, prefix string) *stats.MemoryEntry {
	return &stats.MemoryEntry{
		Limit:   r.number(prefix+"limit_in_bytes", unlimitedV1),
		Usage:   r.number(prefix+"usage_in_bytes", unlimitedV1),
		Max:     r.number(prefix+"max_usage_in_bytes", unlimitedV1),
		Failcnt: r.number(prefix+"failcnt", unlimitedV1),
	}
}

func pidsV1(r *reader, m *stats.Metrics) {
	m.Pids = &stats.PidsStat{
		Current: r.number("pids.current", unlimitedV1),
		Limit:   r.number("pids.max", unlimitedV1),
	}
}

func hugetlbV1(r *reader, m *stats.Metrics) {
	for _, size := range hugePageSizes() {
		prefix := "hugetlb." + size + "."
		m.Hugetlb = append(m.Hugetlb, &stats.HugetlbStat{
			Pagesize: size,
			Usage:    r.number(prefix+"usage_in_bytes", unlimitedV1),
			Max:      r.number(prefix+"max_usage_in_bytes", unlimitedV1),
			Failcnt:  r.number(prefix+"failcnt", unlimitedV1),
		})
	}
}

func rdmaV1(r *reader, m *stats.Metrics) {
	m.Rdma = &stats.RdmaStat{}
	for _, d := range parseRdma(r.text("rdma.current")) {
		m.Rdma.Current = append(m.Rdma.Current, &stats.RdmaEntry{Device: d.device, HcaHandles: d.handles, HcaObjects: d.objects})
	}
	for _, d := range parseRdma(r.text("rdma.max")) {
		m.Rdma.Limit = append(m.Rdma.Limit, &stats.RdmaEntry{Device: d.device, HcaHandles: d.handles, HcaObjects: d.objects})
	}
}

// blkioV1 reads the counters of the CFQ scheduler, which kernels had until
// 5.0, and where these say nothing those of throttling, which count for every
// scheduler.
func blkioV1(r *reader, m *stats.Metrics) {
	devices := deviceNames()
	entries := func(file string) []*stats.BlkIOEntry { return parseBlkio(r.text(file), devices) }
	m.Blkio = &stats.BlkIOStat{
		SectorsRecursive:        entries("blkio.sectors_recursive"),
		IoServiceBytesRecursive: entries("blkio.io_service_bytes_recursive"),
		IoServicedRecursive:     entries("blkio.io_serviced_recursive"),
		IoQueuedRecursive:       entries("blkio.io_queued_recursive"),
		IoServiceTimeRecursive:  entries("blkio.io_service_time_recursive"),
		IoWaitTimeRecursive:     entries("blkio.io_wait_time_recursive"),
		IoMergedRecursive:       entries("blkio.io_merged_recursive"),
		IoTimeRecursive:         entries("blkio.time_recursive"),
	}
	b := m.Blkio
	for _, counted := range [][]*stats.BlkIOEntry{
		b.SectorsRecursive, b.IoServiceBytesRecursive, b.IoServicedRecursive, b.IoQueuedRecursive,
		b.IoServiceTimeRecursive, b.IoWaitTimeRecursive, b.IoMergedRecursive, b.IoTimeRecursive,
	} {
		if len(counted) > 0 {
			return
		}
	}
	b.IoServicedRecursive = entries("blkio.throttle.io_serviced")
	b.IoServiceBytesRecursive = entries("blkio.throttle.io_service_bytes")
}

// parseBlkio reads lines "major:minor [operation] value"; the sum at the end,
// "Total value", has no device and is left out.
func parseBlkio(text string, devices map[string]string) []*stats.BlkIOEntry {
	var entries []*stats.BlkIOEntry
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		major, minor, ok := strings.Cut(fields[0], ":")
		if !ok {
			continue
		}
		entry := &stats.BlkIOEntry{
			Device: devices[fields[0]],
			Major:  parseNumber(major),
			Minor:  parseNumber(minor),
			Value:  parseNumber(fields[len(fields)-1]),
		}
		if len(fields) > 2 {
			entry.Op = fields[1]
		}
		entries = append(entries, entry)
	}
	return entries
}

// deviceNames returns the paths of the block devices by "major:minor", from
// /proc/partitions, proc(5). Without that file entries have numbers only.
func deviceNames() map[string]string {
	text, err := readFile("/proc/partitions")
	if err != nil {
		return nil
	}
	names := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		// major minor #blocks name, below a heading and an empty line
		fields := strings.Fields(line)
		if len(fields) != 4 {
			continue
		}
		if _, err := strconv.Atoi(fields[0]); err == nil {
			names[fields[0]+":"+fields[1]] = "/dev/" + fields[3]
		}
	}
	return names
}
