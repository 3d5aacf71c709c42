package httpapi_test

import (
	"context"
	"testing"

	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/httpapi/httpapitest"
	"github.com/aglq/aglq/queue/store"
)

func TestReplayOnMongo(t *testing.T) {
	uri := mongotest.URI(t)
	for _, script := range httpapitest.Scripts {
		t.Run(script, func(t *testing.T) {
			httpapitest.Replay(t, script, func(t *testing.T, o httpapitest.Options) httpapi.Store {
				backend, err := mongo.Open(context.Background(), mongo.Options{URI: uri, Database: "aglq-replay", Partition: queue.RandomID("p-")})
				if err != nil {
					t.Fatal(err)
				}
				s := store.New(backend, store.Options{Now: o.Clock.Now, NewID: o.NewID})
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
