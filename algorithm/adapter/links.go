package adapter

import (
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
)

// linkTargets finds the spans that links point at.
type linkTargets struct {
	spans []*queue.Span
	// places are those of the spans by key and value, for keys that were asked for.
	places map[string]map[string][]int
}

// of lists the places of the spans that all of links point at. There is at least
// one link.
func (t *linkTargets) of(links []semconv.Link) (places []int) {
	for _, i := range t.by(links[0].Key)[links[0].Value] {
		if semconv.Linked(t.spans[i], links[1:]) {
			places = append(places, i)
		}
	}
	return places
}

func (t *linkTargets) by(key string) map[string][]int {
	if known := t.places[key]; known != nil {
		return known
	}
	values := map[string][]int{}
	for i, s := range t.spans {
		switch key {
		case semconv.LinkTraceID:
			values[s.TraceID] = append(values[s.TraceID], i)
		case semconv.LinkSpanID:
			values[s.SpanID] = append(values[s.SpanID], i)
		default:
			if v := s.Attribute(key); v.Kind() == rawjson.KindString {
				values[v.Text()] = append(values[v.Text()], i)
			}
		}
	}
	if t.places == nil {
		t.places = map[string]map[string][]int{}
	}
	t.places[key] = values
	return values
}
