package placement

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"containerd-shim-numa-v1/numa"
)

// Settings are the table [placement] of the settings. docs/configuration.md
// describes each key; what is empty has its default.
type Settings struct {
	Policy       string `toml:"policy"`
	CPUPolicy    string `toml:"cpu-policy"`
	ThreadPolicy string `toml:"thread-policy"`
	CachePolicy  string `toml:"cache-policy"`
	MemoryPolicy string `toml:"memory-policy"`

	// Annotations are the keys that a pod may set by an annotation; nil for
	// defaultAnnotations.
	Annotations []string `toml:"annotations"`
	// MaxDedicated bounds the dedicated CPUs of a container; 0: no bound.
	MaxDedicated int `toml:"max-dedicated"`
	// Env: the container is told its place in its environment; nil is true.
	Env *bool `toml:"env"`
	// PinCreate: the shim's own work for a container is done on its node.
	PinCreate bool `toml:"pin-create"`
	// WidenMemory: a container bound to nodes that run short of memory is
	// given all that it is granted, before the kernel kills it.
	WidenMemory bool `toml:"widen-memory"`

	// What follows is the node's alone, since all of its shims must agree.

	Strategy string `toml:"strategy"`
	// CoreScheduling: no thread of another pod runs on a core beside one of
	// the pod's at the same time.
	CoreScheduling bool `toml:"core-scheduling"`
	// Sysfs is read instead of /sys, Ledger used instead of the ledger's
	// usual directory; both are for tests.
	Sysfs  string `toml:"sysfs"`
	Ledger string `toml:"ledger"`
}

// The words of each key, the default first, in the order of numa's constants.
var (
	policies       = []string{"best-effort", "restricted", "single-numa-node", None}
	cpuPolicies    = []string{"shared", "dedicated"}
	threadPolicies = []string{"prefer", "require", "isolate"}
	cachePolicies  = []string{"prefer", "require", "none"}
	memoryPolicies = []string{"local", "preferred", "bind", "interleave"}
	strategies     = []string{"adaptive", "pack", "spread"}
)

// None is the policy that leaves containers alone.
const None = "none"

// The keys that an annotation may set where the node allows it.
const (
	keyPolicy = "policy"
	keyCPU    = "cpu-policy"
	keyThread = "thread-policy"
	keyCache  = "cache-policy"
	keyMemory = "memory-policy"
)

// annotationPrefix precedes such a key in an annotation's name.
const annotationPrefix = "numa.containerd.io/"

// maxValue bounds the value of an annotation, in bytes.
const maxValue = 64

// maxIgnored bounds how many annotations that are not allowed are named.
const maxIgnored = 8

// defaultAnnotations are allowed where the node does not say: the policy, which
// can make no other container's life harder. CPUs of one's own can.
var defaultAnnotations = []string{keyPolicy}

// field is the setting of a key that annotations may name.
func (s *Settings) field(key string) *string {
	switch key {
	case keyPolicy:
		return &s.Policy
	case keyCPU:
		return &s.CPUPolicy
	case keyThread:
		return &s.ThreadPolicy
	case keyCache:
		return &s.CachePolicy
	case keyMemory:
		return &s.MemoryPolicy
	}
	return nil
}

// Clone returns settings that share nothing with s.
func (s Settings) Clone() Settings {
	s.Annotations = slices.Clone(s.Annotations)
	if s.Env != nil {
		env := *s.Env
		s.Env = &env
	}
	return s
}

// Check refuses values that a key cannot have. The error wraps
// errdefs.ErrInvalidArgument.
func (s Settings) Check() error {
	if _, err := s.wishes(); err != nil {
		return err
	}
	for _, key := range s.Annotations {
		if s.field(key) == nil {
			return invalid("annotations: %q is no key that an annotation can set", key)
		}
	}
	for key, path := range map[string]string{"sysfs": s.Sysfs, "ledger": s.Ledger} {
		if path != "" && !filepath.IsAbs(path) {
			return invalid("%s %q is not an absolute path", key, path)
		}
	}
	if s.MaxDedicated < 0 {
		return invalid("max-dedicated %d is negative", s.MaxDedicated)
	}
	return nil
}

// NodeOnly names a key of the node alone in which s differs from the node's
// settings, "" if there is none.
func (s Settings) NodeOnly(node Settings) string {
	switch {
	case s.Strategy != node.Strategy:
		return "strategy"
	case s.CoreScheduling != node.CoreScheduling:
		return "core-scheduling"
	case s.Sysfs != node.Sysfs:
		return "sysfs"
	case s.Ledger != node.Ledger:
		return "ledger"
	}
	return ""
}

// tells whether containers are told their place.
func (s Settings) tells() bool { return s.Env == nil || *s.Env }

// wishes are the policies of a request with these settings.
func (s Settings) wishes() (r numa.Request, err error) {
	for _, w := range []struct {
		key, value string
		words      []string
		set        func(int)
	}{
		{keyPolicy, s.Policy, policies, func(i int) { r.Policy = numa.Policy(i) }},
		{keyCPU, s.CPUPolicy, cpuPolicies, func(i int) { r.CPU = numa.CPUPolicy(i) }},
		{keyThread, s.ThreadPolicy, threadPolicies, func(i int) { r.Thread = numa.ThreadPolicy(i) }},
		{keyCache, s.CachePolicy, cachePolicies, func(i int) { r.Cache = numa.CachePolicy(i) }},
		{keyMemory, s.MemoryPolicy, memoryPolicies, func(i int) { r.Memory = numa.MemoryPolicy(i) }},
		{"strategy", s.Strategy, strategies, func(i int) { r.Strategy = numa.Strategy(i) }},
	} {
		if w.value == "" {
			continue
		}
		i := slices.Index(w.words, w.value)
		if i < 0 {
			return r, invalid("%s %q is none of %s", w.key, w.value, strings.Join(w.words, ", "))
		}
		w.set(i)
	}
	return r, nil
}

// annotated returns s with what the annotations of a spec set, and the names
// of those that are not allowed, which have no effect. A value that an allowed
// key cannot have is an error.
func (s Settings) annotated(annotations map[string]string) (_ Settings, ignored []string, err error) {
	allowed := s.Annotations
	if allowed == nil {
		allowed = defaultAnnotations
	}
	for name, value := range annotations {
		key, ok := strings.CutPrefix(name, annotationPrefix)
		if !ok {
			continue
		}
		field := s.field(key)
		if field == nil || !slices.Contains(allowed, key) {
			if len(ignored) < maxIgnored {
				ignored = append(ignored, name[:min(len(name), len(annotationPrefix)+maxValue)])
			}
			continue
		}
		if value == "" || len(value) > maxValue {
			return s, nil, invalid("annotation %s: %d bytes, not 1 to %d", name, len(value), maxValue)
		}
		*field = value
		if _, err := s.wishes(); err != nil {
			return s, nil, fmt.Errorf("annotation %s: %w", name, err)
		}
	}
	slices.Sort(ignored)
	return s, ignored, nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}
