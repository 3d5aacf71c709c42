package rawjson_test

import (
	"strings"
	"testing"

	"github.com/aglq/aglq/queue/rawjson"
)

// BenchmarkCompact brings the JSON of a span of about 1 KB to its one form.
func BenchmarkCompact(b *testing.B) {
	text := []byte(`{"name": "chat.completion", "attributes": {"gen_ai.prompt": "` + strings.Repeat("word ", 150) + `", "tokens": 512, "temperature": 0.7}, "events": []}`)
	var out []byte
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		compact, _, err := rawjson.Compact(out[:0], text)
		if err != nil {
			b.Fatal(err)
		}
		out = compact
	}
}
