package cpuset

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// space is what the kernel's isspace accepts among ASCII characters.
const space = " \t\n\v\f\r"

// Parse reads a set in the kernel's list format. Ranges may overlap and come
// in any order; commas and white space separate them, any number of either, so
// that "" and "\n", a file of the kernel without a CPU, are the empty set. A
// line break may only end the list: the kernel ignores what follows one, which
// is refused here rather than lost.
//
// The error wraps strconv.ErrRange if a number exceeds MaxID and
// strconv.ErrSyntax for anything else.
func Parse(list string) (Set, error) {
	list = strings.Trim(list, space)
	if strings.Contains(list, "\n") {
		return Set{}, fmt.Errorf("parse CPU list %q: more than one line: %w", list, strconv.ErrSyntax)
	}
	var words []uint64
	for region := range strings.FieldsFuncSeq(list, isSeparator) {
		r, err := parseRegion(region)
		if err != nil {
			return Set{}, fmt.Errorf("parse CPU list %q: %q: %w", list, region, err)
		}
		words = grow(words, r.last)
		for first := r.first; first <= r.last; first += r.group {
			if r.used > 0 {
				fill(words, first, min(first+r.used-1, r.last))
			}
		}
	}
	return trimmed(words), nil
}

func isSeparator(r rune) bool {
	return r == ',' || strings.ContainsRune(space, r)
}

// region is one element of a list: of the ids first to last, the first used
// ones of every group.
type region struct {
	first, last, used, group int
}

func parseRegion(s string) (region, error) {
	first, s, err := number(s)
	if err != nil {
		return region{}, err
	}
	r := region{first: first, last: first, used: 1, group: 1}
	if s == "" {
		return r, nil
	}
	if r.last, s, err = numberAfter('-', s); err != nil {
		return region{}, err
	}
	if r.last < r.first {
		return region{}, fmt.Errorf("range ends before it begins: %w", strconv.ErrSyntax)
	}
	if s == "" {
		return r, nil
	}
	if r.used, s, err = numberAfter(':', s); err != nil {
		return region{}, err
	}
	if r.group, s, err = numberAfter('/', s); err != nil {
		return region{}, err
	}
	switch {
	case s != "":
		return region{}, strconv.ErrSyntax
	case r.group == 0:
		return region{}, fmt.Errorf("group of size 0: %w", strconv.ErrSyntax)
	case r.used > r.group:
		return region{}, fmt.Errorf("uses more than the size of the group: %w", strconv.ErrSyntax)
	}
	return r, nil
}

// numberAfter reads a number that must follow mark.
func numberAfter(mark byte, s string) (n int, rest string, err error) {
	if s == "" || s[0] != mark {
		return 0, "", strconv.ErrSyntax
	}
	return number(s[1:])
}

// number reads the decimal number that s begins with.
func number(s string) (n int, rest string, err error) {
	digits := 0
	for digits < len(s) && '0' <= s[digits] && s[digits] <= '9' {
		digits++
	}
	n, err = strconv.Atoi(s[:digits])
	if errors.Is(err, strconv.ErrSyntax) {
		return 0, "", strconv.ErrSyntax
	}
	// The limit also holds for the sizes of groups; a group larger than every
	// set is no different from the largest.
	if err != nil || n > MaxID {
		return 0, "", fmt.Errorf("larger than %d: %w", MaxID, strconv.ErrRange)
	}
	return n, s[digits:], nil
}

// String returns s in the kernel's list format, as the kernel prints it:
// ascending, neighbours joined to ranges, "" for the empty set.
func (s Set) String() string {
	var buf []byte
	first, last := -1, -1
	flush := func() {
		if first < 0 {
			return
		}
		if len(buf) > 0 {
			buf = append(buf, ',')
		}
		buf = strconv.AppendInt(buf, int64(first), 10)
		if last > first {
			buf = append(buf, '-')
			buf = strconv.AppendInt(buf, int64(last), 10)
		}
	}
	for id := range s.All() {
		if first < 0 || id > last+1 {
			flush()
			first = id
		}
		last = id
	}
	flush()
	return string(buf)
}

// MarshalText writes s as String does, so that JSON and TOML hold lists.
func (s Set) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what Parse does, with its errors; s is unchanged by a
// list that fails.
func (s *Set) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}
