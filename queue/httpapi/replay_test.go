package httpapi_test

import (
	"context"
	"testing"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/httpapi/httpapitest"
	"github.com/aglq/aglq/queue/store"
)

func TestReplayOnMemory(t *testing.T) {
	for _, script := range httpapitest.Scripts {
		t.Run(script, func(t *testing.T) {
			httpapitest.Replay(t, script, func(t *testing.T, o httpapitest.Options) httpapi.Store {
				s := store.New(memory.New(memory.Options{}), store.Options{Now: o.Clock.Now, NewID: o.NewID})
				t.Cleanup(func() {
					if err := s.Close(context.Background()); err != nil {
						t.Error(err)
					}
				})
				return s
			})
		})
	}
}
