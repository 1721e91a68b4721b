package shim

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"
	"unicode"

	bootstrap "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func legacyOptions(t testing.TB, m proto.Message) []byte {
	t.Helper()
	// containerd's type URLs have no host.
	return encode(t, &anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: encode(t, m)})
}

func TestParseLaunch(t *testing.T) {
	f := flags{namespace: "ns", id: "c1", address: "/flag.sock"}
	dir := "/sockets"
	full := &bootstrap.BootstrapParams{
		InstanceID: "c1", Namespace: "ns", LogLevel: bootstrap.LogLevel_LOG_LEVEL_TRACE,
		ContainerdGrpcAddress: "/grpc.sock", ContainerdTtrpcAddress: "/ttrpc.sock", SocketDir: &dir,
	}
	if err := full.AddExtension(&runtimeoptions.Options{ConfigPath: "/x"}); err != nil {
		t.Fatal(err)
	}
	if err := full.AddExtension(&options.Options{ShimCgroup: "/shims"}); err != nil {
		t.Fatal(err)
	}
	torn := &bootstrap.BootstrapParams{InstanceID: "c1", Namespace: "ns", Extensions: []*bootstrap.Extension{
		{Value: &anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: []byte{0xff}}}}}
	legacy := launch{namespace: "ns", id: "c1", address: "/flag.sock", legacy: true}
	withCgroup := legacy
	withCgroup.shimCgroup = "/shims"

	tests := map[string]struct {
		input []byte
		want  launch
		err   string
	}{
		"nothing": {nil, legacy, ""},
		"bootstrap parameters": {encode(t, full), launch{namespace: "ns", id: "c1", address: "/grpc.sock",
			ttrpcAddress: "/ttrpc.sock", socketDir: "/sockets", shimCgroup: "/shims", debug: true}, ""},
		"bare bootstrap parameters": {encode(t, &bootstrap.BootstrapParams{InstanceID: "c1", Namespace: "ns", LogLevel: bootstrap.LogLevel_LOG_LEVEL_WARN}),
			launch{namespace: "ns", id: "c1", address: "/flag.sock"}, ""},
		"of another id": {encode(t, &bootstrap.BootstrapParams{InstanceID: "c2", Namespace: "ns", ContainerdVersion: "v"}), launch{},
			`id "c2", namespace "ns", the command line of id "c1"`},
		"of another namespace": {encode(t, &bootstrap.BootstrapParams{InstanceID: "c1", Namespace: "other", ContainerdVersion: "v"}), launch{}, `namespace "other"`},
		"torn options":         {encode(t, torn), launch{}, "parse runtime options"},
		"legacy runc options":  {legacyOptions(t, &options.Options{ShimCgroup: "/shims"}), withCgroup, ""},
		"legacy other options": {legacyOptions(t, &runtimeoptions.Options{ConfigBody: []byte("x = 1")}), legacy, ""},
		"legacy torn options":  {encode(t, &anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: []byte{0xff}}), launch{}, "parse runtime options"},
		"legacy without type":  {encode(t, &anypb.Any{Value: []byte("x")}), launch{}, "without a type"},
		"garbage":              {[]byte("hello\xff\xfe"), launch{}, "parse stdin (7 bytes)"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseLaunch(tc.input, f)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("error %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil || got != tc.want {
				t.Fatalf("got %+v, %v\nwant %+v", got, err, tc.want)
			}
		})
	}
}

