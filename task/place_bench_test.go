package task

import (
	"fmt"
	"path/filepath"
	"testing"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"golang.org/x/sys/unix"

	"containerd-shim-numa-v1/task/placement"
)

// BenchmarkPlacement is what a placement adds to Create and Delete: of a
// further container of a shim, and of a shim's first, which reads the topology
// as the shims before it have left it. The engine does nothing. CPU time tells
// more than the time that passes on a machine with other work.
func BenchmarkPlacement(b *testing.B) {
	for name, s := range map[string]placement.Settings{
		"none": {Policy: placement.None}, "best-effort": {}, "dedicated": dedicated,
	} {
		for _, others := range []int{0, 1000} {
			b.Run(fmt.Sprintf("%s/%d others", name, others), func(b *testing.B) {
				m := newMachine(b)
				before := m.shim(placement.Settings{})
				for n := range others {
					before.createWith(fmt.Sprint("o", n), specWith(cpus(1)))
				}
				for _, first := range []bool{false, true} {
					b.Run(map[bool]string{false: "further", true: "first"}[first], func(b *testing.B) {
						benchmarkPlacement(b, m, s, first)
					})
				}
			})
		}
	}
}

func benchmarkPlacement(b *testing.B, m *machine, s placement.Settings, first bool) {
	dir := bundle(b, specWith(cpus(1)))
	r := m.shim(s)
	begin := cpuTime(b)
	for b.Loop() {
		if first {
			r = newRigWith(b, Config{Node: Settings{Placement: r.Node.Placement}})
		}
		_, err := r.Create(b.Context(), &taskv3.CreateTaskRequest{ID: filepath.Base(dir), Bundle: dir})
		must(b, err)
		r.end(filepath.Base(dir))
	}
	b.ReportMetric(float64(cpuTime(b)-begin)/1e3/float64(b.N), "cpu-µs/op")
}

// cpuTime is the CPU time of this process, in nanoseconds.
func cpuTime(t testing.TB) int64 {
	var u unix.Rusage
	must(t, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return u.Utime.Nano() + u.Stime.Nano()
}
