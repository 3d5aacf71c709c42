// Package mongotest gives tests a MongoDB: a single-node replica set with the
// data of one test process, and servers that a test may kill.
//
// The server is, in this order, the one named by AGLQ_TEST_MONGO_URI; a mongod
// of this process's own, from AGLQ_MONGOD, PATH or the cache that
// scripts/get-mongod fills; or a container. A test fails when there is none.
package mongotest

import (
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongod"
)

// howTo ends every failure to find a server.
const howTo = mongod.HowTo + ", or AGLQ_TEST_MONGO_URI to a running replica set"

// shared is the server of this test process.
var shared struct {
	sync.Mutex
	uri  string
	stop func()
}

// URI is the address of a running replica set, the same one for all tests of
// the process. It starts it on the first call.
func URI(t testing.TB) string {
	t.Helper()
	if uri := os.Getenv("AGLQ_TEST_MONGO_URI"); uri != "" {
		return uri
	}
	shared.Lock()
	defer shared.Unlock()
	if shared.uri != "" {
		return shared.uri
	}
	if mongod.Find() == "" {
		uri, stop, err := startContainer()
		if err != nil {
			t.Fatalf("no MongoDB to test with: no mongod was found and a container cannot be started (%v); %s", err, howTo)
		}
		shared.uri, shared.stop = uri, stop
		return uri
	}
	set, err := mongod.Start(context.Background(), mongod.Options{})
	if err != nil {
		t.Fatalf("starting a MongoDB to test with: %v; %s", err, howTo)
	}
	// A loaded machine may keep the server from answering for a while.
	shared.uri, shared.stop = set.URI()+"&serverSelectionTimeoutMS=30000", set.Close
	return shared.uri
}

// Tests runs a package's tests and then stops the server that they used. It
// fits goleak.VerifyTestMain.
type Tests struct{ M *testing.M }

// Run returns the exit status of the tests.
func (t Tests) Run() int {
	code := t.M.Run()
	shared.Lock()
	defer shared.Unlock()
	if shared.stop != nil {
		shared.stop()
		shared.uri, shared.stop = "", nil
	}
	return code
}

// Main is the TestMain of a package whose tests use the server:
// os.Exit(mongotest.Main(m)).
func Main(m *testing.M) int { return Tests{m}.Run() }

// Database makes up the name of a database for one test and drops it when the
// test ends.
func Database(t testing.TB) string {
	t.Helper()
	uri := URI(t)
	name := "aglq_" + strings.ToLower(rand.Text())
	t.Cleanup(func() {
		// A transaction that a test has left behind ends after a minute.
		ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
		defer cancel()
		client, err := driver.Connect(options.Client().ApplyURI(uri))
		if err == nil {
			err = client.Database(name).Drop(ctx)
			_ = client.Disconnect(ctx)
		}
		if err != nil {
			t.Errorf("dropping the test's database %s: %v", name, err)
		}
	})
	return name
}

// Open opens a backend on a database of the test's own. It is closed, and the
// database dropped, when the test ends.
func Open(t testing.TB) *mongo.Backend {
	t.Helper()
	b, err := mongo.Open(context.Background(), mongo.Options{
		URI: URI(t), Database: Database(t), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Errorf("closing the backend: %v", err)
		}
	})
	return b
}
