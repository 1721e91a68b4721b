package shim

import (
	"context"
	"strings"

	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
)

const (
	// traceHeader is the metadata of a call in which a containerd that traces
	// sends the call's place in the trace (W3C Trace Context, traceparent).
	traceHeader = "traceparent"

	// traceField is what log entries call the trace.
	traceField = "trace_id"

	traceIDLength = 32 // lower-case hexadecimal digits
)

// withTrace has what is logged of a call name the trace that the call is part
// of, so that a slow span of containerd's leads to the shim's log of it. The
// shim makes no spans of its own (docs/decisions/tracing.md).
func withTrace(ctx context.Context) context.Context {
	header, ok := ttrpc.GetMetadataValue(ctx, traceHeader)
	if !ok {
		return ctx
	}
	id, ok := traceID(header)
	if !ok {
		return ctx
	}
	return log.WithLogger(ctx, log.G(ctx).WithField(traceField, id))
}

// traceID returns the second field of version-trace-parent-flags. Later
// versions may have more fields, but begin with these.
func traceID(header string) (id string, ok bool) {
	fields := strings.SplitN(header, "-", 4)
	if len(fields) < 4 || len(fields[1]) != traceIDLength {
		return "", false
	}
	id = fields[1]
	return id, strings.Trim(id, "0123456789abcdef") == "" && strings.Trim(id, "0") != ""
}
