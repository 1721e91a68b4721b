package ledger

import (
	"math"
	"strconv"
	"strings"
)

// number reads a decimal number as strconv.AppendUint writes it. It is called
// for every number of every row, and allocates nothing.
func number(text string) (n uint64, err error) {
	if text == "" || text[0] == '0' && text != "0" {
		return 0, strconv.ErrSyntax
	}
	for i := range len(text) {
		digit := uint64(text[i] - '0')
		if digit > 9 {
			return 0, strconv.ErrSyntax
		}
		if n > (math.MaxUint64-digit)/10 {
			return 0, strconv.ErrRange
		}
		n = 10*n + digit
	}
	return n, nil
}

// signed is a number that fits an int64, and so an int.
func signed(text string) (int64, error) {
	n, err := number(text)
	if err != nil || n > math.MaxInt64 {
		return 0, strconv.ErrRange
	}
	return int64(n), nil
}

// parseProcess reads what appendProcess writes.
func parseProcess(text string) (Process, error) {
	if text == empty {
		return Process{}, nil
	}
	pid, rest, _ := strings.Cut(text, ".")
	start, namespace, _ := strings.Cut(rest, ".")
	var n [3]uint64
	for i, field := range [...]string{pid, start, namespace} {
		var err error
		if n[i], err = number(field); err != nil {
			return Process{}, err
		}
	}
	if n[0] == 0 || n[0] > math.MaxInt32 {
		return Process{}, strconv.ErrRange
	}
	return Process{Pid: int(n[0]), Start: n[1], Namespace: n[2]}, nil
}

const hexDigits = "0123456789ABCDEF"

// plain tells whether a byte stands for itself: printable ASCII but the mark
// of an escape. Blanks and line feeds separate.
func plain(b byte) bool { return '!' <= b && b <= '~' && b != '%' }

// appendEscaped writes a string as one word: %XX for all that is not plain.
func appendEscaped(b []byte, s string) []byte {
	switch s {
	case "":
		return append(b, empty...)
	case empty:
		return append(b, "%2D"...)
	}
	for i := range len(s) {
		if plain(s[i]) {
			b = append(b, s[i])
		} else {
			b = append(b, '%', hexDigits[s[i]>>4], hexDigits[s[i]&0xf])
		}
	}
	return b
}

// unescape reads what appendEscaped writes.
func unescape(word string) (string, error) {
	if word == empty {
		return "", nil
	}
	if word == "" {
		return "", strconv.ErrSyntax
	}
	if isPlain(word) {
		return word, nil
	}
	b := make([]byte, 0, len(word))
	for i := 0; i < len(word); i++ {
		switch {
		case plain(word[i]):
			b = append(b, word[i])
		case word[i] == '%' && i+2 < len(word):
			high, low := strings.IndexByte(hexDigits, word[i+1]), strings.IndexByte(hexDigits, word[i+2])
			if high < 0 || low < 0 {
				return "", strconv.ErrSyntax
			}
			b = append(b, byte(high<<4|low))
			i += 2
		default:
			return "", strconv.ErrSyntax
		}
	}
	return string(b), nil
}

func isPlain(s string) bool {
	for i := range len(s) {
		if !plain(s[i]) {
			return false
		}
	}
	return true
}
