package placement

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"containerd-shim-numa-v1/numa"
)

func TestWords(t *testing.T) {
	for _, c := range []struct {
		settings Settings
		want     numa.Request
		says     string // of the error
	}{
		{settings: Settings{}},
		{settings: Settings{Policy: "best-effort", CPUPolicy: "shared", ThreadPolicy: "prefer", CachePolicy: "prefer", MemoryPolicy: "local", Strategy: "adaptive"}},
		{settings: Settings{Policy: "restricted", CPUPolicy: "dedicated", ThreadPolicy: "require", CachePolicy: "require", MemoryPolicy: "preferred", Strategy: "pack"},
			want: numa.Request{Policy: numa.Restricted, CPU: numa.Dedicated, Thread: numa.RequireCores, Cache: numa.RequireCache, Memory: numa.PreferredMemory, Strategy: numa.Pack}},
		{settings: Settings{Policy: "single-numa-node", ThreadPolicy: "isolate", CachePolicy: "none", MemoryPolicy: "bind", Strategy: "spread"},
			want: numa.Request{Policy: numa.SingleNode, Thread: numa.IsolateThreads, Cache: numa.IgnoreCache, Memory: numa.BindMemory, Strategy: numa.Spread}},
		{settings: Settings{Policy: "none", MemoryPolicy: "interleave"}, want: numa.Request{Policy: numa.Unplaced, Memory: numa.InterleaveMemory}},
		{settings: Settings{Policy: "best"}, says: `policy "best" is none of best-effort, restricted`},
		{settings: Settings{CPUPolicy: "x"}, says: "cpu-policy"},
		{settings: Settings{ThreadPolicy: "x"}, says: "thread-policy"},
		{settings: Settings{CachePolicy: "x"}, says: "cache-policy"},
		{settings: Settings{MemoryPolicy: "x"}, says: "memory-policy"},
		{settings: Settings{Strategy: "x"}, says: "strategy"},
		{settings: Settings{Annotations: []string{"strategy"}}, says: `"strategy" is no key`},
		{settings: Settings{MaxDedicated: -1}, says: "max-dedicated"},
		{settings: Settings{Sysfs: "sys"}, says: "sysfs"},
		{settings: Settings{Ledger: "ledger"}, says: "ledger"},
	} {
		err := c.settings.Check()
		if c.says != "" {
			if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%+v: %v, want one that says %q", c.settings, err, c.says)
			}
			continue
		}
		got, wishesErr := c.settings.wishes()
		if err != nil || wishesErr != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v: %+v, %v, %v", c.settings, got, err, wishesErr)
		}
	}
}

func TestAnnotations(t *testing.T) {
	const (
		policy = "numa.containerd.io/policy"
		cpu    = "numa.containerd.io/cpu-policy"
	)
	for name, c := range map[string]struct {
		allowed     []string
		annotations map[string]string
		want        Settings
		ignored     []string
		says        string // of the error
	}{
		"none":                  {annotations: map[string]string{"a": "b"}},
		"policy":                {annotations: map[string]string{policy: "single-numa-node"}, want: Settings{Policy: "single-numa-node"}},
		"not allowed":           {annotations: map[string]string{cpu: "dedicated", policy: "none"}, want: Settings{Policy: "none"}, ignored: []string{cpu}},
		"allowed":               {allowed: []string{"cpu-policy"}, annotations: map[string]string{cpu: "dedicated", policy: "none"}, want: Settings{CPUPolicy: "dedicated"}, ignored: []string{policy}},
		"nothing allowed":       {allowed: []string{}, annotations: map[string]string{policy: "none"}, ignored: []string{policy}},
		"unknown":               {annotations: map[string]string{"numa.containerd.io/x": "y"}, ignored: []string{"numa.containerd.io/x"}},
		"invalid":               {annotations: map[string]string{policy: "best\neffort"}, says: `"best\neffort"`},
		"invalid, not allowed":  {annotations: map[string]string{cpu: "x"}, ignored: []string{cpu}},
		"empty":                 {annotations: map[string]string{policy: ""}, says: "0 bytes"},
		"long":                  {annotations: map[string]string{policy: strings.Repeat("x", 65)}, says: "65 bytes"},
		"the node's strategy":   {annotations: map[string]string{"numa.containerd.io/strategy": "pack"}, ignored: []string{"numa.containerd.io/strategy"}},
		"another's annotations": {annotations: map[string]string{"xnuma.containerd.io/policy": "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, ignored, err := Settings{Annotations: c.allowed}.annotated(c.annotations)
			if c.says != "" {
				if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%v, want one that says %q", err, c.says)
				}
				return
			}
			c.want.Annotations = c.allowed
			if err != nil || !reflect.DeepEqual(got, c.want) || !reflect.DeepEqual(ignored, c.ignored) {
				t.Errorf("%+v, ignored %q, %v", got, ignored, err)
			}
		})
	}
}

func TestNodeOnly(t *testing.T) {
	for want, s := range map[string]Settings{
		"": {Policy: "none"}, "strategy": {Strategy: "pack"}, "sysfs": {Sysfs: "/s"}, "ledger": {Ledger: "/l"}, "core-scheduling": {CoreScheduling: true},
	} {
		if got := s.NodeOnly(Settings{}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
