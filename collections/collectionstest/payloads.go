package collectionstest

import (
	"strings"
	"testing"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// payloads are JSON texts that come back to the byte.
var payloads = map[string]string{
	"null":             `null`,
	"false":            `false`,
	"empty object":     `{}`,
	"empty array":      `[]`,
	"empty string":     `""`,
	"1 and 1.0":        `{"i":1,"f":1.0,"same":[1,1.0,1.00]}`,
	"big numbers":      `[12345678901234567890123456789,-9223372036854775809,18446744073709551616,9007199254740993]`,
	"small floats":     `[0.1,1e-300,-0.0,5e-324,0.30000000000000004]`,
	"dollar keys":      `{"$set":{"$inc":1},"$where":"x","$":null}`,
	"dollar values":    `{"a":"$b","c":["$d","$$ROOT"]}`,
	"dotted keys":      `{"a.b":1,"a":{"b":2},".":3,"a.":4}`,
	"empty key":        `{"":{"":[{"":1}]}}`,
	"key order":        `{"z":1,"a":2,"m":3,"B":4,"10":5,"9":6}`,
	"storage names":    `{"_id":1,"partition_id":2,"__proto__":4}`,
	"NUL":              `{"a\u0000b":"c\u0000d","\u0000":"\u0000"}`,
	"escapes":          `"\"\\\b\f\n\r\t\u0001\u001f/"`,
	"unicode":          `{"é":"ü","e\u0301":"日本語","emoji":"😀👩‍👩‍👧","rtl":"שלום"}`,
	"line separators":  "\"\u2028\u2029\ufeff\uffff\"",
	"deep":             strings.Repeat(`{"a":[`, 120) + `1` + strings.Repeat(`]}`, 120),
	"wide":             `[` + strings.Repeat(`{"k":"v"},`, 5000) + `0]`,
	"1 MiB of text":    `{"text":"` + strings.Repeat("0123456789abcdef", 1<<16) + `"}`,
	"looks like BSON":  `{"$oid":"507f1f77bcf86cd799439011","$date":"2020-01-01T00:00:00Z","$numberLong":"1"}`,
	"booleans and nil": `[true,false,null,[true,[false,[null]]]]`,
}

func testPayloads(t *testing.T, open OpenFunc) {
	b := open(t)
	for name, text := range payloads {
		t.Run(name, func(t *testing.T) {
			v, err := rawjson.Parse([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if _, again, _ := rawjson.Compact(nil, v); again {
				t.Fatal("the payload is not finite")
			}
			payloadReturns(t, b, strings.ReplaceAll(name, " ", "-"), v)
		})
	}
	t.Run("large", func(t *testing.T) { largePayloads(t, open(t)) })
	t.Run("too large", func(t *testing.T) { hugeSpans(t, open(t)) })
}

// largeText is a payload of n bytes that no mistake of a chunk leaves as it is.
func largeText(n int) rawjson.Value {
	v := make(rawjson.Value, n)
	for i := range v {
		v[i] = 'a' + byte(i>>16+i)%26
	}
	v[0], v[n-1] = '"', '"'
	return v
}

// largePayloads keeps, changes and deletes payloads that are larger than what
// databases hold in one piece.
func largePayloads(t *testing.T, b collections.Backend) {
	ctx := testContext(t)
	largest := largeText(collections.MaxPayload)
	kept := largest
	stage(t, b, &kept)
	if err := b.Complete(ctx, &kept); err != nil {
		t.Fatal(err)
	}
	sameText(t, "the largest payload", kept.String(), largest.String())
	input, metadata, later := largeText(18<<20), largeText(5<<20), largeText(100_000)
	r := queued("ro-a", 100)
	r.Rollout.Input, r.Rollout.Metadata = input, metadata
	whole := text(r.Clone())
	stage(t, b, &r.Rollout.Input, &r.Rollout.Metadata)
	insert(t, b, r, queued("ro-b", 101))
	sameText(t, "record", text(record(t, b, "ro-a")), whole)

	// A claim and a finish carry them along.
	if got := claim(t, b, 2); got[0] != "ro-a" {
		t.Fatalf("claimed %v", got)
	}
	atomic(t, b, func(tx collections.Tx) error {
		claimed, err := tx.Rollout("ro-a")
		if err != nil {
			return err
		}
		own := claimed.Clone()
		if err := b.Complete(ctx, &own.Rollout.Input, &own.Rollout.Metadata); err != nil {
			return err
		}
		sameText(t, "input in a section", own.Rollout.Input.String(), input.String())
		sameText(t, "metadata in a section", own.Rollout.Metadata.String(), metadata.String())
		return nil
	})
	update := queue.RolloutUpdate{Status: queue.Set(queue.RolloutSucceeded), Metadata: queue.Set(later)}
	stage(t, b, &update.Metadata.Value)
	change(t, b, "ro-a", func(r *queue.Record) { r.Update(update, 200) })
	got := record(t, b, "ro-a")
	sameText(t, "input of the finished one", got.Rollout.Input.String(), input.String())
	sameText(t, "its new metadata", got.Rollout.Metadata.String(), later.String())
	done, _, err := b.Finished(ctx, []string{"ro-a"})
	if err != nil || len(done) != 1 {
		t.Fatalf("Finished: %d, %v", len(done), err)
	}
	sameText(t, "input when waited for", done[0].Rollout.Input.String(), input.String())
	page := queryRollouts(t, b, queue.RolloutQuery{Paging: queue.Paging{Limit: 1, SortBy: "status", Descending: true}})
	sameText(t, "input in a list", page.Items[0].Rollout.Input.String(), input.String())

	resources := resourceSet("rs-a", 1, 1, 1)
	resources.Resources = largeText(17 << 20)
	want := resources.Resources
	stage(t, b, &resources.Resources)
	putResources(t, b, resources)
	if u, err := b.LatestResources(ctx); err != nil {
		t.Error(err)
	} else {
		sameText(t, "resources", u.Resources.String(), want.String())
	}

	s := span("ro-a", "at-1", "b", 2)
	s.Attributes, s.Resource = largeText(17<<20), largeText(100_000)
	spans := []queue.Span{span("ro-a", "at-1", "a", 1), s, s, span("ro-a", "at-1", "c", 3)}
	same(t, "stored", insertSpans(t, b, spans...), []bool{true, true, false, true})
	listed := querySpans(t, b, queue.SpanQuery{RolloutID: "ro-a", Paging: queue.Paging{SortBy: "sequence_id", Limit: -1}})
	if len(listed.Items) != 3 {
		t.Fatalf("%d spans came back", len(listed.Items))
	}
	sameText(t, "span", string(listed.Items[1].AppendJSON(nil)), string(s.AppendJSON(nil)))

	old := collections.Cutoffs{Now: 1000, Finished: 300}
	same(t, "purged", purgeAll(t, b, old).Rollouts, 1)
	old.Now = 1e12
	same(t, "purged later", purgeAll(t, b, old).Spans, 3)
	if u, err := b.LatestResources(ctx); err != nil {
		t.Error(err)
	} else {
		sameText(t, "resources after a purge", u.Resources.String(), want.String())
	}
}

// stage writes payloads ahead.
func stage(t *testing.T, b collections.Backend, payloads ...*rawjson.Value) {
	t.Helper()
	if err := b.Stage(testContext(t), 64<<10, payloads...); err != nil {
		t.Fatalf("Stage: %v", err)
	}
}

// payloadReturns stores v wherever a payload may be and compares what comes
// back.
func payloadReturns(t *testing.T, b collections.Backend, id string, v rawjson.Value) {
	ctx := testContext(t)
	r := queue.NewRecord("ro-"+id, queue.Request{Input: v}, true, 1)
	r.Begin("at-1", nil, false, 0, 2)
	worker := queue.NewWorker("w-" + id)
	worker.HeartbeatStats = v
	resources := resourceSet("rs-"+id, 1, 1, 1)
	resources.Resources = v
	s := span("ro-"+id, "at-1", "a", 1)
	s.Attributes = v
	if v.Kind() == rawjson.KindObject {
		r.Rollout.Metadata, r.Attempts[0].Metadata, s.Resource, s.Context = v, v, v, v
		if v.String() != "{}" {
			s.Extra = v
		}
	}
	if v.Kind() == rawjson.KindArray {
		s.Events, s.Links = v, v
	}
	insert(t, b, r)
	putWorker(t, b, worker)
	putResources(t, b, resources)
	insertSpans(t, b, s)

	sameText(t, "record", text(record(t, b, r.Rollout.RolloutID)), text(r))
	if w, err := b.Worker(ctx, worker.WorkerID); err != nil {
		t.Error(err)
	} else {
		sameText(t, "worker", workerText(w), workerText(worker))
	}
	if u, err := b.Resources(ctx, resources.ResourcesID); err != nil {
		t.Error(err)
	} else {
		sameText(t, "resources", resourcesText(u), resourcesText(resources))
	}
	page := querySpans(t, b, queue.SpanQuery{RolloutID: s.RolloutID, Paging: queue.All})
	if len(page.Items) != 1 {
		t.Fatalf("%d spans came back", len(page.Items))
	}
	sameText(t, "span", string(page.Items[0].AppendJSON(nil)), string(s.AppendJSON(nil)))
	atomic(t, b, func(tx collections.Tx) error {
		got, err := tx.Rollout(r.Rollout.RolloutID)
		if err == nil {
			sameText(t, "record within a section", text(got), text(r))
		}
		return err
	})
}

// sameText names the first difference of two long texts.
func sameText(t *testing.T, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	at := 0
	for at < len(got) && at < len(want) && got[at] == want[at] {
		at++
	}
	from := max(at-40, 0)
	t.Errorf("%s of %d bytes came back as %d bytes; at byte %d\n got …%.120q\nwant …%.120q",
		what, len(want), len(got), at, got[from:], want[from:])
}

// hugeSpans refuses spans that no backend could keep as a whole batch, or keeps
// them all: what is stored does not depend on where the large one stands.
func hugeSpans(t *testing.T, b collections.Backend) {
	insert(t, b, queued("ro-a", 1))
	name := span("ro-a", "at-1", "name", 1)
	name.Name = largeText(17 << 20).String()
	large := span("ro-a", "at-1", "large", 2)
	large.Attributes = largeText(17 << 20)
	batch := []queue.Span{span("ro-a", "at-1", "small", 3), large, name}
	stored, err := b.InsertSpans(testContext(t), batch)
	switch {
	case err == nil:
		same(t, "stored", stored, []bool{true, true, true})
		same(t, "spans", spansOf(t, b, "ro-a"), 3)
	case queue.KindOf(err) == queue.TooLarge:
		same(t, "spans of a batch that was refused", spansOf(t, b, "ro-a"), 0)
	default:
		t.Errorf("InsertSpans: %v", err)
	}
}
