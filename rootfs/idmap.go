package rootfs

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const (
	// maxExtents is the kernel's UID_GID_MAP_MAX_EXTENTS (user_namespaces(7),
	// since Linux 4.15).
	maxExtents = 340
	// endOfIDs is one past the largest ID: (uid_t)-1 means "no ID".
	endOfIDs = 1<<32 - 1
)

// Extent maps Size IDs from Container on to as many from Host on.
type Extent struct {
	Container, Host, Size uint32
}

// IDMap is a user namespace's mapping, in normal form: sorted by container ID
// and without extents that continue one another, so that equal mappings have
// equal strings.
type IDMap struct {
	UIDs, GIDs []Extent
}

// ParseIDMap parses the values of the mount options uidmap= and gidmap=, each
// "container:host:size[,container:host:size...]" in decimal. Ranges must not
// be empty, overlap or pass the last ID. Its errors match [ErrInvalid].
func ParseIDMap(uids, gids string) (IDMap, error) {
	u, err := parseExtents(uids)
	if err != nil {
		return IDMap{}, fmt.Errorf("uidmap %q: %w: %w", uids, err, ErrInvalid)
	}
	g, err := parseExtents(gids)
	if err != nil {
		return IDMap{}, fmt.Errorf("gidmap %q: %w: %w", gids, err, ErrInvalid)
	}
	return IDMap{UIDs: u, GIDs: g}, nil
}

// String gives both mappings in the options' grammar; it identifies a mapping.
func (m IDMap) String() string {
	return "uidmap=" + formatExtents(m.UIDs) + ";gidmap=" + formatExtents(m.GIDs)
}

func parseExtents(s string) ([]Extent, error) {
	var extents []Extent
	for part := range strings.SplitSeq(s, ",") {
		fields := strings.Split(part, ":")
		if len(fields) != 3 {
			return nil, fmt.Errorf("%q is not container:host:size", part)
		}
		e, err := parseExtent(fields)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", part, err)
		}
		extents = append(extents, e)
	}
	return normalize(extents)
}

// parseProcMap parses the uid_map and gid_map files of user_namespaces(7).
func parseProcMap(s string) ([]Extent, error) {
	var extents []Extent
	for line := range strings.Lines(s) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return nil, fmt.Errorf("%q is not three numbers", line)
		}
		e, err := parseExtent(fields)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		extents = append(extents, e)
	}
	return normalize(extents)
}

// parseExtent takes three fields, in the order of both grammars.
func parseExtent(fields []string) (e Extent, err error) {
	for i, n := range []*uint32{&e.Container, &e.Host, &e.Size} {
		if *n, err = parseID(fields[i]); err != nil {
			return Extent{}, err
		}
	}
	return e, nil
}

// parseID accepts digits only: strconv would take a sign.
func parseID(s string) (uint32, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, fmt.Errorf("%q is not a decimal number", s)
	}
	v, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is larger than an ID", s)
	}
	return uint32(v), nil
}

func normalize(extents []Extent) ([]Extent, error) {
	for _, e := range extents {
		switch {
		case e.Size == 0:
			return nil, fmt.Errorf("%v is empty", e)
		case uint64(e.Container)+uint64(e.Size) > endOfIDs, uint64(e.Host)+uint64(e.Size) > endOfIDs:
			return nil, fmt.Errorf("%v passes the last ID", e)
		}
	}
	slices.SortFunc(extents, func(a, b Extent) int { return cmp.Compare(a.Host, b.Host) })
	for i := 1; i < len(extents); i++ {
		if a, b := extents[i-1], extents[i]; a.Host+a.Size > b.Host {
			return nil, fmt.Errorf("%v and %v overlap on the host", a, b)
		}
	}
	slices.SortFunc(extents, func(a, b Extent) int { return cmp.Compare(a.Container, b.Container) })
	var merged []Extent
	for _, e := range extents {
		if len(merged) == 0 {
			merged = append(merged, e)
			continue
		}
		last := &merged[len(merged)-1]
		switch {
		case last.Container+last.Size > e.Container:
			return nil, fmt.Errorf("%v and %v overlap in the container", *last, e)
		case last.Container+last.Size == e.Container && last.Host+last.Size == e.Host:
			last.Size += e.Size
		default:
			merged = append(merged, e)
		}
	}
	if len(merged) > maxExtents {
		return nil, fmt.Errorf("%d ranges, the kernel takes %d", len(merged), maxExtents)
	}
	return merged, nil
}

// String is the range in the options' grammar.
func (e Extent) String() string {
	return fmt.Sprintf("%d:%d:%d", e.Container, e.Host, e.Size)
}

func formatExtents(extents []Extent) string {
	parts := make([]string, len(extents))
	for i, e := range extents {
		parts[i] = e.String()
	}
	return strings.Join(parts, ",")
}
