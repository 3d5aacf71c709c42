package queue_test

import (
	"testing"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

func benchRecord() *queue.Record {
	return queue.NewRecord("ro-0123456789ab", queue.Request{Input: rawjson.Value(`{"task":"what is 1 + 1"}`)}, true, 1)
}

// BenchmarkClaimRules is what a claim does to a record.
func BenchmarkClaimRules(b *testing.B) {
	queued, worker := benchRecord(), "w"
	b.ReportAllocs()
	for b.Loop() {
		r := queued.Clone()
		r.Begin("at-01234567", &worker, true, 0, 2)
	}
}

// BenchmarkFinishRules is what the end of an attempt does to a record.
func BenchmarkFinishRules(b *testing.B) {
	held, worker := benchRecord(), "w"
	held.Begin("at-01234567", &worker, true, 0, 2)
	end := queue.AttemptUpdate{Status: queue.Set(queue.AttemptSucceeded)}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := held.Clone().UpdateAttempt("at-01234567", end, 3); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHeartbeatRules is what a span does to a record.
func BenchmarkHeartbeatRules(b *testing.B) {
	held, worker, now := benchRecord(), "w", 3.0
	held.Begin("at-01234567", &worker, true, 0, 2)
	b.ReportAllocs()
	for b.Loop() {
		now++
		held.SpansStored("at-01234567", 1, now)
	}
}

// BenchmarkRolloutJSON writes the answer to a claim.
func BenchmarkRolloutJSON(b *testing.B) {
	held, worker := benchRecord(), "w"
	held.Begin("at-01234567", &worker, true, 0, 2)
	view := held.View()
	var text []byte
	b.ReportAllocs()
	for b.Loop() {
		text = view.AppendJSON(text[:0])
	}
}

// BenchmarkSpanJSON writes a span.
func BenchmarkSpanJSON(b *testing.B) {
	start, end := 1.0, 2.0
	s := queue.Span{
		RolloutID: "ro-0123456789ab", AttemptID: "at-01234567", SequenceID: 1, TraceID: "0af7651916cd43dd8448eb211c80319c", SpanID: "b7ad6b7169203331",
		Name: "chat.completion", Attributes: rawjson.Value(`{"gen_ai.system":"openai","tokens":512,"temperature":0.7}`), StartTime: &start, EndTime: &end,
	}
	s.FillIn()
	var text []byte
	b.ReportAllocs()
	for b.Loop() {
		text = s.AppendJSON(text[:0])
	}
}
