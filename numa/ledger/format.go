package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"containerd-shim-numa-v1/numa/cpuset"
)

// The file `state` is text:
//
//	containerd-numa 1 <CRC32C of all but itself, 8 hexadecimal digits>
//	<boot id> <topology hash> <generation> <counters> <demand> <rows>
//	<row> ...
//
// and each row one line of blank-separated fields, ascending by bundle:
//
//	bundle owner init pod kind milli width bytes nodes owned idle granted
//
// Bundle and pod are escaped, processes are pid.start.namespace, kind is s for
// a pod's sandbox and c for a container, sets are kernel lists, and "-" stands
// for what is empty. The form of the first line is for all versions, so that an
// older reader tells a newer ledger from a damaged one. Demand has a number for
// each class of numa.Demand: another number of classes is another version.
const (
	magic         = "containerd-numa "
	formatVersion = 1
	checksumSize  = 8
	empty         = "-"

	kindSandbox   = "s"
	kindContainer = "c"

	// maxRows and maxSize, in bytes, are far above what a host runs, and low
	// enough for a reader to hold any ledger.
	maxRows = 16384
	maxSize = 8 << 20
)

// errDefect is wrapped by the errors of parse but ErrNewer.
var errDefect = errors.New("defective")

func defect(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errDefect, fmt.Sprintf(format, args...))
}

// castagnoli is made when it is needed: a container's init, which is this
// program as well, would wait for it, and has no ledger.
var castagnoli = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })

// encode is the file for s. The error wraps ErrFull.
func (s *state) encode() ([]byte, error) {
	if len(s.rows) > maxRows {
		return nil, fmt.Errorf("%d claims, the limit is %d: %w", len(s.rows), maxRows, ErrFull)
	}
	const headerSize, rowSize = 1024, 256 // guesses
	size := headerSize
	for i := range s.rows {
		size += max(len(s.rows[i].line), rowSize)
	}
	b := make([]byte, 0, size)
	b = append(b, magic...)
	b = strconv.AppendUint(b, formatVersion, 10)
	b = append(b, ' ')
	sum := len(b)
	b = append(b, "00000000\n"...)
	b = append(append(b, s.boot...), ' ')
	b = append(appendEscaped(b, s.topology), ' ')
	b = append(strconv.AppendUint(b, s.generation, 10), ' ')
	for _, n := range s.counters {
		b = append(strconv.AppendUint(b, n, 10), ' ')
	}
	for _, weight := range s.demand {
		b = append(strconv.AppendFloat(b, weight, 'g', -1, 64), ' ')
	}
	b = append(strconv.AppendInt(b, int64(len(s.rows)), 10), '\n')
	for i := range s.rows {
		if s.rows[i].line != "" {
			b = append(b, s.rows[i].line...)
		} else {
			b = appendRow(b, &s.rows[i].Entry)
		}
	}
	if len(b) > maxSize {
		return nil, fmt.Errorf("%d bytes, the limit is %d: %w", len(b), maxSize, ErrFull)
	}
	copy(b[sum:], checksum(b[:sum], b[sum+checksumSize:]))
	return b, nil
}

// checksum is that of a file before and after the place of the sum.
func checksum(before, after []byte) string {
	crc := crc32.Update(0, castagnoli(), before)
	return fmt.Sprintf("%0*x", checksumSize, crc32.Update(crc, castagnoli(), after))
}

func appendRow(b []byte, e *Entry) []byte {
	kind := kindContainer
	if e.Sandbox {
		kind = kindSandbox
	}
	b = append(appendEscaped(b, e.Bundle), ' ')
	b = append(appendProcess(b, e.Owner), ' ')
	b = append(appendProcess(b, e.Init), ' ')
	b = append(appendEscaped(b, e.Pod), ' ')
	b = append(append(b, kind...), ' ')
	b = append(strconv.AppendInt(b, int64(e.Milli), 10), ' ')
	b = append(strconv.AppendInt(b, int64(e.Width), 10), ' ')
	b = append(strconv.AppendInt(b, e.Bytes, 10), ' ')
	b = append(appendSet(b, e.Nodes), ' ')
	b = append(appendSet(b, e.Owned), ' ')
	b = append(appendSet(b, e.Idle), ' ')
	return append(appendSet(b, e.Granted), '\n')
}

func appendProcess(b []byte, p Process) []byte {
	if p.Pid == 0 {
		return append(b, empty...)
	}
	b = append(strconv.AppendInt(b, int64(p.Pid), 10), '.')
	b = append(strconv.AppendUint(b, p.Start, 10), '.')
	return strconv.AppendUint(b, p.Namespace, 10)
}

func appendSet(b []byte, s cpuset.Set) []byte {
	if s.IsEmpty() {
		return append(b, empty...)
	}
	return append(b, s.String()...)
}

