package semconv

import (
	"strconv"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// The keys of links that are no attributes, but the ids of a span.
const (
	LinkTraceID = "trace_id"
	LinkSpanID  = "span_id"
)

// Link points at spans by one of their attributes, or by trace_id or span_id.
type Link struct {
	Key   string // of the attribute, LinkTraceID or LinkSpanID
	Value string
}

// AppendLinks appends the attributes that say links, as an object.
func AppendLinks(dst []byte, links []Link) []byte {
	dst = append(dst, '{')
	for i, l := range links {
		if i > 0 {
			dst = append(dst, ',')
		}
		entry := LinkPrefix + "." + strconv.Itoa(i)
		dst = appendTextMember(dst, entry+".key_match", l.Key)
		dst = appendTextMember(append(dst, ','), entry+".value_match", l.Value)
	}
	return append(dst, '}')
}

// AppendTags appends the attributes that say tags, as an object.
func AppendTags(dst []byte, tags []string) []byte {
	dst = append(dst, '{')
	for i, tag := range tags {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendTextMember(dst, TagPrefix+"."+strconv.Itoa(i), tag)
	}
	return append(dst, '}')
}

func appendTextMember(dst []byte, key, text string) []byte {
	dst = rawjson.AppendString(dst, key)
	return rawjson.AppendString(append(dst, ':'), text)
}

// SpanLinks reads the links of a span; none when it has no such attributes. A
// malformed list is an Invalid error.
func SpanLinks(s *queue.Span) ([]Link, error) {
	list, err := spanList(s, LinkPrefix)
	if err != nil {
		return nil, err
	}
	var links []Link
	for item := range list.Elements() {
		key, val := item.Get("key_match"), item.Get("value_match")
		if key.Kind() != rawjson.KindString || val.Kind() != rawjson.KindString {
			return nil, queue.Errorf(queue.Invalid, "link %d of span %s has no key_match and value_match that are texts", len(links), s.SpanID)
		}
		links = append(links, Link{Key: key.Text(), Value: val.Text()})
	}
	return links, nil
}

// SpanTags reads the tags of a span; none when it has no such attributes. A
// malformed list is an Invalid error.
func SpanTags(s *queue.Span) ([]string, error) {
	list, err := spanList(s, TagPrefix)
	if err != nil {
		return nil, err
	}
	var tags []string
	for item := range list.Elements() {
		if item.Kind() != rawjson.KindString {
			return nil, queue.Errorf(queue.Invalid, "tag %d of span %s is no text: %.80s", len(tags), s.SpanID, item)
		}
		tags = append(tags, item.Text())
	}
	return tags, nil
}

// spanList unflattens a list of attributes, nil when there is none.
func spanList(s *queue.Span, prefix string) (rawjson.Value, error) {
	list, err := UnflattenUnder(s.Attributes, prefix)
	switch {
	case err != nil:
		return nil, err
	case list.Kind() == rawjson.KindArray:
		return list, nil
	case len(list) > len("{}"):
		return nil, queue.Errorf(queue.Invalid, "the attributes %s.… of span %s are not numbered from 0 on", prefix, s.SpanID)
	}
	return nil, nil
}

// Linked reports whether all of links point at a span.
func Linked(s *queue.Span, links []Link) bool {
	for _, l := range links {
		switch l.Key {
		case LinkTraceID:
			if s.TraceID != l.Value {
				return false
			}
		case LinkSpanID:
			if s.SpanID != l.Value {
				return false
			}
		default:
			if v := s.Attribute(l.Key); v.Kind() != rawjson.KindString || v.Text() != l.Value {
				return false
			}
		}
	}
	return true
}
