package otlp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/aglq/aglq/queue/rawjson"
)

var errDepth = errors.New("attribute values nest too deep")

// pair is one KeyValue with its value still encoded; a nil value is none.
type pair struct{ key, value []byte }

// The field numbers of AnyValue, which also name its types.
const (
	noValue     protowire.Number = 0
	stringValue protowire.Number = 1
	boolValue   protowire.Number = 2
	intValue    protowire.Number = 3
	doubleValue protowire.Number = 4
	arrayValue  protowire.Number = 5
	kvlistValue protowire.Number = 6
	bytesValue  protowire.Number = 7
)

// anyValue is an AnyValue, its contents still encoded.
type anyValue struct {
	typ    protowire.Number
	bytes  []byte
	number uint64
}

func readValue(msg []byte) (v anyValue, err error) {
	r := read(msg)
	for r.next() {
		switch {
		case r.is(stringValue, protowire.BytesType):
			v = anyValue{typ: r.id, bytes: r.text()}
		case r.is(bytesValue, protowire.BytesType):
			v = anyValue{typ: r.id, bytes: r.bytes}
		case r.is(arrayValue, protowire.BytesType), r.is(kvlistValue, protowire.BytesType):
			if v.typ == r.id {
				v.bytes = merge(v.bytes, r.bytes)
			} else {
				v = anyValue{typ: r.id, bytes: r.bytes}
			}
		case r.is(boolValue, protowire.VarintType), r.is(intValue, protowire.VarintType),
			r.is(doubleValue, protowire.Fixed64Type):
			v = anyValue{typ: r.id, number: r.number}
		}
	}
	return v, r.err
}

// readPairs appends the KeyValue messages in one repeated field of msg to
// d.pairs and returns them.
func (d *decoder) readPairs(msg []byte, number protowire.Number) ([]pair, error) {
	own := pairs{base: len(d.pairs)}
	r := read(msg)
	for r.next() {
		if r.is(number, protowire.BytesType) {
			r.err = d.addPair(&own, r.bytes)
		}
	}
	return d.pairs[own.base:], r.err
}

// pairs are those of one object: from base on in decoder.pairs, each key once,
// the last value in the first place.
type pairs struct {
	base int
	seen map[string]int // only for lists too long to scan
}

func (d *decoder) addPair(to *pairs, msg []byte) error {
	var p pair
	r := read(msg)
	for r.next() {
		switch {
		case r.is(1, protowire.BytesType):
			p.key = r.text()
		case r.is(2, protowire.BytesType):
			p.value = merge(p.value, r.bytes)
		}
	}
	if r.err != nil {
		return r.err
	}
	if at := to.find(d.pairs[to.base:], p.key); at >= 0 {
		d.pairs[to.base+at].value = p.value
	} else {
		d.pairs = append(d.pairs, p)
	}
	return nil
}

// find is where own has the key; -1, and the key is noted, where it has not.
func (ps *pairs) find(own []pair, key []byte) int {
	if ps.seen == nil && len(own) < 64 {
		for i := range own {
			if bytes.Equal(own[i].key, key) {
				return i
			}
		}
		return -1
	}
	if ps.seen == nil {
		ps.seen = make(map[string]int, 256)
		for i := range own {
			ps.seen[string(own[i].key)] = i
		}
	}
	if at, ok := ps.seen[string(key)]; ok {
		return at
	}
	ps.seen[string(key)] = len(own)
	return -1
}

// attributes appends the object of the attributes in a repeated field of msg,
// and returns the filing ids among them.
func (d *decoder) attributes(msg []byte, number protowire.Number) (ids, error) {
	base := len(d.pairs)
	if _, err := d.readPairs(msg, number); err != nil {
		return ids{}, err
	}
	return d.writeAttributes(base)
}

// writeAttributes appends the object of the pairs from base on, which it uses
// up.
func (d *decoder) writeAttributes(base int) (filed ids, err error) {
	d.out = append(d.out, '{')
	first := true
	for _, p := range d.pairs[base:] {
		v, err := readValue(p.value)
		if err != nil {
			return filed, err
		}
		if v.typ == noValue {
			continue
		}
		if !first {
			d.out = append(d.out, ',')
		}
		first = false
		d.out = rawjson.AppendText(d.out, p.key)
		d.out = append(d.out, ':')
		if d.out, err = d.attribute(d.out, v); err != nil {
			return filed, err
		}
		if err := filed.take(d, p.key, v); err != nil {
			return filed, err
		}
	}
	d.out = append(d.out, '}')
	d.pairs = d.pairs[:base]
	return filed, nil
}

// take remembers the value as text if the key is one of the three.
func (f *ids) take(d *decoder, key []byte, v anyValue) (err error) {
	if !bytes.HasPrefix(key, filingPrefix) {
		return nil
	}
	switch string(key) {
	case RolloutIDKey:
		f.rollout, err = d.idText(v)
	case AttemptIDKey:
		f.attempt, err = d.idText(v)
	case SequenceIDKey:
		f.sequence = []byte("none")
		if v.typ == stringValue || v.typ == intValue {
			f.sequence, err = d.idText(v)
		}
	}
	return err
}

var filingPrefix = []byte("agentlightning.")

// idText is plainText that shares the message's memory where it can.
func (d *decoder) idText(v anyValue) ([]byte, error) {
	if v.typ == stringValue {
		return v.bytes, nil
	}
	return d.plainText(nil, v)
}

