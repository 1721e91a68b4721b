package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"containerd-shim-numa-v1/numa"
	"containerd-shim-numa-v1/numa/cpuset"
)

// sample is a state of all kinds of rows, about size bytes as a file.
func sample(size int) *state {
	s := &state{
		boot: "01234567-89ab-cdef-0123-456789abcdef", topology: "odd hash",
		generation: 4711, counters: Counters{1, 2, 3, math.MaxUint64}, demand: numa.Demand{0.1, 1e300, 5e-324},
	}
	bundles := []string{"", " ", "%", "-", "\n", "é\xff", strings.Repeat("x", 100)}
	for i := 0; size > 0; i++ {
		e := Entry{
			Bundle: fmt.Sprintf("/run/b/ns/%08d%s", i, bundles[i%len(bundles)]),
			Claim: numa.Claim{
				Pod: bundles[i%len(bundles)], Sandbox: i%3 == 0,
				Milli: i * 100, Width: i, Bytes: int64(i) << 33, Granted: cpuset.Range(0, 127),
			},
			Owner: Process{Pid: 1 + i, Start: math.MaxUint64 - uint64(i), Namespace: 4026531836},
		}
		if i%2 == 0 {
			e.Nodes, e.Init = cpuset.Of(i%4), Process{Pid: math.MaxInt32, Start: uint64(i)}
		}
		if i%5 == 0 {
			e.Owned, e.Idle = cpuset.Of(i%128, i%64), cpuset.Of(i%100)
		}
		s.rows = append(s.rows, row{Entry: e})
		size -= len(appendRow(nil, &e))
	}
	return s
}

func TestRoundTrip(t *testing.T) {
	for _, size := range []int{0, 1, 4096, 300_000} {
		s := sample(size)
		text, err := s.encode()
		must(t, err)
		back, err := parse(text)
		must(t, err)
		if back.boot != s.boot || back.topology != s.topology || back.generation != s.generation ||
			back.counters != s.counters || back.demand != s.demand || !sameEntries(s.entries(), back.entries()) {
			t.Errorf("size %d: %+v became %+v", size, s, back)
		}
		// Rows are written as they were read.
		again, err := back.encode()
		must(t, err)
		if !bytes.Equal(text, again) {
			t.Errorf("size %d: %q became %q", size, text, again)
		}
	}
}

func TestEveryFlippedBit(t *testing.T) {
	text, err := sample(4096).encode()
	must(t, err)
	for i := range text {
		for bit := range 8 {
			text[i] ^= 1 << bit
			if _, err := parse(text); !errors.Is(err, errDefect) {
				t.Errorf("byte %d, bit %d: %v", i, bit, err)
			}
			text[i] ^= 1 << bit
		}
	}
	if _, err := parse(text); err != nil {
		t.Error(err)
	}
}

func TestEveryTruncation(t *testing.T) {
	text, err := sample(4096).encode()
	must(t, err)
	for n := range text {
		if _, err := parse(text[:n]); !errors.Is(err, errDefect) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
		if _, err := parse(slices.Concat(text, text[:n+1])); !errors.Is(err, errDefect) {
			t.Errorf("with %d bytes more: %v", n+1, err)
		}
	}
}

// seal makes a file of the lines that follow the first.
func seal(version, body string) string {
	before, after := magic+version+" ", "\n"+body
	return before + checksum([]byte(before), []byte(after)) + after
}

