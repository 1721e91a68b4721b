package external

import (
	"context"
	"fmt"

	runc "github.com/containerd/go-runc"
	"github.com/opencontainers/runtime-spec/specs-go/features"
)

// Features asks a runtime what its containers may ask for (runtime-spec,
// features.md). crun has known the question since 1.8.6, runc since 1.1.
func Features(ctx context.Context, binary string) (*features.Features, error) {
	f, err := (&runc.Runc{Command: binary}).Features(ctx)
	if err != nil {
		return nil, fmt.Errorf("features of %s: %w", binary, err)
	}
	return f, nil
}
