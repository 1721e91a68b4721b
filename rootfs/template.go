package rootfs

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	actionBegin = "{{"
	actionEnd   = "}}"
)

// earlier is what a template may ask about a mount before its own.
type earlier struct {
	source, target string
	mount          string // stands for where it is mounted
}

var errTemplate = errors.New(`none of "source N", "mount N", "target N", "overlay N M"`)

// expand replaces the actions of containerd's mount templates in s: the
// source, target or place of the mount number N of before, or the places of
// the mounts N to M, either way round, joined by colons (containerd,
// docs/mounts.md). containerd evaluates them as a Go template; of those, only
// actions of this form are taken, numbers being decimal.
func expand(s string, before []earlier) (string, error) {
	var b strings.Builder
	for {
		text, rest, ok := strings.Cut(s, actionBegin)
		b.WriteString(text)
		if !ok {
			return b.String(), nil
		}
		action, rest, ok := strings.Cut(rest, actionEnd)
		if !ok {
			return "", fmt.Errorf("template %q: no %s", s, actionEnd)
		}
		value, err := evaluate(action, before)
		if err != nil {
			return "", fmt.Errorf("template %s%s%s: %w", actionBegin, action, actionEnd, err)
		}
		b.WriteString(value)
		s = rest
	}
}

func evaluate(action string, before []earlier) (string, error) {
	words := strings.FieldsFunc(action, func(r rune) bool { return strings.ContainsRune(" \t\r\n", r) })
	if len(words) < 2 || len(words) != 2 && words[0] != "overlay" {
		return "", errTemplate
	}
	numbers := make([]int, len(words)-1)
	for i, word := range words[1:] {
		n, err := index(word, len(before))
		if err != nil {
			return "", err
		}
		numbers[i] = n
	}
	n := numbers[0]
	switch {
	case words[0] == "source":
		return before[n].source, nil
	case words[0] == "target":
		return before[n].target, nil
	case words[0] == "mount":
		return before[n].mount, nil
	case words[0] == "overlay" && len(numbers) == 2:
		return overlayRange(before, n, numbers[1]), nil
	}
	return "", errTemplate
}

// index reads the number of one of n earlier mounts.
func index(word string, n int) (int, error) {
	if strings.Trim(word, "0123456789") != "" || len(word) > 1 && word[0] == '0' {
		return 0, fmt.Errorf("%q is not a decimal number", word)
	}
	i, err := strconv.Atoi(word)
	if err != nil || i >= n {
		return 0, fmt.Errorf("mount %s is not among the %d before", word, n)
	}
	return i, nil
}

func overlayRange(before []earlier, from, to int) string {
	step := 1
	if from > to {
		step = -1
	}
	var places []string
	for i := from; i != to+step; i += step {
		places = append(places, before[i].mount)
	}
	return strings.Join(places, ":")
}
