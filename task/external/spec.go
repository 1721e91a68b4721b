package external

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"containerd-shim-numa-v1/task"
)

// specFile is where a runtime finds the spec in a bundle (runtime-spec,
// bundle.md).
const specFile = "config.json"

// writeSpec has the runtime see the spec s, which differs from the bundle's
// by what the shim has decided: the terminal, absolute paths, placement. What
// else is in the file stays as it is, also what only a newer runtime-spec or
// the runtime itself knows.
func writeSpec(bundle string, s *specs.Spec) error {
	path := filepath.Join(bundle, specFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("spec for the runtime: %w", err)
	}
	amended, err := amend(data, s)
	if err != nil {
		return fmt.Errorf("spec for the runtime: %s: %w", path, err)
	}
	if amended == nil {
		return nil
	}
	if err := replaceFile(path, amended); err != nil {
		return fmt.Errorf("spec for the runtime: %w", err)
	}
	return nil
}

// amend changes in the JSON document data what s has changed of it, and
// returns nil if that is nothing.
func amend(data []byte, s *specs.Spec) ([]byte, error) {
	read, err := task.ParseSpec(data)
	if err != nil {
		return nil, err
	}
	document, err := decode(data)
	if err != nil {
		return nil, err
	}
	before, err := encode(read)
	if err != nil {
		return nil, err
	}
	after, err := encode(s)
	if err != nil {
		return nil, err
	}
	if reflect.DeepEqual(before, after) {
		return nil, nil
	}
	apply(document, before, after)
	return json.Marshal(document)
}

// apply makes the change from before to after in document. Objects are
// changed member by member, everything else as a whole.
func apply(document, before, after map[string]any) {
	for name := range before {
		if _, stays := after[name]; !stays {
			delete(document, name)
		}
	}
	for name, value := range after {
		old, had := before[name]
		if had && reflect.DeepEqual(old, value) {
			continue
		}
		inDocument, ok1 := document[name].(map[string]any)
		oldObject, ok2 := old.(map[string]any)
		newObject, ok3 := value.(map[string]any)
		if ok1 && ok2 && ok3 {
			apply(inDocument, oldObject, newObject)
		} else {
			document[name] = value
		}
	}
}

func encode(s *specs.Spec) (map[string]any, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return decode(data)
}

// decode reads a JSON object and leaves numbers as they are written: limits
// have more digits than a floating-point number.
func decode(data []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var object map[string]any
	if err := d.Decode(&object); err != nil {
		return nil, err
	}
	if object == nil {
		return nil, errors.New("it is not an object")
	}
	return object, nil
}

// replaceFile replaces the content of path such that a reader sees the old or
// the new, with the permissions that it has.
func replaceFile(path string, data []byte) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(st.Mode().Perm()), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