// attribute appends a value that has one, in the form that attributes allow.
func (d *decoder) attribute(dst []byte, v anyValue) ([]byte, error) {
	switch v.typ {
	case kvlistValue:
		return d.quoted(dst, v)
	case arrayValue:
		return d.array(dst, v)
	case doubleValue:
		if f := math.Float64frombits(v.number); math.IsNaN(f) || math.IsInf(f, 0) {
			return d.quoted(dst, v)
		}
	}
	return d.json(dst, v, 0)
}

// array appends an array of one scalar type, integers among floats being floats, or
// else of strings.
func (d *decoder) array(dst []byte, v anyValue) ([]byte, error) {
	elements, err := elementsOf(v)
	if err != nil {
		return dst, err
	}
	dst = append(dst, '[')
	start := len(dst)
	r := read(v.bytes)
	for r.next() {
		e, ok := r.element()
		if !ok {
			continue
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		switch {
		case elements == mixed:
			dst, r.err = d.quoted(dst, e)
		case elements == doubleValue && e.typ == intValue:
			dst = rawjson.AppendFloat(dst, float64(int64(e.number)))
		default:
			dst, r.err = d.json(dst, e, 1)
		}
	}
	return append(dst, ']'), r.err
}

// mixed is the type of elements that have none in common.
const mixed protowire.Number = -1

// elementsOf is the type of an array's elements, noValue where there are none.
func elementsOf(v anyValue) (typ protowire.Number, err error) {
	r := read(v.bytes)
	for r.next() {
		e, ok := r.element()
		if !ok {
			continue
		}
		kind := e.typ
		switch {
		case kind == bytesValue:
			kind = stringValue
		case kind == doubleValue && !finite(e), kind == arrayValue, kind == kvlistValue:
			kind = mixed
		}
		switch {
		case typ == noValue, typ == intValue && kind == doubleValue:
			typ = kind
		case typ != kind && !(typ == doubleValue && kind == intValue):
			typ = mixed
		}
	}
	return typ, r.err
}

func finite(v anyValue) bool {
	f := math.Float64frombits(v.number)
	return !math.IsNaN(f) && !math.IsInf(f, 0)
}

// element reads the field as an element of an array; not ok for what is none
// and for a value that is not there.
func (r *reader) element() (e anyValue, ok bool) {
	if !r.is(1, protowire.BytesType) {
		return e, false
	}
	e, r.err = readValue(r.bytes)
	return e, r.err == nil && e.typ != noValue
}

// quoted appends the value's text as a JSON string.
func (d *decoder) quoted(dst []byte, v anyValue) ([]byte, error) {
	text, err := d.plainText(d.text[:0], v)
	d.text = text
	return rawjson.AppendText(dst, text), err
}

// plainText appends a value as text: a string as it is, the words of Python for
// booleans and for numbers that are none, and else JSON.
func (d *decoder) plainText(dst []byte, v anyValue) ([]byte, error) {
	switch v.typ {
	case stringValue:
		return append(dst, v.bytes...), nil
	case bytesValue:
		return hex.AppendEncode(dst, v.bytes), nil
	case boolValue:
		if v.number != 0 {
			return append(dst, "True"...), nil
		}
		return append(dst, "False"...), nil
	case doubleValue:
		switch f := math.Float64frombits(v.number); {
		case math.IsNaN(f):
			return append(dst, "NaN"...), nil
		case math.IsInf(f, 1):
			return append(dst, "Infinity"...), nil
		case math.IsInf(f, -1):
			return append(dst, "-Infinity"...), nil
		}
	}
	return d.json(dst, v, 0)
}

// json appends a value as plain JSON, null for none.
func (d *decoder) json(dst []byte, v anyValue, depth int) ([]byte, error) {
	if depth > MaxDepth {
		return dst, errDepth
	}
	switch v.typ {
	case stringValue:
		return rawjson.AppendText(dst, v.bytes), nil
	case bytesValue:
		dst = append(dst, '"')
		dst = hex.AppendEncode(dst, v.bytes)
		return append(dst, '"'), nil
	case boolValue:
		if v.number != 0 {
			return append(dst, "true"...), nil
		}
		return append(dst, "false"...), nil
	case intValue:
		return rawjson.AppendInt(dst, int64(v.number)), nil
	case doubleValue:
		return rawjson.AppendFloat(dst, math.Float64frombits(v.number)), nil
	case arrayValue:
		return d.jsonArray(dst, v, depth)
	case kvlistValue:
		return d.jsonObject(dst, v, depth)
	}
	return append(dst, "null"...), nil
}

func (d *decoder) jsonArray(dst []byte, v anyValue, depth int) ([]byte, error) {
	dst = append(dst, '[')
	start := len(dst)
	r := read(v.bytes)
	for r.next() {
		if !r.is(1, protowire.BytesType) {
			continue
		}
		var e anyValue
		if e, r.err = readValue(r.bytes); r.err != nil {
			break
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst, r.err = d.json(dst, e, depth+1)
	}
	return append(dst, ']'), r.err
}

func (d *decoder) jsonObject(dst []byte, v anyValue, depth int) ([]byte, error) {
	base := len(d.pairs)
	pairs, err := d.readPairs(v.bytes, 1)
	if err != nil {
		return dst, err
	}
	dst = append(dst, '{')
	for i, p := range pairs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = rawjson.AppendText(dst, p.key)
		dst = append(dst, ':')
		e, err := readValue(p.value)
		if err != nil {
			return dst, err
		}
		if dst, err = d.json(dst, e, depth+1); err != nil {
			return dst, err
		}
	}
	d.pairs = d.pairs[:base]
	return append(dst, '}'), nil
}
