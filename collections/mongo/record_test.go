package mongo_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"pgregory.net/rapid"

	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

func optional[T any](g *rapid.Generator[T]) *rapid.Generator[*T] {
	return rapid.Custom(func(t *rapid.T) *T {
		if rapid.Bool().Draw(t, "absent") {
			return nil
		}
		v := g.Draw(t, "value")
		return &v
	})
}

var (
	anyTime = rapid.Float64Range(0, 2e9)
	anyText = rapid.SampledFrom([]string{"", "$status", "a.b", "a/b", "x\x00y", "ä€", "plain"})
	anyJSON = rapid.SampledFrom([]rawjson.Value{nil, rawjson.Null, rawjson.EmptyObject, rawjson.Value(`{"$set":{"a.b":1.0,"":12345678901234567890}}`), rawjson.Value(`"$in"`)})
)

func drawAttempt(t *rapid.T, i int) queue.Attempt {
	return queue.Attempt{
		RolloutID: "ro-1", AttemptID: fmt.Sprintf("at-%d%s", i, anyText.Draw(t, "id")), SequenceID: int64(i + 1), StartTime: anyTime.Draw(t, "start"),
		EndTime: optional(anyTime).Draw(t, "end"), Status: rapid.SampledFrom(queue.AttemptStatuses).Draw(t, "status"),
		WorkerID: optional(anyText).Draw(t, "worker"), LastHeartbeatTime: optional(anyTime).Draw(t, "heartbeat"),
		Metadata: anyJSON.Draw(t, "metadata"), Lost: rapid.Bool().Draw(t, "lost"),
	}
}

func drawRecord(t *rapid.T) *queue.Record {
	r := &queue.Record{
		Rollout: queue.Rollout{
			RolloutID: "ro-1", Input: anyJSON.Draw(t, "input"), StartTime: anyTime.Draw(t, "start"), EndTime: optional(anyTime).Draw(t, "end"),
			Mode:        rapid.SampledFrom(append([]queue.Mode{""}, queue.Modes...)).Draw(t, "mode"),
			ResourcesID: optional(anyText).Draw(t, "resources"), Status: rapid.SampledFrom(queue.RolloutStatuses).Draw(t, "status"),
			Config: queue.Config{
				TimeoutSeconds: optional(anyTime).Draw(t, "timeout"), UnresponsiveSeconds: optional(anyTime).Draw(t, "unresponsive"),
				MaxAttempts:    rapid.Int64().Draw(t, "max"),
				RetryCondition: rapid.SliceOfN(rapid.SampledFrom(queue.AttemptStatuses), 0, 3).Draw(t, "retry"),
			},
			Metadata: anyJSON.Draw(t, "metadata"),
		},
		Attempts: []queue.Attempt{},
		Place:    rapid.Int64Range(0, 1<<60).Draw(t, "place"), Due: anyTime.Draw(t, "due"), Lease: anyTime.Draw(t, "lease"),
		Spans: rapid.Int64Range(0, 9).Draw(t, "spans"), Revision: 1,
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "attempts") {
		r.Attempts = append(r.Attempts, drawAttempt(t, i))
	}
	return r
}

// TestRecordRoundTrip checks that a record comes back as it was, and that it is
// no larger than estimated.
func TestRecordRoundTrip(t *testing.T) {
	b := mongotest.Open(t)
	rapid.Check(t, func(t *rapid.T) {
		r := drawRecord(t)
		if diff := cmp.Diff(r, b.RoundTrip(r)); diff != "" {
			t.Fatalf("record differs (-want +got):\n%s", diff)
		}
		if n, limit := len(b.Document(r)), mongo.RecordSize(r); n > limit {
			t.Fatalf("document of %d bytes, estimated as %d", n, limit)
		}
	})
}

// TestChangeIsTheDifference lets the server apply the update between two
// records and compares the outcome.
func TestChangeIsTheDifference(t *testing.T) {
	b := mongotest.Open(t)
	c := b.Handle().Collection("changes")
	ctx := t.Context()
	rapid.Check(t, func(t *rapid.T) {
		before, after := drawRecord(t), drawRecord(t)
		if _, err := c.DeleteMany(ctx, bson.D{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.InsertOne(ctx, b.Document(before)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.UpdateMany(ctx, bson.D{}, mongo.Change(before, after)); err != nil {
			t.Fatal(err)
		}
		raw, err := c.FindOne(ctx, bson.D{}).Raw()
		if err != nil {
			t.Fatal(err)
		}
		after.Revision = 3
		if diff := cmp.Diff(after, mongo.DecodeRecord(raw)); diff != "" {
			t.Fatalf("changed record differs (-want +got):\n%s", diff)
		}
	})
}

func TestKeysDiffer(t *testing.T) {
	parts := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "/", "%", "%2F", "a/b", ""}), 3, 3)
	rapid.Check(t, func(t *rapid.T) {
		a, b := parts.Draw(t, "a"), parts.Draw(t, "b")
		if mongo.Key(a...) == mongo.Key(b...) && !cmp.Equal(a, b) {
			t.Fatalf("%q and %q have one key, %q", a, b, mongo.Key(a...))
		}
	})
}

// FuzzDecodeRecord checks that no bytes make the decoder fail.
func FuzzDecodeRecord(f *testing.F) {
	raw, err := bson.Marshal(bson.D{{Key: "r", Value: "x"}, {Key: "at", Value: bson.A{bson.D{{Key: "n", Value: 1}}}}, {Key: "in", Value: 7}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(_ *testing.T, raw []byte) { mongo.DecodeRecord(raw) })
}
