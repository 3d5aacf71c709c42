package adapter

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// maxGroups bounds how deep dotted keys nest.
const maxGroups = 256

// pair is an attribute under the part of its key that is not grouped yet.
type pair struct {
	key []byte // escaped
	val rawjson.Value
}

// group nests the attributes under a prefix, as the spans of LLM calls mean it:
// where a segment of any key is a number, all that are become a list in their
// order, without gaps, and the others are dropped; else they are the names of an
// object. It differs from semconv.Unflatten, which never drops anything. Nil when
// there are none.
func group(attributes rawjson.Value, prefix string) (rawjson.Value, error) {
	var pairs []pair
	for key, val := range attributes.Members() {
		if rest, ok := bytes.CutPrefix(key, []byte(prefix)); ok && len(rest) > 0 && rest[0] == '.' {
			pairs = append(pairs, pair{rest[1:], val})
		}
	}
	if pairs == nil {
		return nil, nil
	}
	dst, ok := appendGroup(nil, pairs, maxGroups)
	if !ok {
		return nil, queue.Errorf(queue.Invalid, "attributes %s.… nest deeper than %d levels", prefix, maxGroups)
	}
	return dst, nil
}

func appendGroup(dst []byte, pairs []pair, depth int) ([]byte, bool) {
	if depth == 0 {
		return nil, false
	}
	if slices.ContainsFunc(pairs, func(p pair) bool { head, _, _ := cut(p.key); return isIndex(head) }) {
		return appendIndexed(dst, pairs, depth)
	}
	return appendNamed(dst, pairs, depth)
}

// isIndex reports whether a segment is a number without leading zeros.
func isIndex(segment []byte) bool {
	return digits(segment) && (segment[0] != '0' || len(segment) == 1)
}

// cut splits a key at its first dot.
func cut(key []byte) (head, rest []byte, more bool) { return bytes.Cut(key, []byte{'.'}) }

func appendIndexed(dst []byte, pairs []pair, depth int) ([]byte, bool) {
	items := map[string][]pair{}
	var order []string
	for _, p := range pairs {
		head, rest, _ := cut(p.key)
		if !isIndex(head) {
			continue
		}
		at := string(head)
		if items[at] == nil {
			order = append(order, at)
		}
		items[at] = append(items[at], pair{rest, p.val})
	}
	slices.SortFunc(order, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
	dst = append(dst, '[')
	for i, at := range order {
		if i > 0 {
			dst = append(dst, ',')
		}
		var ok bool
		if dst, ok = appendGroup(dst, items[at], depth-1); !ok {
			return nil, false
		}
	}
	return append(dst, ']'), true
}

// appendNamed writes values before objects, save that an object takes the place of
// a value of its name.
func appendNamed(dst []byte, pairs []pair, depth int) ([]byte, bool) {
	below := map[string][]pair{}
	var values []pair
	var heads [][]byte
	for _, p := range pairs {
		head, rest, more := cut(p.key)
		if !more {
			values = append(values, p)
			continue
		}
		if below[string(head)] == nil {
			heads = append(heads, head)
		}
		below[string(head)] = append(below[string(head)], pair{rest, p.val})
	}
	for _, v := range values {
		heads = slices.DeleteFunc(heads, func(h []byte) bool { return bytes.Equal(h, v.key) })
	}
	for _, h := range heads {
		values = append(values, pair{key: h})
	}
	dst = append(dst, '{')
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, '"'), v.key...), '"', ':')
		group := below[string(v.key)]
		if group == nil {
			dst = append(dst, v.val...)
			continue
		}
		var ok bool
		if dst, ok = appendGroup(dst, group, depth-1); !ok {
			return nil, false
		}
	}
	return append(dst, '}'), true
}
