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
func (f field) is(id protowire.Number, typ protowire.Type) bool { return f.id == id && f.typ == typ }

func (f field) checkText() error {
	if !utf8.Valid(f.bytes) {
		return errText
	}
	return nil
}

func (f field) text() (string, error) { return string(f.bytes), f.checkText() }

// fields walks the fields of a message in order; unknown ones included, groups
// skipped.
func fields(msg []byte, visit func(field) error) error {
	for len(msg) > 0 {
		id, typ, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return protowire.ParseError(n)
		}
		msg = msg[n:]
		f := field{id: id, typ: typ}
		switch typ {
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(msg)
		case protowire.VarintType:
			f.number, n = protowire.ConsumeVarint(msg)
		case protowire.Fixed64Type:
			f.number, n = protowire.ConsumeFixed64(msg)
		default:
			n = protowire.ConsumeFieldValue(id, typ, msg)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		msg = msg[n:]
		if err := visit(f); err != nil {
			return err
		}
	}
	return nil
}

// merge is what a message field means that occurs twice: protobuf merges the
// messages, which is to read them one after the other. The result is not nil.
func merge(before, next []byte) []byte {
	if before == nil {
		return next[:len(next):len(next)]
	}
	return slices.Concat(before, next)
}
