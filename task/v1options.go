package task

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// v1Options is the message that clients of containerd 1.7 send to a runtime
// whose name is not runc's when they only mean to say who owns the
// container's pipes, as `ctr run --uidmap` does. It was runc's in containerd
// 1.0 and is in no API module any more.
const v1Options protoreflect.FullName = "containerd.linux.runc.CreateOptions"

// The fields of v1Options that mean something here.
const (
	v1NoPivotRoot  protowire.Number = 1
	v1NoNewKeyring protowire.Number = 8
	v1IOUID        protowire.Number = 10
	v1IOGID        protowire.Number = 11
)

// withV1 applies v1Options, which are encoded in data.
func (o Options) withV1(data []byte) (Options, error) {
	for len(data) > 0 {
		field, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return o, invalid("runtime options: %v", protowire.ParseError(n))
		}
		data = data[n:]
		if kind != protowire.VarintType {
			if n = protowire.ConsumeFieldValue(field, kind, data); n < 0 {
				return o, invalid("runtime options: %v", protowire.ParseError(n))
			}
			data = data[n:]
			continue
		}
		value, n := protowire.ConsumeVarint(data)
		if n < 0 {
			return o, invalid("runtime options: %v", protowire.ParseError(n))
		}
		data = data[n:]
		switch field {
		case v1NoPivotRoot:
			o.NoPivotRoot = protowire.DecodeBool(value)
		case v1NoNewKeyring:
			o.NoNewKeyring = protowire.DecodeBool(value)
		case v1IOUID:
			o.IOUID = uint32(value)
		case v1IOGID:
			o.IOGID = uint32(value)
		}
	}
	return o, nil
}
