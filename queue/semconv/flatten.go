package semconv

import (
	"bytes"
	"slices"
	"strconv"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// Flatten turns a nested value into an object whose keys are dotted paths:
// {"a":{"b":1,"c":[2,3]}} becomes {"a.b":1,"a.c":[2,3]}. A list of strings,
// booleans, integers or floats stays a list unless expand is set; other lists
// are indexed ("a.c.0"). Empty lists and objects vanish. Where two paths are the
// same the last value counts, in the place of the first.
func Flatten(v rawjson.Value, expand bool) rawjson.Value {
	f := flattener{expand: expand, dst: []byte{'{'}}
	f.walk(v)
	f.dst = append(f.dst, '}')
	return canonical(f.dst)
}

// canonical drops repeated keys. The text is JSON already: its parts are.
func canonical(object []byte) rawjson.Value {
	v, _, err := rawjson.Compact(make([]byte, 0, len(object)), object)
	if err != nil {
		return object
	}
	return v
}

type flattener struct {
	expand bool
	path   []byte // escaped
	dst    []byte
}

func (f *flattener) walk(v rawjson.Value) {
	switch v.Kind() {
	case rawjson.KindObject:
		for key, val := range v.Members() {
			f.below(key, val)
		}
	case rawjson.KindArray:
		if !f.expand && len(f.path) > 0 && uniform(v) {
			f.leaf(v)
			return
		}
		i := 0
		for item := range v.Elements() {
			f.below(strconv.AppendInt(nil, int64(i), 10), item)
			i++
		}
	default:
		f.leaf(v)
	}
}

func (f *flattener) below(segment []byte, v rawjson.Value) {
	n := len(f.path)
	if n > 0 {
		f.path = append(f.path, '.')
	}
	f.path = append(f.path, segment...)
	f.walk(v)
	f.path = f.path[:n]
}

func (f *flattener) leaf(v rawjson.Value) {
	if len(f.dst) > 1 {
		f.dst = append(f.dst, ',')
	}
	f.dst = append(f.dst, '"')
	f.dst = append(f.dst, f.path...)
	f.dst = append(f.dst, '"', ':')
	f.dst = append(f.dst, v...)
}

// uniform reports whether a list is not empty and holds scalars of one type.
func uniform(list rawjson.Value) bool {
	first := rawjson.Invalid
	for item := range list.Elements() {
		kind := scalarKind(item)
		if first == rawjson.Invalid {
			first = kind
		}
		if kind == rawjson.Invalid || kind != first {
			return false
		}
	}
	return first != rawjson.Invalid
}

// scalarKind is the kind of what an attribute may hold by itself, Invalid of
// anything else. What is no finite number is a float.
func scalarKind(v rawjson.Value) rawjson.Kind {
	switch kind := v.Kind(); kind {
	case rawjson.KindBool, rawjson.KindInteger, rawjson.KindFloat, rawjson.KindString:
		return kind
	case rawjson.KindNonFinite:
		return rawjson.KindFloat
	}
	return rawjson.Invalid
}

// maxSegments bounds the depth of what Unflatten builds.
const maxSegments = 256

// Unflatten is the way back from [Flatten]: keys are split at their dots. An
// object whose keys are exactly 0 to n-1 becomes a list. Where a path ends in
// the midst of another, the later one wins. A path of more than 256 segments is
// an error.
func Unflatten(flat rawjson.Value) (rawjson.Value, error) {
	return unflatten(flat, "")
}

// UnflattenUnder unflattens the attributes whose keys begin with prefix and a
// dot, without these. It gives {} when there are none. An attribute with the
// prefix itself as its key is an error.
func UnflattenUnder(attributes rawjson.Value, prefix string) (rawjson.Value, error) {
	return unflatten(attributes, prefix)
}

func unflatten(flat rawjson.Value, prefix string) (rawjson.Value, error) {
	var root *branch
	for key, val := range flat.Members() {
		if prefix != "" {
			rest, ok := bytes.CutPrefix(key, []byte(prefix))
			if !ok {
				continue
			}
			if len(rest) == 0 {
				return nil, queue.Errorf(queue.Invalid, "attribute %q is a prefix of others and cannot have a value", prefix)
			}
			if rest[0] != '.' {
				continue
			}
			key = rest[1:]
		}
		if root == nil {
			root = &branch{}
		}
		if !root.put(key, val) {
			return nil, queue.Errorf(queue.Invalid, "attribute %.80q… has more than %d segments", key, maxSegments)
		}
	}
	if root == nil {
		return rawjson.EmptyObject, nil
	}
	return root.append(nil), nil
}

// branch is an object that is being built; its names are escaped text.
type branch struct {
	names [][]byte
	twigs []twig
	at    map[string]int // nil while names are few
}

// twig is a value or, where below is set, what is built under its name.
type twig struct {
	leaf  rawjson.Value
	below *branch
}

// put files a value under a dotted path; false when it is too deep.
func (b *branch) put(path []byte, v rawjson.Value) bool {
	for range maxSegments {
		segment, rest, more := bytes.Cut(path, []byte{'.'})
		t := b.twig(segment)
		if !more {
			*t = twig{leaf: v}
			return true
		}
		if t.below == nil {
			*t = twig{below: &branch{}}
		}
		b, path = t.below, rest
	}
	return false
}

// fewNames is up to how many names a walk is cheaper than a map.
const fewNames = 8

func (b *branch) twig(name []byte) *twig {
	if b.at == nil {
		for i, n := range b.names {
			if bytes.Equal(n, name) {
				return &b.twigs[i]
			}
		}
		if len(b.names) == fewNames {
			b.at = make(map[string]int, 4*fewNames)
			for i, n := range b.names {
				b.at[string(n)] = i
			}
		}
	} else if i, ok := b.at[string(name)]; ok {
		return &b.twigs[i]
	}
	if b.at != nil {
		b.at[string(name)] = len(b.names)
	}
	b.names = append(b.names, name)
	b.twigs = append(b.twigs, twig{})
	return &b.twigs[len(b.twigs)-1]
}

func (b *branch) append(dst []byte) []byte {
	if order, ok := b.list(); ok {
		dst = append(dst, '[')
		for i, at := range order {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = b.twigs[at].append(dst)
		}
		return append(dst, ']')
	}
	dst = append(dst, '{')
	for i := range b.names {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = append(dst, b.names[i]...)
		dst = append(dst, '"', ':')
		dst = b.twigs[i].append(dst)
	}
	return append(dst, '}')
}

func (t twig) append(dst []byte) []byte {
	if t.below != nil {
		return t.below.append(dst)
	}
	return append(dst, t.leaf...)
}

// list tells the places of the names 0 to n-1, if these are the names.
func (b *branch) list() (order []int, ok bool) {
	order = slices.Repeat([]int{-1}, len(b.names))
	for at, name := range b.names {
		i, ok := Index(name)
		if !ok || i >= len(order) {
			return nil, false
		}
		order[i] = at // names are unique, so all places are taken
	}
	return order, true
}

// Index reads a segment of a path as the index of a list: decimal digits
// without leading zeros, below a billion.
func Index(segment []byte) (i int, ok bool) {
	if len(segment) == 0 || len(segment) > 9 || segment[0] == '0' && len(segment) > 1 {
		return 0, false
	}
	for _, c := range segment {
		if c < '0' || c > '9' {
			return 0, false
		}
		i = 10*i + int(c-'0')
	}
	return i, true
}
