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
	err = fields(msg, func(f field) error {
		switch {
		case f.is(stringValue, protowire.BytesType):
			v = anyValue{typ: f.id, bytes: f.bytes}
			return f.checkText()
		case f.is(bytesValue, protowire.BytesType):
			v = anyValue{typ: f.id, bytes: f.bytes}
		case f.is(arrayValue, protowire.BytesType), f.is(kvlistValue, protowire.BytesType):
			if v.typ == f.id {
				v.bytes = merge(v.bytes, f.bytes)
			} else {
				v = anyValue{typ: f.id, bytes: f.bytes}
			}
		case f.is(boolValue, protowire.VarintType), f.is(intValue, protowire.VarintType),
			f.is(doubleValue, protowire.Fixed64Type):
			v = anyValue{typ: f.id, number: f.number}
		}
		return nil
	})
	return v, err
}

// readPairs appends the KeyValue messages in one repeated field of msg to
// d.pairs and returns them, each key once: the last value in the first place.
func (d *decoder) readPairs(msg []byte, number protowire.Number) ([]pair, error) {
	base := len(d.pairs)
	var seen map[string]int // only for lists too long to scan
	err := fields(msg, func(f field) error {
		if !f.is(number, protowire.BytesType) {
			return nil
		}
		p, err := readPair(f.bytes)
		if err != nil {
			return err
		}
		own := d.pairs[base:]
		if len(own) == 64 {
			seen = make(map[string]int, 256)
			for i, o := range own {
				seen[string(o.key)] = i
			}
		}
		at := -1
		if seen != nil {
			if i, ok := seen[string(p.key)]; ok {
				at = i
			} else {
				seen[string(p.key)] = len(own)
			}
		} else {
			for i := range own {
				if bytes.Equal(own[i].key, p.key) {
					at = i
					break
				}
			}
		}
		if at >= 0 {
			own[at].value = p.value
			return nil
		}
		d.pairs = append(d.pairs, p)
		return nil
	})
	return d.pairs[base:], err
}

func readPair(msg []byte) (p pair, err error) {
	err = fields(msg, func(f field) error {
		switch {
		case f.is(1, protowire.BytesType):
			p.key = f.bytes
			return f.checkText()
		case f.is(2, protowire.BytesType):
			p.value = merge(p.value, f.bytes)
		}
		return nil
	})
	return p, err
}

// attributes appends the object of the attributes in a repeated field of msg,
// and returns the filing ids among them.
func (d *decoder) attributes(msg []byte, number protowire.Number) (filed ids, err error) {
	base := len(d.pairs)
	pairs, err := d.readPairs(msg, number)
	if err != nil {
		return filed, err
	}
	d.out = append(d.out, '{')
	first := true
	for _, p := range pairs {
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
		d.out = rawjson.AppendString(d.out, string(p.key))
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
	switch string(key) {
	case RolloutIDKey:
		f.rollout, err = d.plainText(nil, v)
	case AttemptIDKey:
		f.attempt, err = d.plainText(nil, v)
	case SequenceIDKey:
		f.sequence = []byte("none")
		if v.typ == stringValue || v.typ == intValue {
			f.sequence, err = d.plainText(nil, v)
		}
	}
	return err
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

// array appends an array of one scalar type, or else of strings.
func (d *decoder) array(dst []byte, v anyValue) ([]byte, error) {
	typ := noValue
	mixed := false
	err := elements(v, func(e anyValue) error {
		kind := e.typ
		switch {
		case kind == bytesValue:
			kind = stringValue
		case kind == doubleValue && !finite(e), kind == arrayValue, kind == kvlistValue:
			mixed = true
		}
		mixed = mixed || (typ != noValue && typ != kind)
		typ = kind
		return nil
	})
	if err != nil {
		return dst, err
	}
	dst = append(dst, '[')
	start := len(dst)
	err = elements(v, func(e anyValue) (err error) {
		if len(dst) > start {
			dst = append(dst, ',')
		}
		if mixed {
			dst, err = d.quoted(dst, e)
		} else {
			dst, err = d.json(dst, e, 1)
		}
		return err
	})
	return append(dst, ']'), err
}

func finite(v anyValue) bool {
	f := math.Float64frombits(v.number)
	return !math.IsNaN(f) && !math.IsInf(f, 0)
}

// elements walks the values of an array, without those that are none.
func elements(v anyValue, visit func(anyValue) error) error {
	return fields(v.bytes, func(f field) error {
		if !f.is(1, protowire.BytesType) {
			return nil
		}
		e, err := readValue(f.bytes)
		if err != nil || e.typ == noValue {
			return err
		}
		return visit(e)
	})
}

// quoted appends the value's text as a JSON string.
func (d *decoder) quoted(dst []byte, v anyValue) ([]byte, error) {
	text, err := d.plainText(d.text[:0], v)
	d.text = text
	return rawjson.AppendString(dst, string(text)), err
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
		return rawjson.AppendString(dst, string(v.bytes)), nil
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
	err := fields(v.bytes, func(f field) error {
		if !f.is(1, protowire.BytesType) {
			return nil
		}
		e, err := readValue(f.bytes)
		if err != nil {
			return err
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst, err = d.json(dst, e, depth+1)
		return err
	})
	return append(dst, ']'), err
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
		dst = rawjson.AppendString(dst, string(p.key))
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
