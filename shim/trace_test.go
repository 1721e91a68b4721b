package shim

import (
	"context"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
)

const testTrace = "0af7651916cd43dd8448eb211c80319c"

func TestTraceID(t *testing.T) {
	for header, want := range map[string]string{
		"00-" + testTrace + "-b7ad6b7169203331-01":      testTrace,
		"cc-" + testTrace + "-b7ad6b7169203331-01-more": testTrace,
		"":                "",
		"00-" + testTrace: "",
		"00-" + testTrace[1:] + "-b7ad6b7169203331-01":              "",
		"00-" + strings.ToUpper(testTrace) + "-b7ad6b7169203331-01": "",
		"00-" + strings.Repeat("0", 32) + "-b7ad6b7169203331-01":    "",
		"00-" + strings.Repeat("\n", 32) + "-b7ad6b7169203331-01":   "",
	} {
		got, ok := traceID(header)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%q is of trace %q, %t, want %q", header, got, ok, want)
		}
	}
}

func TestCallsNameTheirTrace(t *testing.T) {
	c := watchCalls(unattendedLimit)
	defer c.stop()
	field := func(header string) (got any) {
		ctx := ttrpc.WithMetadata(context.Background(), ttrpc.MD{traceHeader: {header}})
		_, err := c.intercept(ctx, nil, nil, func(ctx context.Context, _ func(any) error) (any, error) {
			got = log.G(ctx).Data[traceField]
			return nil, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := field("00-" + testTrace + "-b7ad6b7169203331-01"); got != testTrace {
		t.Errorf("trace in the log is %v, want %s", got, testTrace)
	}
	if got := field("garbage"); got != nil {
		t.Errorf("trace in the log is %v for garbage", got)
	}
}

// What is logged is hexadecimal and nothing else, whatever was sent.
func FuzzTraceID(f *testing.F) {
	f.Add("00-" + testTrace + "-b7ad6b7169203331-01")
	f.Add("00-\n-")
	f.Fuzz(func(t *testing.T, header string) {
		id, ok := traceID(header)
		if !ok {
			return
		}
		if raw, err := hex.DecodeString(id); err != nil || len(raw) != traceIDLength/2 || !strings.Contains(header, "-"+id+"-") {
			t.Errorf("%q is of trace %q", header, id)
		}
	})
}
