package rig

import "testing"

func TestIDOf(t *testing.T) {
	for _, c := range []struct {
		name string
		most int
		want string
	}{
		{"TestExec", 9, "exec"},
		{"TestCreateFails/no_program,_twice", 40, "createfails-no-program-twice"},
		{"TestCreateFails/no_program", 14, "createfails-no"},
		{"TestCreateFails/no_program", 12, "createfails"},
	} {
		if got := IDOf(c.name, c.most); got != c.want {
			t.Errorf("%s in %d bytes: %q, want %q", c.name, c.most, got, c.want)
		}
	}
}
