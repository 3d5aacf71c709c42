package mongo_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/collectionstest"
	"github.com/aglq/aglq/collections/mongo/mongotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(mongotest.Tests{M: m}) }

func TestBackend(t *testing.T) {
	collectionstest.Run(t, func(t *testing.T) collections.Backend { return mongotest.Open(t) })
}
