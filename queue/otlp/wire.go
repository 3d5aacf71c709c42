package otlp

import (
	"errors"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

var errText = errors.New("a text field is not valid UTF-8")

// field is one field of a message. Bytes are set for the bytes type, number for
// the others.
type field struct {
	id     protowire.Number
	typ    protowire.Type
	bytes  []byte
	number uint64
}

// is reports whether f is the field of that number and type; a known number of
// another type is an unknown field.
func (f *field) is(id protowire.Number, typ protowire.Type) bool { return f.id == id && f.typ == typ }

// reader walks the fields of a message in order, unknown ones included, groups
// skipped:
//
//	for r := read(msg); r.next(); {
//		… r.field
//	}
//
// A loop over it checks err afterwards.
type reader struct {
	field
	rest []byte
	err  error
}

func read(msg []byte) reader { return reader{rest: msg} }

// next moves to the next field; false at the end and at a fault.
func (r *reader) next() bool {
	if len(r.rest) == 0 || r.err != nil {
		return false
	}
	msg := r.rest
	var n int
	if tag := msg[0]; tag >= 8 && tag < 0x80 {
		r.id, r.typ, n = protowire.Number(tag>>3), protowire.Type(tag&7), 1
	} else {
		r.id, r.typ, n = protowire.ConsumeTag(msg)
	}
	if n < 0 {
		return r.fail(n)
	}
	msg = msg[n:]
	switch r.typ {
	case protowire.BytesType:
		if len(msg) > 0 && msg[0] < 0x80 && int(msg[0]) < len(msg) {
			n = 1 + int(msg[0])
			r.bytes = msg[1:n:n]
		} else {
			r.bytes, n = protowire.ConsumeBytes(msg)
		}
	case protowire.VarintType:
		r.number, n = protowire.ConsumeVarint(msg)
	case protowire.Fixed64Type:
		r.number, n = protowire.ConsumeFixed64(msg)
	default:
		n = protowire.ConsumeFieldValue(r.id, r.typ, msg)
	}
	if n < 0 {
		return r.fail(n)
	}
	r.rest = msg[n:]
	return true
}

func (r *reader) fail(code int) bool {
	r.err = protowire.ParseError(code)
	return false
}

// text checks a text field and returns its bytes.
func (r *reader) text() []byte {
	if r.err == nil && !utf8.Valid(r.bytes) {
		r.err = errText
	}
	return r.bytes
}

// merge is what a message field means that occurs twice: protobuf merges the
// messages, which is to read them one after the other. The result is not nil.
func merge(before, next []byte) []byte {
	if before == nil {
		return next[:len(next):len(next)]
	}
	return slices.Concat(before, next)
}
