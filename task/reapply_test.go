package task

import (
	"context"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestSettlesUntilNothingIsLeft has the ledger refuse for a while: the waits
// become longer, up to a limit, and begin anew the next time.
func TestSettlesUntilNothingIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const s = time.Second
		r := newReapplier()
		left := 0
		var waits []time.Duration
		var looks int
		last := time.Now()
		r.run(make(chan os.Signal), func(context.Context) { looks++ }, func(context.Context) bool {
			waits = append(waits, time.Since(last))
			last = time.Now()
			left--
			return left > 0
		})
		for _, want := range [][]time.Duration{
			{0},
			{0, 1 * s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, 60 * s, 60 * s},
			{0, 1 * s},
		} {
			last, left, waits, looks = time.Now(), len(want), nil, 0
			r.changed()
			time.Sleep(time.Hour)
			synctest.Wait()
			if !slices.Equal(waits, want) || looks != 1 {
				t.Errorf("settled after %v with %d looks, want %v", waits, looks, want)
			}
		}
		if err := r.close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