func TestStrictness(t *testing.T) {
	s := sample(1)
	s.rows[0].Bundle, s.rows[0].Pod = "/b/n/1", ""
	text, err := s.encode()
	must(t, err)
	_, body, _ := strings.Cut(string(text), "\n")
	header, line, _ := strings.Cut(body, "\n")
	line = strings.TrimSuffix(line, "\n")
	if _, err := parse([]byte(seal("1", header+"\n"+line+"\n"))); err != nil {
		t.Fatal(err)
	}
	inHeader := func(field int, text string) string {
		fields := strings.Split(header, " ")
		fields[(field+len(fields))%len(fields)] = text
		return strings.Join(fields, " ") + "\n" + line + "\n"
	}
	inLine := func(field int, text string) string {
		fields := strings.Split(line, " ")
		fields[field] = text
		return header + "\n" + strings.Join(fields, " ") + "\n"
	}
	for name, text := range map[string]string{
		"empty":              "",
		"no body":            seal("1", ""),
		"version 0":          seal("0", body),
		"version 01":         seal("01", body),
		"version -1":         seal("-1", body),
		"version of letters": seal("one", body),
		"upper case sum":     strings.Replace(seal("1", body), magic+"1 ", magic+"1 A", 1),
		"topology":           seal("1", inHeader(1, "%")),
		"generation":         seal("1", inHeader(2, "-1")),
		"counter":            seal("1", inHeader(3, "18446744073709551616")),
		"demand NaN":         seal("1", inHeader(9, "NaN")),
		"demand infinite":    seal("1", inHeader(9, "Inf")),
		"demand negative":    seal("1", inHeader(9, "-1")),
		"more rows said":     seal("1", inHeader(-1, "2")),
		"less rows said":     seal("1", inHeader(-1, "0")),
		"too many rows said": seal("1", inHeader(-1, "99999999999")),
		"header too long":    seal("1", header+" 1\n"+line+"\n"),
		"line without end":   seal("1", header+"\n"+line),
		"twice the same":     seal("1", strings.Replace(inHeader(-1, "2"), line, line+"\n"+line, 1)),
		"empty line":         seal("1", body+"\n"),
		"field too many":     seal("1", header+"\n"+line+" 0\n"),
		"field too few":      seal("1", inLine(11, "")[:len(inLine(11, ""))-2]+"\n"),
		"two blanks":         seal("1", inLine(3, " ")),
		"relative bundle":    seal("1", inLine(0, "b/n/1")),
		"unclean bundle":     seal("1", inLine(0, "/b/n/../1")),
		"NUL in bundle":      seal("1", inLine(0, "/b/n/%00")),
		"escape cut":         seal("1", inLine(0, "/b/n/%2")),
		"escape lower case":  seal("1", inLine(0, "/b/n/%2f")),
		"tab":                seal("1", inLine(0, "/b/n/\t")),
		"no owner":           seal("1", inLine(1, "-")),
		"owner 0":            seal("1", inLine(1, "0.1.1")),
		"owner large":        seal("1", inLine(1, "2147483648.1.1")),
		"owner short":        seal("1", inLine(1, "1.1")),
		"owner long":         seal("1", inLine(1, "1.1.1.1")),
		"init":               seal("1", inLine(2, "x")),
		"init 0":             seal("1", inLine(2, "0.1.1")),
		"kind":               seal("1", inLine(4, "x")),
		"negative milli":     seal("1", inLine(5, "-1")),
		"width with zero":    seal("1", inLine(6, "01")),
		"too many bytes":     seal("1", inLine(7, "9223372036854775808")),
		"nodes":              seal("1", inLine(8, "3-1")),
		"owned":              seal("1", inLine(9, "8192")),
		"idle":               seal("1", inLine(10, ",")),
		"granted":            seal("1", inLine(11, "all")),
	} {
		if _, err := parse([]byte(text)); !errors.Is(err, errDefect) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, version := range []string{"2", "18446744073709551615"} {
		for _, body := range []string{"", "\n", body, "what is to come"} {
			if _, err := parse([]byte(seal(version, body))); !errors.Is(err, ErrNewer) || errors.Is(err, errDefect) {
				t.Errorf("version %s, %q: %v", version, body, err)
			}
		}
	}
}

// FuzzParse reads lines with a right checksum: what is accepted is written and
// read as the same.
func FuzzParse(f *testing.F) {
	for _, size := range []int{0, 1, 1000} {
		text, err := sample(size).encode()
		must(f, err)
		_, body, _ := strings.Cut(string(text), "\n")
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		if _, err := parse([]byte(body)); err == nil {
			t.Error("accepted without a checksum")
		}
		s, err := parse([]byte(seal("1", body)))
		if err != nil {
			if !errors.Is(err, errDefect) {
				t.Errorf("%q: %v", body, err)
			}
			return
		}
		for i := range s.rows {
			s.rows[i].line = ""
		}
		text, err := s.encode()
		if errors.Is(err, ErrFull) {
			return // sets may be written shorter than "0-8191:1/2"
		}
		must(t, err)
		back, err := parse(text)
		must(t, err)
		if !sameEntries(s.entries(), back.entries()) || back.demand != s.demand || back.counters != s.counters {
			t.Errorf("%q became %q", body, text)
		}
	})
}

// FuzzRecord reads the file of a bundle.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"claim":{"boot":"b","owner":{"pid":1,"start":2,"namespace":3},"init":{"pid":4},"nodes":"0","owned":"1-2","granted":"0-7","milli":1000}}`))
	f.Add([]byte(`{"claim":null}`))
	f.Add([]byte(`{"claim":{"milli":-1,"nodes":"x"}}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		must(t, os.WriteFile(filepath.Join(dir, RecordFile), text, 0o600))
		r, err := ReadRecord(dir)
		if err == nil {
			l := Ledger{boot: r.Boot}
			l.recorded(dir)
		}
	})
}

func TestEscapes(t *testing.T) {
	for b := range 256 {
		for _, s := range []string{string([]byte{byte(b)}), string([]byte{'a', byte(b), 'b'}), string([]byte{byte(b), byte(b)})} {
			word := string(appendEscaped(nil, s))
			back, err := unescape(word)
			if err != nil || back != s || slices.ContainsFunc([]byte(word), func(b byte) bool { return b <= ' ' || b >= 0x7f }) {
				t.Errorf("%q is written %q and read %q, %v", s, word, back, err)
			}
		}
	}
}
