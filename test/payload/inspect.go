package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// printIDs prints the process's identity and namespaces' mappings.
func printIDs([]string) (int, error) {
	fmt.Printf("uid %d gid %d pid %d\n", os.Getuid(), os.Getgid(), os.Getpid())
	for _, name := range []string{"uid_map", "gid_map"} {
		b, err := os.ReadFile("/proc/self/" + name)
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(b)) {
			fmt.Println(name, strings.Join(strings.Fields(line), " "))
		}
	}
	return 0, nil
}

// printTree DIR prints each regular file below it: path, owner, mode,
// content.
func printTree(args []string) (int, error) {
	if len(args) != 1 {
		return 0, fmt.Errorf("want one directory, have %q", args)
	}
	return 0, filepath.WalkDir(args[0], func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(args[0], path)
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		fmt.Printf("%s %d:%d %04o %s\n", name, st.Uid, st.Gid, info.Mode().Perm(), content)
		return nil
	})
}

// listFDs prints each of its open descriptors but the one that lists them.
func listFDs([]string) (int, error) {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // the listing's own descriptor, closed by now
		}
		if strings.HasPrefix(target, "anon_inode:") {
			continue // the Go runtime's poller
		}
		fmt.Println(e.Name(), target)
	}
	return 0, nil
}

// statfs PATH prints the file system's magic number in hexadecimal.
func statfs(args []string) (int, error) {
	if len(args) != 1 {
		return 0, fmt.Errorf("want one path, have %q", args)
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(args[0], &st); err != nil {
		return 0, err
	}
	fmt.Printf("%#x\n", st.Type)
	return 0, nil
}
