package mongo_test

import (
	"context"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
)

// TestExamine looks at a real set, and sees what changes in it.
func TestExamine(t *testing.T) {
	ctx, uri, database := t.Context(), mongotest.URI(t), mongotest.Database(t)
	s, err := mongo.Examine(ctx, uri, database)
	if err != nil {
		t.Fatal(err)
	}
	if s.Version < "5" || s.Set == "" || !s.Initiated || !s.Primary || len(s.Members) == 0 || s.Members[0].Health != 1 ||
		s.Available <= 0 || s.Profiling != 0 {
		t.Errorf("the set is %+v", s)
	}
	if s.Ahead.Abs() > s.Within+time.Second { // the same clock, on a machine that may be slow
		t.Errorf("its clock is ahead by %v ± %v", s.Ahead, s.Within)
	}
	client, err := driver.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Disconnect(context.Background())
	if err := client.Database(database).RunCommand(ctx, bson.D{{Key: "profile", Value: 2}}).Err(); err != nil {
		t.Fatal(err)
	}
	if s, err = mongo.Examine(ctx, uri, database); err != nil || s.Profiling != 2 {
		t.Errorf("the profiling level is %d, %v", s.Profiling, err)
	}

	if _, err := mongo.Examine(ctx, "mongo:/x", ""); queue.KindOf(err) != queue.Invalid {
		t.Errorf("a URI that is none: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if _, err := mongo.Examine(short, "mongodb://127.0.0.1:1/", ""); queue.KindOf(err) != queue.Unavailable {
		t.Errorf("nobody there: %v", err)
	}
}
