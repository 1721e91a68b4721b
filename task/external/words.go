package external

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"strings"
)

// maxLogTail is how much of the end of a runtime's log is looked at, in
// bytes: more than the longest message.
const maxLogTail = 256 << 10

// runtimeError is what a runtime says of its failure.
type runtimeError struct {
	words string
	err   error // how its command ended
}

func (e *runtimeError) Error() string { return e.words }
func (e *runtimeError) Unwrap() error { return e.err }

// inWords is err in the words of the runtime's log, if that has any: clients
// look for those, such as "executable file not found".
func inWords(err error, log string) error {
	if err == nil {
		return nil
	}
	f, openErr := os.Open(log)
	if openErr != nil {
		return err // it has not come to write a log
	}
	defer f.Close()
	if st, statErr := f.Stat(); statErr == nil && st.Size() > maxLogTail {
		_, _ = f.Seek(-maxLogTail, io.SeekEnd)
	}
	if words := lastError(f); words != "" {
		return &runtimeError{words: words, err: err}
	}
	return err
}

// logEntry is a line of a log in JSON: msg is runc's and crun's, fields
// youki's.
type logEntry struct {
	Level  string `json:"level"`
	Msg    string `json:"msg"`
	Fields struct {
		Message string `json:"message"`
	} `json:"fields"`
}

// lastError is the last error in a runtime's log, "" if there is none. Lines
// that are no entries are passed over.
func lastError(log io.Reader) (words string) {
	lines := bufio.NewReader(log)
	for {
		line, err := lines.ReadBytes('\n')
		var e logEntry
		if json.Unmarshal(line, &e) == nil && isError(e.Level) {
			if said := strings.TrimSpace(e.Msg + e.Fields.Message); said != "" {
				words = said
			}
		}
		if err != nil {
			return words
		}
	}
}

func isError(level string) bool {
	switch strings.ToLower(level) {
	case "error", "fatal", "panic":
		return true
	}
	return false
}