func TestReadInputIsCapped(t *testing.T) {
	if data, err := readInput(bytes.NewReader(make([]byte, inputLimit))); err != nil || len(data) != inputLimit {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	if _, err := readInput(bytes.NewReader(make([]byte, inputLimit+1))); err == nil {
		t.Fatal("took more than the limit")
	}
}

// containerd tries protobuf first, so JSON must never pass for it.
func TestAnswerInJSONIsNotProtobuf(t *testing.T) {
	for n := range 401 {
		data, err := launch{legacy: true}.answer(strings.Repeat("a", n), Runtime{MountClaims: claimAll}.claims())
		if err != nil {
			t.Fatal(err)
		}
		want := `{"version":2,"address":"unix://` + strings.Repeat("a", n) + `","protocol":"ttrpc"}`
		if string(data) != want {
			t.Fatalf("answer %s", data)
		}
		if proto.Unmarshal(data, &bootstrap.BootstrapResult{}) == nil {
			t.Fatalf("an answer with an address of %d bytes parses as BootstrapResult", n)
		}
	}
}

func TestAnswerInProtobuf(t *testing.T) {
	for n := range 401 {
		data, err := launch{}.answer(strings.Repeat("a", n), Runtime{}.claims())
		if err != nil {
			t.Fatal(err)
		}
		if last := rune(data[len(data)-1]); unicode.IsSpace(last) {
			t.Fatalf("answer ends in white space %q", last)
		}
		// As containerd 2.3.0 reads it.
		var result bootstrap.BootstrapResult
		if err := proto.Unmarshal(bytes.TrimSpace(data), &result); err != nil {
			t.Fatal(err)
		}
		if result.Version != 3 || result.Protocol != "ttrpc" || result.Address != "unix://"+strings.Repeat("a", n) {
			t.Fatalf("answer %v", &result)
		}
		var mounts types.MountCapabilities
		if found, err := result.FindExtension(&mounts); err != nil || !found || len(mounts.Types)+len(mounts.Transforms) > 0 {
			t.Fatalf("mount capabilities %v, %t, %v", &mounts, found, err)
		}
	}
}

func claimAll() (mountTypes, transforms []string) {
	return []string{"erofs", "loop"}, []string{"format", "mkdir", "mkfs"}
}

// Without claims the answer is, byte for byte, what it was when there were
// none to make.
func TestAnswerWithoutClaims(t *testing.T) {
	for name, r := range map[string]Runtime{
		"nil":  {},
		"none": {MountClaims: func() (mountTypes, transforms []string) { return nil, nil }},
	} {
		data, err := launch{}.answer("/a", r.claims())
		if err != nil {
			t.Fatal(err)
		}
		const want = "\b\x03\x12\tunix:///a\x1a\x05ttrpc2:\n8\n6type.googleapis.com/containerd.types.MountCapabilities"
		if string(data) != want {
			t.Errorf("%s: answer %q\nwant %q", name, data, want)
		}
	}
}

func TestAnswerWithClaims(t *testing.T) {
	data, err := launch{}.answer("/a", Runtime{MountClaims: claimAll}.claims())
	if err != nil {
		t.Fatal(err)
	}
	if last := rune(data[len(data)-1]); unicode.IsSpace(last) {
		t.Errorf("answer ends in white space %q", last)
	}
	var result bootstrap.BootstrapResult
	if err := proto.Unmarshal(bytes.TrimSpace(data), &result); err != nil {
		t.Fatal(err)
	}
	var got types.MountCapabilities
	if found, err := result.FindExtension(&got); err != nil || !found {
		t.Fatalf("no mount capabilities: %v", err)
	}
	mountTypes, transforms := claimAll()
	if !slices.Equal(got.Types, mountTypes) || !slices.Equal(got.Transforms, transforms) {
		t.Errorf("claims %v", &got)
	}
}

func TestClaimsAnnotation(t *testing.T) {
	if got := ClaimsAnnotation(nil, nil); got != nil {
		t.Errorf("without claims: %v", got)
	}
	got := ClaimsAnnotation(claimAll())
	want := map[string]string{"containerd.io/runtime-allow-mounts": "erofs,loop,format/*,mkdir/*,mkfs/*"}
	if !maps.Equal(got, want) {
		t.Errorf("annotations %v, want %v", got, want)
	}
}

func FuzzParseLaunch(f *testing.F) {
	f.Add([]byte(nil), "c1", "ns")
	f.Add(encode(f, &bootstrap.BootstrapParams{InstanceID: "c1", Namespace: "ns"}), "c1", "ns")
	f.Add(legacyOptions(f, &options.Options{ShimCgroup: "/x"}), "c1", "ns")
	f.Add(protowire.AppendVarint(nil, 1<<60), "c1", "ns")
	f.Fuzz(func(t *testing.T, input []byte, id, namespace string) {
		l, err := parseLaunch(input, flags{id: id, namespace: namespace, address: "/a"})
		if err != nil {
			return
		}
		if l.id != id || l.namespace != namespace || l.address == "" {
			t.Fatalf("launch %+v", l)
		}
		var params bootstrap.BootstrapParams
		named := proto.Unmarshal(input, &params) == nil && params.InstanceID == id && params.Namespace == namespace
		if l.legacy == named {
			t.Fatalf("legacy %t of %v", l.legacy, &params)
		}
	})
}
