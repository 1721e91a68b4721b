package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// idLimit is the length of containerd's identifiers, in bytes
// (pkg/identifiers of containerd).
const idLimit = 76

// validateID checks an id or a namespace by containerd's rule: runs of
// letters and digits, joined by single ".", "_" or "-".
func validateID(s string) error {
	if s == "" {
		return errors.New("missing")
	}
	if len(s) > idLimit {
		return fmt.Errorf("%q is longer than %d bytes", s, idLimit)
	}
	joint := true // no letter or digit since the start or the last joint
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			joint = false
		case !joint && strings.IndexByte("._-", c) >= 0:
			joint = true
		default:
			return fmt.Errorf("%q is not a containerd identifier", s)
		}
	}
	if joint {
		return fmt.Errorf("%q is not a containerd identifier", s)
	}
	return nil
}

// validateGroup checks a group's id. It may be any text that users chose, but
// one element of the path that the socket's name is the hash of: otherwise it
// could name another namespace's group.
func validateGroup(s string) error {
	if s == "." || s == ".." || strings.ContainsAny(s, "/\x00") {
		return fmt.Errorf("%q is not a group id", s)
	}
	return nil
}

// groupAnnotations are the annotations of config.json that name a container's
// group, the first wins.
func groupAnnotations() []string {
	return []string{"io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"}
}

const configName = "config.json"

// groupOf returns the group of the container id whose bundle this is.
func groupOf(bundle, id string) (string, error) {
	data, err := os.ReadFile(filepath.Join(bundle, configName))
	if err != nil {
		return "", fmt.Errorf("find the group of %s: %w", id, err)
	}
	return groupFrom(data, id)
}

func groupFrom(config []byte, id string) (string, error) {
	var spec struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(config, &spec); err != nil {
		return "", fmt.Errorf("find the group of %s: parse %s: %w", id, configName, err)
	}
	for _, name := range groupAnnotations() {
		if group := spec.Annotations[name]; group != "" {
			if err := validateGroup(group); err != nil {
				return "", fmt.Errorf("find the group of %s: annotation %s: %w", id, name, err)
			}
			return group, nil
		}
	}
	return id, nil
}
