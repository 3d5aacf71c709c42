package mongod_test

import (
	"context"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/aglq/aglq/collections/mongo/mongod"
)

// TestThreeMembers kills and deposes primaries: each time another one takes
// writes, and nothing that a majority has is lost.
func TestThreeMembers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	set, err := mongod.Start(ctx, mongod.Options{Members: 3})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(set.Close)
	client, err := driver.Connect(options.Client().ApplyURI(set.URI()).SetWriteConcern(writeconcern.Majority()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Disconnect(context.WithoutCancel(ctx))
	numbers := client.Database("test").Collection("numbers")
	insert := func(n int) {
		t.Helper()
		if _, err := numbers.InsertOne(ctx, bson.D{{Key: "_id", Value: n}}); err != nil {
			t.Fatal(err)
		}
	}
	primary := func() int {
		t.Helper()
		if err := set.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		i, err := set.Primary(ctx)
		if err != nil || i < 0 {
			t.Fatalf("there is no primary: %d, %v", i, err)
		}
		return i
	}

	insert(1)
	first := primary()
	set.Kill(first)
	second := primary()
	if second == first {
		t.Fatalf("member %d is dead and the primary", first)
	}
	insert(2)
	if err := set.Restart(ctx, first); err != nil {
		t.Fatal(err)
	}
	deposed := primary()
	if err := set.StepDown(ctx, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if third := primary(); third == deposed {
		t.Errorf("member %d stepped down and is the primary", deposed)
	}
	insert(3)
	n, err := numbers.CountDocuments(ctx, bson.D{})
	if err != nil || n != 3 {
		t.Errorf("%d of 3 documents are there: %v", n, err)
	}
}

func TestStepDownAlone(t *testing.T) {
	set, err := mongod.Start(t.Context(), mongod.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(set.Close)
	if err := set.StepDown(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	if err := set.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
}
