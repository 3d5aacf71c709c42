package mongo_test

import (
	"testing"

	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// heldRecord is a rollout with an attempt, and a copy of it that has ended.
func heldRecord(tb testing.TB) (held, ended *queue.Record) {
	held = queue.NewRecord("ro-0123456789ab", queue.Request{Input: rawjson.Value(`{"task":"what is 1 + 1"}`)}, true, 1)
	worker := "w"
	held.Begin("at-01234567", &worker, true, 0, 2)
	ended = held.Clone()
	if _, _, err := ended.UpdateAttempt("at-01234567", queue.AttemptUpdate{Status: queue.Set(queue.AttemptSucceeded)}, 3); err != nil {
		tb.Fatal(err)
	}
	return held, ended
}

func BenchmarkEncodeRecord(b *testing.B) {
	held, _ := heldRecord(b)
	var backend mongo.Backend
	b.ReportAllocs()
	for b.Loop() {
		backend.Document(held)
	}
}

func BenchmarkEncodeChange(b *testing.B) {
	held, ended := heldRecord(b)
	b.ReportAllocs()
	for b.Loop() {
		mongo.Change(held, ended)
	}
}

func BenchmarkDecodeRecord(b *testing.B) {
	held, _ := heldRecord(b)
	var backend mongo.Backend
	document := backend.Document(held)
	b.ReportAllocs()
	for b.Loop() {
		mongo.DecodeRecord(document)
	}
}

func BenchmarkEncodeSpan(b *testing.B) {
	start, end := 1.0, 2.0
	s := queue.Span{
		RolloutID: "ro-0123456789ab", AttemptID: "at-01234567", SequenceID: 1, TraceID: "0af7651916cd43dd8448eb211c80319c", SpanID: "b7ad6b7169203331",
		Name: "chat.completion", Attributes: rawjson.Value(`{"gen_ai.system":"openai","tokens":512,"temperature":0.7}`), StartTime: &start, EndTime: &end,
	}
	s.FillIn()
	var backend mongo.Backend
	b.ReportAllocs()
	for b.Loop() {
		backend.EncodeSpan(&s)
	}
}
