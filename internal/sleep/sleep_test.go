package sleep_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aglq/aglq/internal/sleep"
)

func TestFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if err := sleep.For(t.Context(), time.Minute); err != nil || time.Since(began) != time.Minute {
			t.Errorf("%s: %v", time.Since(began), err)
		}
		if err := sleep.For(t.Context(), -1); err != nil || time.Since(began) != time.Minute {
			t.Errorf("%s: %v", time.Since(began), err)
		}
		enough := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, enough)
		defer cancel()
		if err := sleep.For(ctx, time.Hour); err != enough || time.Since(began) != time.Minute+time.Second {
			t.Errorf("%s: %v", time.Since(began), err)
		}
		if err := sleep.For(ctx, 0); err != enough {
			t.Errorf("of a context that has ended: %v", err)
		}
	})
}
