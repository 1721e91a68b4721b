package placement

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/cpuset"
	"containerd-shim-numa-v1/numa/ledger"
)

// recordVersion is that of the file of a bundle that tells of its placement.
const recordVersion = 1

// maxRecord bounds that file, in bytes: a claim and a few candidates.
const maxRecord = 64 << 10

// record is the file, as JSON: for people and tools who ask why a container is
// where it is, for the delete command, and (claim) for a ledger that is lost.
type record struct {
	Version int    `json:"version"`
	Ledger  string `json:"ledger,omitempty"`
	Sysfs   string `json:"sysfs,omitempty"`

	Asked wanted `json:"asked"`
	// Nodes, CPUs and Mems are what is in force; mems empty for no binding.
	Nodes cpuset.Set `json:"nodes"`
	CPUs  cpuset.Set `json:"cpus"`
	Mems  cpuset.Set `json:"mems"`
	// Kept says why the CPUs were left as they are, Fault why there is no
	// placement, or why it is not in force.
	Kept       string           `json:"kept,omitempty"`
	Fault      string           `json:"fault,omitempty"`
	Reason     string           `json:"reason,omitempty"`
	Missed     []string         `json:"missed,omitempty"`
	Candidates []numa.Candidate `json:"candidates,omitempty"`

	// Claim is nil for a container that is not in the ledger.
	Claim *ledger.Record `json:"claim,omitempty"`
}

// wanted is what the container asked for, in the words of the settings.
type wanted struct {
	Policy       string          `json:"policy"`
	CPUPolicy    string          `json:"cpu-policy"`
	ThreadPolicy string          `json:"thread-policy"`
	CachePolicy  string          `json:"cache-policy"`
	MemoryPolicy string          `json:"memory-policy"`
	Milli        int             `json:"milli"`
	Width        int             `json:"width"`
	Bytes        int64           `json:"bytes"`
	Hugepages    map[int64]int64 `json:"hugepages,omitempty"`
	Devices      []int           `json:"devices,omitempty"`
	Pod          string          `json:"pod,omitempty"`
	Granted      cpuset.Set      `json:"granted"`
	Mems         cpuset.Set      `json:"mems"`
}

// note writes what is in force into the bundle.
func (p *Placed) note() {
	claim := p.host.ledger.Record(p.claim, p.init)
	p.write(record{
		Ledger: p.host.dir,
		Nodes:  p.claim.Nodes, CPUs: p.cpus, Mems: p.bound(), Kept: p.asked.keep, Fault: p.fault,
		Reason: p.placement.Reason, Missed: p.missed(), Candidates: p.placement.Candidates,
		Claim: &claim,
	})
}

// noteUnplaced writes why a container runs without a placement.
func (p *Placed) noteUnplaced(why error) { p.write(record{Fault: why.Error()}) }

// write adds to r what was asked for and makes it the bundle's file. The
// container is worth more than the note, so an error is only logged.
func (p *Placed) write(r record) {
	a := p.asked.Request
	wishes, _ := p.settings.wishes()
	r.Version, r.Sysfs = recordVersion, p.placer.node.Sysfs
	r.Asked = wanted{
		Policy: policies[wishes.Policy], CPUPolicy: cpuPolicies[wishes.CPU], ThreadPolicy: threadPolicies[wishes.Thread],
		CachePolicy: cachePolicies[wishes.Cache], MemoryPolicy: memoryPolicies[wishes.Memory],
		Milli: a.Milli, Width: a.Width, Bytes: a.Bytes, Hugepages: a.Hugepages, Devices: a.Devices, Pod: a.Pod,
		Granted: a.Granted, Mems: a.Mems,
	}
	data, err := json.Marshal(r)
	if err == nil {
		err = replaceFile(filepath.Join(p.bundle, ledger.RecordFile), data)
	}
	if err != nil {
		p.log(context.Background()).WithError(err).Warn("the bundle does not tell of the placement")
	}
}

// replaceFile writes a file that a reader sees all of or none.
func replaceFile(path string, data []byte) error {
	const mode = 0o600
	temp := path + ".new"
	err := os.WriteFile(temp, data, mode)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		os.Remove(temp)
	}
	return err
}

// release drops a bundle's entry and then its note, which is what the delete
// command knows by that there is one.
func release(ctx context.Context, l *ledger.Ledger, bundle string) error {
	if err := l.Release(ctx, bundle); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(bundle, ledger.RecordFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Release drops what the shim of a bundle has left in the ledger, if the
// bundle tells of anything.
func Release(ctx context.Context, bundle string) error {
	path := filepath.Join(bundle, ledger.RecordFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("release the placement: %w", err)
	}
	defer f.Close()
	var r record
	if err := json.NewDecoder(io.LimitReader(f, maxRecord)).Decode(&r); err != nil {
		return fmt.Errorf("release the placement: parse %s: %w", path, err)
	}
	if r.Claim == nil {
		return nil // it never was in the ledger
	}
	h, err := openHost(Settings{Ledger: r.Ledger, Sysfs: r.Sysfs}, nil, nil)
	if err != nil {
		return fmt.Errorf("release the placement: %w", err)
	}
	if err := release(ctx, h.ledger, bundle); err != nil {
		return fmt.Errorf("release the placement: %w", err)
	}
	return nil
}
