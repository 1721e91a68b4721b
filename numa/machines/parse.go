package machines

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"testing/fstest"

	"containerd-shim-numa-v1/numa/cpuset"
)

// maxFiles bounds what a text may stand for: four times what the kernel's most
// CPUs need.
const maxFiles = 1 << 18

var (
	errTwice = errors.New("a path appears twice")
	errMany  = errors.New("more files than any machine has")
	errBrace = errors.New("braces that stand for nothing")
	errPath  = errors.New("not a path below /sys")
)

// Parse reads the format that the package's documentation describes. The error
// names the line.
func Parse(text string) (fstest.MapFS, error) {
	fsys := fstest.MapFS{}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		path, content, _ := strings.Cut(line, " ")
		if err := add(fsys, path, content); err != nil {
			return nil, fmt.Errorf("line %d: %q: %w", number, line, err)
		}
	}
	return fsys, nil
}

// add adds the files that path stands for.
func add(fsys fstest.MapFS, path, content string) error {
	paths, err := expand(path)
	if err != nil {
		return err
	}
	for _, p := range paths {
		data, err := fill(content, p.first)
		switch {
		case err != nil:
			return err
		case !fs.ValidPath(p.path) || p.path == ".":
			return errPath
		case fsys[p.path] != nil:
			return fmt.Errorf("%s: %w", p.path, errTwice)
		case len(fsys) == maxFiles:
			return errMany
		}
		fsys[p.path] = &fstest.MapFile{Data: []byte(data + "\n"), Mode: 0o444}
	}
	return nil
}

// expansion is a path without braces, and what the first of them stood for.
type expansion struct{ path, first string }

func expand(path string) ([]expansion, error) {
	done := []expansion{{}}
	for n := 0; ; n++ {
		before, rest, found := strings.Cut(path, "{")
		for i := range done {
			done[i].path += before
		}
		if !found {
			return done, nil
		}
		list, after, found := strings.Cut(rest, "}")
		words, err := alternatives(list)
		if !found || err != nil {
			return nil, errors.Join(errBrace, err)
		}
		if len(done)*len(words) > maxFiles {
			return nil, errMany
		}
		var longer []expansion
		for _, d := range done {
			for _, w := range words {
				next := expansion{d.path + w, d.first}
				if n == 0 {
					next.first = w
				}
				longer = append(longer, next)
			}
		}
		done, path = longer, after
	}
}

// alternatives are the numbers of a list such as "0-3,8", or else the words
// between commas.
func alternatives(list string) ([]string, error) {
	numbers, err := cpuset.Parse(list)
	if err != nil && !strings.ContainsAny(list, "0123456789") {
		return strings.Split(list, ","), nil
	}
	if err != nil || numbers.IsEmpty() {
		return nil, errors.Join(errBrace, err)
	}
	var words []string
	for n := range numbers.All() {
		words = append(words, strconv.Itoa(n))
	}
	return words, nil
}

// fill resolves escapes and braces in a content. first is what the first
// braces of the path stood for.
func fill(content, first string) (string, error) {
	var b strings.Builder
	for content != "" {
		switch {
		case strings.HasPrefix(content, `\n`):
			b.WriteByte('\n')
			content = content[2:]
		case strings.HasPrefix(content, `\\`), strings.HasPrefix(content, `\{`):
			b.WriteByte(content[1])
			content = content[2:]
		case content[0] == '\\':
			return "", fmt.Errorf("unknown escape: %w", strconv.ErrSyntax)
		case content[0] == '{':
			offset, rest, found := strings.Cut(content[1:], "}")
			value, err := shift(first, offset)
			if !found || err != nil {
				return "", errors.Join(errBrace, err)
			}
			b.WriteString(value)
			content = rest
		default:
			b.WriteByte(content[0])
			content = content[1:]
		}
	}
	return b.String(), nil
}

// shift adds an offset such as "+48" to a number; without an offset it is the
// word itself.
func shift(word, offset string) (string, error) {
	if offset == "" {
		if word == "" {
			return "", errBrace
		}
		return word, nil
	}
	n, err := strconv.Atoi(word)
	if err != nil {
		return "", err
	}
	by, err := strconv.Atoi(offset)
	if err != nil || (offset[0] != '+' && offset[0] != '-') {
		return "", errors.Join(errBrace, err)
	}
	return strconv.Itoa(n + by), nil
}
