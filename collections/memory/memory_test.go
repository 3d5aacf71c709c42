package memory_test

import (
	"context"
	"testing"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/collectionstest"
	"github.com/aglq/aglq/collections/memory"
)

func TestConformance(t *testing.T) {
	collectionstest.Run(t, func(t *testing.T) collections.Backend {
		b := memory.New(memory.Options{})
		t.Cleanup(func() {
			if err := b.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
		return b
	})
}