// parse reads a file. The error wraps errDefect or ErrNewer.
func parse(text []byte) (*state, error) {
	if len(text) > maxSize {
		return nil, defect("%d bytes, the limit is %d", len(text), maxSize)
	}
	sealed, err := unseal(text)
	if err != nil {
		return nil, err
	}
	// The one copy: all strings of the state are parts of it.
	first, body, _ := strings.Cut(string(sealed), "\n")
	s, rows, err := parseHeader(first)
	if err != nil {
		return nil, err
	}
	p := rowParser{sets: map[string]cpuset.Set{empty: {}}}
	s.rows = make([]row, 0, min(rows, strings.Count(body, "\n"))+1)
	for body != "" {
		end := strings.IndexByte(body, '\n') + 1
		if end == 0 {
			return nil, defect("the last line has no end")
		}
		e, err := p.parse(body[:end-1])
		if err != nil {
			return nil, defect("row %d: %v", len(s.rows)+1, err)
		}
		if n := len(s.rows); n > 0 && s.rows[n-1].Bundle >= e.Bundle {
			return nil, defect("row %d is not in order", n+1)
		}
		s.rows = append(s.rows, row{Entry: e, line: body[:end]})
		body = body[end:]
	}
	if len(s.rows) != rows || rows > maxRows {
		return nil, defect("%d rows, should be %d", len(s.rows), rows)
	}
	return s, nil
}

// unseal reads the first line and returns what follows it, once it is certain
// that all is as it was written.
func unseal(text []byte) (body []byte, err error) {
	rest, ok := bytes.CutPrefix(text, []byte(magic))
	version, rest, ok2 := bytes.Cut(rest, []byte(" "))
	if !ok || !ok2 || len(rest) <= checksumSize || rest[checksumSize] != '\n' {
		return nil, defect("no header")
	}
	sum, rest := string(rest[:checksumSize]), rest[checksumSize:]
	if want := checksum(text[:len(magic)+len(version)+1], rest); sum != want {
		return nil, defect("its checksum is %q, should be %q", sum, want)
	}
	v, err := number(string(version))
	if err != nil || v == 0 {
		return nil, defect("version %q", version)
	}
	if v > formatVersion {
		return nil, fmt.Errorf("version %d, this is %d: %w", v, formatVersion, ErrNewer)
	}
	return rest[1:], nil
}

// parseHeader reads the second line and returns the number of rows beside it.
func parseHeader(line string) (*state, int, error) {
	s := &state{}
	fields := strings.Split(line, " ")
	const before = 3 // boot, topology, generation
	if len(fields) != before+len(s.counters)+len(s.demand)+1 {
		return nil, 0, defect("%d fields in the header", len(fields))
	}
	s.boot = fields[0]
	var err error
	if s.topology, err = unescape(fields[1]); err != nil {
		return nil, 0, defect("topology %q", fields[1])
	}
	if s.generation, err = number(fields[2]); err != nil {
		return nil, 0, defect("generation %q", fields[2])
	}
	fields = fields[before:]
	for i := range s.counters {
		if s.counters[i], err = number(fields[i]); err != nil {
			return nil, 0, defect("counter %q", fields[i])
		}
	}
	fields = fields[len(s.counters):]
	for i := range s.demand {
		if s.demand[i], err = weight(fields[i]); err != nil {
			return nil, 0, defect("demand %q", fields[i])
		}
	}
	rows, err := number(fields[len(s.demand)])
	if err != nil || rows > maxRows {
		return nil, 0, defect("number of rows %q", fields[len(s.demand)])
	}
	return s, int(rows), nil
}

// weight reads a number of Demand.
func weight(text string) (float64, error) {
	w, err := strconv.ParseFloat(text, 64)
	if err != nil || w < 0 || math.IsInf(w, 0) || math.IsNaN(w) {
		return 0, strconv.ErrSyntax
	}
	return w, nil
}

// rowParser reads rows. Sets that occur often are parsed once.
type rowParser struct {
	sets map[string]cpuset.Set
}

func (p *rowParser) parse(line string) (e Entry, err error) {
	var field [12]string
	n := 0
	for rest, more := line, true; more; n++ {
		if n == len(field) {
			return e, strconv.ErrSyntax
		}
		field[n], rest, more = strings.Cut(rest, " ")
	}
	if n != len(field) {
		return e, strconv.ErrSyntax
	}
	var errs [9]error
	e.Bundle, errs[0] = unescape(field[0])
	e.Owner, errs[1] = parseProcess(field[1])
	e.Init, errs[2] = parseProcess(field[2])
	e.Pod, errs[3] = unescape(field[3])
	e.Sandbox = field[4] == kindSandbox
	if !e.Sandbox && field[4] != kindContainer {
		return e, strconv.ErrSyntax
	}
	var quantity [3]int64
	for i := range quantity {
		quantity[i], errs[4] = signed(field[5+i])
		if errs[4] != nil {
			return e, errs[4]
		}
	}
	e.Milli, e.Width, e.Bytes = int(quantity[0]), int(quantity[1]), quantity[2]
	e.Nodes, errs[5] = p.set(field[8])
	e.Owned, errs[6] = p.set(field[9])
	e.Idle, errs[7] = p.set(field[10])
	e.Granted, errs[8] = p.set(field[11])
	if i := slices.IndexFunc(errs[:], func(err error) bool { return err != nil }); i >= 0 {
		return e, errs[i]
	}
	return e, e.check()
}

func (p *rowParser) set(text string) (cpuset.Set, error) {
	if s, ok := p.sets[text]; ok {
		return s, nil
	}
	s, err := cpuset.Parse(text)
	if err != nil || s.IsEmpty() {
		return cpuset.Set{}, strconv.ErrSyntax
	}
	p.sets[text] = s
	return s, nil
}
