package mongo

import (
	"bytes"
	"iter"
	"slices"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"

	"github.com/aglq/aglq/queue/rawjson"
)

// doc builds one BSON document by appending. What the document does not hold is
// left out: an absent field reads back as nil or zero.
type doc struct{ b []byte }

func newDoc(size int) *doc {
	_, b := bsoncore.AppendDocumentStart(make([]byte, 0, size))
	return &doc{b}
}

// done ends the document.
func (d *doc) done() bson.Raw {
	d.close(0)
	return d.b
}

// open begins a document inside d and returns what close needs.
func (d *doc) open(key string) (at int32) {
	at, d.b = bsoncore.AppendDocumentElementStart(d.b, key)
	return at
}

func (d *doc) openArray(key string) (at int32) {
	at, d.b = bsoncore.AppendArrayElementStart(d.b, key)
	return at
}

func (d *doc) close(at int32) {
	d.b = append(d.b, 0)
	d.b = bsoncore.UpdateLength(d.b, at, int32(len(d.b))-at)
}

func (d *doc) text(key, v string)          { d.b = bsoncore.AppendStringElement(d.b, key, v) }
func (d *doc) float(key string, v float64) { d.b = bsoncore.AppendDoubleElement(d.b, key, v) }
func (d *doc) int(key string, v int64)     { d.b = bsoncore.AppendInt64Element(d.b, key, v) }
func (d *doc) raw(key string, v bson.Raw)  { d.b = bsoncore.AppendDocumentElement(d.b, key, v) }
func (d *doc) flag(key string)             { d.b = bsoncore.AppendBooleanElement(d.b, key, true) }
func (d *doc) no(key string)               { d.b = bsoncore.AppendBooleanElement(d.b, key, false) }
func (d *doc) date(key string, ms int64)   { d.b = bsoncore.AppendDateTimeElement(d.b, key, ms) }

func (d *doc) optText(key string, v *string) {
	if v != nil {
		d.text(key, *v)
	}
}

func (d *doc) optFloat(key string, v *float64) {
	if v != nil {
		d.float(key, *v)
	}
}

// json keeps a payload as text: it costs no conversion and comes back as it was.
func (d *doc) json(key string, v rawjson.Value) {
	if v == nil {
		return
	}
	d.b = bsoncore.AppendHeader(d.b, bsoncore.TypeString, key)
	n := uint32(len(v) + 1)
	d.b = append(d.b, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
	d.b = append(d.b, v...)
	d.b = append(d.b, 0)
}

func (d *doc) texts(key string, vs []string) {
	at := d.openArray(key)
	for i, v := range vs {
		d.text(strconv.Itoa(i), v)
	}
	d.close(at)
}

func (d *doc) ints(key string, vs []int64) {
	at := d.openArray(key)
	for i, v := range vs {
		d.int(strconv.Itoa(i), v)
	}
	d.close(at)
}

// value is one field's value in a document that was read.
type value struct{ bsoncore.Value }

// fields walks a document. It ends early at malformed bytes, which a server
// does not send.
func fields(raw []byte) iter.Seq2[[]byte, value] {
	return func(yield func([]byte, value) bool) {
		if len(raw) < 5 {
			return
		}
		for rest := raw[4:]; len(rest) > 1; {
			kind := bsoncore.Type(rest[0])
			end := bytes.IndexByte(rest[1:], 0)
			if end < 0 {
				return
			}
			key := rest[1 : 1+end]
			v, after, ok := bsoncore.ReadValue(rest[end+2:], kind)
			if !ok || !yield(key, value{v}) {
				return
			}
			rest = after
		}
	}
}

func (v value) text() string {
	s, _ := v.StringValueOK()
	return s
}

func (v value) textPtr() *string {
	s := v.text()
	return &s
}

func (v value) float() float64 {
	f, _ := v.DoubleOK()
	return f
}

func (v value) floatPtr() *float64 {
	f := v.float()
	return &f
}

func (v value) int() int64 {
	n, _ := v.AsInt64OK()
	return n
}

// json shares memory with the document.
func (v value) json() rawjson.Value {
	if v.Type != bsoncore.TypeString || len(v.Data) < 5 {
		return nil
	}
	return rawjson.Value(v.Data[4 : len(v.Data)-1 : len(v.Data)-1])
}

// oneOf adds the condition that a field has one of some values.
func (d *doc) oneOf(name string, values []string) {
	slices.Sort(values)
	if values = slices.Compact(values); len(values) == 1 {
		d.text(name, values[0])
		return
	}
	at := d.open(name)
	d.texts("$in", values)
	d.close(at)
}
