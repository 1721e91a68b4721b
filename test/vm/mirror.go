package vm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// machineMirror finds the URI of the Debian archive that the machine's own
// apt sources name: that of the first binary entry for the release it runs.
func machineMirror(etcApt, osRelease string) (string, error) {
	b, err := os.ReadFile(osRelease)
	if err != nil {
		return "", err
	}
	var codename string
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "VERSION_CODENAME="); ok {
			codename = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	lists, err := filepath.Glob(filepath.Join(etcApt, "sources.list.d", "*.list"))
	if err != nil {
		return "", err
	}
	stanzas, err := filepath.Glob(filepath.Join(etcApt, "sources.list.d", "*.sources"))
	if err != nil {
		return "", err
	}
	for _, path := range append(append([]string{filepath.Join(etcApt, "sources.list")}, lists...), stanzas...) {
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		parse := mirrorOfList
		if strings.HasSuffix(path, ".sources") {
			parse = mirrorOfStanzas
		}
		if uri := parse(string(b), codename); uri != "" {
			return uri, nil
		}
	}
	return "", fmt.Errorf("no apt source for %q in %s: the kernels come from a Debian mirror", codename, etcApt)
}

// mirrorOfList reads the one-line format of sources.list(5): the type,
// options in brackets, the URI, the suite and the components.
func mirrorOfList(text, codename string) string {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != "deb" {
			continue
		}
		f = f[1:]
		if len(f) > 0 && strings.HasPrefix(f[0], "[") {
			end := slices.IndexFunc(f, func(s string) bool { return strings.HasSuffix(s, "]") })
			f = f[end+1:]
		}
		if len(f) > 1 && f[1] == codename {
			return f[0]
		}
	}
	return ""
}

// mirrorOfStanzas reads the deb822 format of sources.list(5).
func mirrorOfStanzas(text, codename string) string {
	for stanza := range strings.SplitSeq(text, "\n\n") {
		fields := make(map[string][]string)
		for line := range strings.Lines(stanza) {
			key, value, ok := strings.Cut(line, ":")
			if ok && !strings.HasPrefix(line, "#") {
				fields[strings.ToLower(key)] = strings.Fields(value)
			}
		}
		if slices.Contains(fields["types"], "deb") && slices.Contains(fields["suites"], codename) && len(fields["uris"]) > 0 {
			return fields["uris"][0]
		}
	}
	return ""
}
