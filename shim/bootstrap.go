package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	bootstrap "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// inputLimit bounds what is read from standard input, in bytes. Upstream's
// shim reads as much.
const inputLimit = 10 << 20

const protocolTTRPC = "ttrpc"

// The versions of the Task service that an answer can name.
const (
	taskVersionLegacy = 2 // the newest that containerd 1.7 accepts
	taskVersion       = 3
)

// launch is what one start is asked for.
type launch struct {
	namespace, id string
	address       string // of containerd's gRPC service
	ttrpcAddress  string // of containerd's ttrpc service; may be empty
	socketDir     string // empty if containerd named none
	shimCgroup    string // cgroup path to put the daemon in; may be empty
	debug         bool
	legacy        bool // asked by a containerd older than 2.3
}

func readInput(r io.Reader) ([]byte, error) {
	input, err := io.ReadAll(io.LimitReader(r, inputLimit+1))
	if err != nil {
		return nil, fmt.Errorf("read stdin: %w", err)
	}
	if len(input) > inputLimit {
		return nil, fmt.Errorf("read stdin: more than %d bytes", inputLimit)
	}
	return input, nil
}

// parseLaunch reads the standard input of start. It is a BootstrapParams
// message if it parses as one and names the id and the namespace of the
// command line: the legacy Any may parse as one too, but does not name them.
func parseLaunch(input []byte, f flags) (launch, error) {
	l := launch{namespace: f.namespace, id: f.id, address: f.address, debug: f.debug}

	var params bootstrap.BootstrapParams
	err := proto.Unmarshal(input, &params)
	if err == nil && params.GetInstanceID() == f.id && params.GetNamespace() == f.namespace {
		return l.modern(&params)
	}

	l.legacy = true
	if len(input) == 0 {
		return l, nil
	}
	var opts anypb.Any
	if err := proto.Unmarshal(input, &opts); err != nil {
		return launch{}, fmt.Errorf("parse stdin (%d bytes) as BootstrapParams or Any: %w", len(input), err)
	}
	// BootstrapParams has more fields than Any, and its first is the id.
	if len(opts.ProtoReflect().GetUnknown()) > 0 {
		return launch{}, fmt.Errorf("stdin is a BootstrapParams of id %q, namespace %q, the command line of id %q, namespace %q",
			params.GetInstanceID(), params.GetNamespace(), f.id, f.namespace)
	}
	if opts.GetTypeUrl() == "" {
		return launch{}, errors.New("parse stdin: an Any without a type")
	}
	var runc options.Options
	if opts.MessageIs(&runc) {
		if err := opts.UnmarshalTo(&runc); err != nil {
			return launch{}, fmt.Errorf("parse runtime options from stdin: %w", err)
		}
		l.shimCgroup = runc.GetShimCgroup()
	}
	return l, nil
}

func (l launch) modern(params *bootstrap.BootstrapParams) (launch, error) {
	if address := params.GetContainerdGrpcAddress(); address != "" {
		l.address = address
	}
	l.ttrpcAddress = params.GetContainerdTtrpcAddress()
	l.socketDir = params.GetSocketDir()
	l.debug = l.debug || params.GetLogLevel() <= bootstrap.LogLevel_LOG_LEVEL_DEBUG
	var runc options.Options
	if _, err := params.FindExtension(&runc); err != nil {
		return launch{}, fmt.Errorf("parse runtime options from bootstrap parameters: %w", err)
	}
	l.shimCgroup = runc.GetShimCgroup()
	return l, nil
}

// answer is the standard output of start: where the daemon listens.
//
// containerd 2.0 to 2.2 would accept version 3 in JSON as well, but 1.7 does
// not, and none of them tells which it is.
//
// The MountCapabilities extension is there even if it is empty: the runtime
// then takes mounts as the mount manager prepares them, and says so rather than
// leave containerd to ask -info. containerd before 2.3.4 trims white space off
// the answer, so the message must not end in any; it ends in the extension's
// type, or in the last of the claims.
func (l launch) answer(socket string, claims *types.MountCapabilities) ([]byte, error) {
	address := unixScheme + socket
	if l.legacy {
		data, err := json.Marshal(struct {
			Version  int    `json:"version"`
			Address  string `json:"address"`
			Protocol string `json:"protocol"`
		}{taskVersionLegacy, address, protocolTTRPC})
		if err != nil {
			return nil, fmt.Errorf("encode answer: %w", err)
		}
		return data, nil
	}
	result := bootstrap.BootstrapResult{Version: taskVersion, Address: address, Protocol: protocolTTRPC}
	if err := result.AddExtension(claims); err != nil {
		return nil, fmt.Errorf("encode mount capabilities: %w", err)
	}
	data, err := proto.Marshal(&result)
	if err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	return data, nil
}

// claims are the mounts that containerd shall leave to the service, as an
// extension of the answer. containerd before 2.4 has another way to ask: see
// [ClaimsAnnotation].
func (r Runtime) claims() *types.MountCapabilities {
	if r.MountClaims == nil {
		return &types.MountCapabilities{}
	}
	mountTypes, transforms := r.MountClaims()
	return &types.MountCapabilities{Types: mountTypes, Transforms: transforms}
}

// claimsKey is the annotation of -info by which containerd 2.2 and 2.3 know
// what a runtime mounts itself; 2.4 looks at it only where the answer to start
// says nothing.
const claimsKey = "containerd.io/runtime-allow-mounts"

// ClaimsAnnotation is the annotation of -info for claims of mounts; nil if
// there are none.
func ClaimsAnnotation(mountTypes, transforms []string) map[string]string {
	entries := slices.Clone(mountTypes)
	for _, t := range transforms {
		entries = append(entries, t+"/*")
	}
	if len(entries) == 0 {
		return nil
	}
	return map[string]string{claimsKey: strings.Join(entries, ",")}
}
