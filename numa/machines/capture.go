package machines

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"containerd-shim-numa-v1/numa/cpuset"
)

// maxContent bounds the content of a file that is captured, in bytes: longer
// than any of those that package numa accepts.
const maxContent = 64 << 10

// meminfoLines is how much is kept of a node's meminfo: MemTotal and MemFree.
const meminfoLines = 2

// captured are the files that package numa may read, as patterns of path.Match.
var captured = [...]string{
	"devices/cpu_atom/cpus",
	"devices/cpu_core/cpus",
	"devices/cpu_lowpower/cpus",
	"devices/system/cpu/isolated",
	"devices/system/cpu/online",
	"devices/system/cpu/cpu[0-9]*/cpu_capacity",
	"devices/system/cpu/cpu[0-9]*/topology/*_list",
	"devices/system/cpu/cpu[0-9]*/topology/die_id",
	"devices/system/cpu/cpu[0-9]*/topology/physical_package_id",
	"devices/system/cpu/cpu[0-9]*/cache/index[0-9]/level",
	"devices/system/cpu/cpu[0-9]*/cache/index[0-9]/type",
	"devices/system/cpu/cpu[0-9]*/cache/index[0-9]/shared_cpu_list",
	"devices/system/node/has_memory",
	"devices/system/node/online",
	"devices/system/node/node[0-9]*/cpulist",
	"devices/system/node/node[0-9]*/distance",
	"devices/system/node/node[0-9]*/meminfo",
	"devices/virtual/memory_tiering/memory_tier[0-9]*/nodelist",
}

// numbered finds what Capture folds: the number of a CPU or node.
var numbered = regexp.MustCompile(`/(?:cpu|node)([0-9]+)/`)

// line is a line of the text to be: with numbers, "{}" in path stands for them.
type line struct {
	path, content string
	numbers       cpuset.Set
}

// Capture writes the machine whose /sys fsys is in the format of Parse, without
// a comment. Files that differ in the number of the CPU or node alone share a
// line.
func Capture(fsys fs.FS, w io.Writer) error {
	var lines []line
	index := make(map[[2]string]int)
	for _, pattern := range captured {
		paths, err := fs.Glob(fsys, pattern)
		if err != nil {
			return fmt.Errorf("capture machine: %w", err)
		}
		for _, path := range paths {
			l, err := capture(fsys, path)
			if errors.Is(err, fs.ErrNotExist) {
				continue // its CPU went away
			}
			if err != nil {
				return fmt.Errorf("capture machine: %w", err)
			}
			key := [2]string{l.path, l.content}
			if i, ok := index[key]; ok && !l.numbers.IsEmpty() {
				lines[i].numbers = lines[i].numbers.Union(l.numbers)
				continue
			}
			index[key] = len(lines)
			lines = append(lines, l)
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return cmp.Compare(a.path, b.path) })
	out := bufio.NewWriter(w)
	for _, l := range lines {
		path := strings.Replace(l.path, "{}", "{"+l.numbers.String()+"}", 1)
		fmt.Fprintln(out, strings.TrimSuffix(path+" "+l.content, " ")) // Flush has the error
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("capture machine: %w", err)
	}
	return nil
}

var escape = strings.NewReplacer("\n", `\n`, `\`, `\\`, "{", `\{`)

func capture(fsys fs.FS, path string) (line, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return line{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxContent))
	if err != nil {
		return line{}, fmt.Errorf("%s: %w", path, err)
	}
	content := strings.TrimSuffix(string(data), "\n")
	if strings.HasSuffix(path, "/meminfo") {
		rows := strings.SplitN(content, "\n", meminfoLines+1)
		content = strings.Join(rows[:min(len(rows), meminfoLines)], "\n")
	}
	l := line{path: path, content: escape.Replace(content)}
	if at := numbered.FindStringSubmatchIndex(path); at != nil {
		n, err := strconv.Atoi(path[at[2]:at[3]])
		if err != nil || n > cpuset.MaxID {
			return line{}, fmt.Errorf("%s: no number of a CPU or node", path)
		}
		l.path = path[:at[2]] + "{}" + path[at[3]:]
		l.numbers = cpuset.Of(n)
	}
	return l, nil
}
