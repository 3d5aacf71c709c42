// Package otlp turns OpenTelemetry's OTLP trace requests into spans of the
// queue and back.
//
// [Decode] reads the protobuf wire format straight into the JSON text that
// spans are kept as; no message is built on the way. [DecodeJSON] rewrites
// OTLP/JSON as protobuf first, so both forms have one meaning. [Append] writes
// a request.
//
// Span attributes hold only strings, booleans, numbers and arrays of one of
// them, since clients reject anything else. Of OTLP's other values, bytes become
// hex, a list of pairs becomes its JSON text, an array of several types an array
// of strings, and a value that is not there is left out.
package otlp

import (
	"bytes"
	"encoding/hex"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// The attributes, of a span or of its resource, that file a span.
const (
	RolloutIDKey  = "agentlightning.rollout_id"
	AttemptIDKey  = "agentlightning.attempt_id"
	SequenceIDKey = "agentlightning.span_sequence_id"
)

// MaxDepth is how deep attribute values may nest.
const MaxDepth = 100

// Batch is what one request holds.
type Batch struct {
	// Spans in the order of the request. A span without a usable number has
	// queue.NumberOnArrival.
	Spans []queue.Span
	// Dropped counts the spans that name no rollout or no attempt.
	Dropped int
}

// Decode reads an ExportTraceServiceRequest. The spans do not share body's
// memory. Errors have the kind queue.Invalid.
func Decode(body []byte) (Batch, error) {
	d := decoders.Get().(*decoder)
	defer d.release()
	r := read(body)
	for r.next() {
		if r.is(1, protowire.BytesType) {
			r.err = d.resourceSpans(r.bytes)
		}
	}
	if r.err != nil {
		return Batch{}, queue.Wrap(queue.Invalid, r.err, "decoding an OTLP trace request")
	}
	return d.batch, nil
}

var decoders = sync.Pool{New: func() any { return new(decoder) }}

// decoder holds the buffers of one Decode.
type decoder struct {
	batch    Batch
	resource ids
	shared   rawjson.Value // the resource of the spans being read
	out      []byte        // JSON of the span being read
	last     queue.Span    // the span before, whose strings are likely to come again
	pairs    []pair        // attributes of open objects, innermost last
	text     []byte        // a nested value's JSON before it is quoted
}

func (d *decoder) release() {
	*d = decoder{out: d.out[:0], pairs: d.pairs[:0], text: d.text[:0]}
	if cap(d.out) > 1<<20 || cap(d.text) > 1<<20 || cap(d.pairs) > 1<<14 {
		return
	}
	clear(d.pairs[:cap(d.pairs)])
	decoders.Put(d)
}

// ids are the values of the three filing attributes, nil where absent.
type ids struct{ rollout, attempt, sequence []byte }

func (d *decoder) resourceSpans(msg []byte) error {
	var resource, schemaURL []byte
	r := read(msg)
	for r.next() {
		switch {
		case r.is(1, protowire.BytesType):
			resource = merge(resource, r.bytes)
		case r.is(3, protowire.BytesType):
			schemaURL = r.text()
		}
	}
	if r.err != nil {
		return r.err
	}
	var err error
	d.out = append(d.out[:0], `{"attributes":`...)
	d.resource, err = d.attributes(resource, 1)
	if err != nil {
		return err
	}
	d.out = append(d.out, `,"schema_url":`...)
	d.out = rawjson.AppendText(d.out, schemaURL)
	d.out = append(d.out, '}')
	d.shared = bytes.Clone(d.out)
	for r = read(msg); r.next(); {
		if r.is(2, protowire.BytesType) {
			r.err = d.scopeSpans(r.bytes)
		}
	}
	return r.err
}

func (d *decoder) scopeSpans(msg []byte) error {
	n := 0
	r := read(msg)
	for r.next() {
		if r.is(2, protowire.BytesType) {
			n++
		}
	}
	d.batch.Spans = slices.Grow(d.batch.Spans, n)
	for r = read(msg); r.next(); {
		switch {
		case r.is(2, protowire.BytesType):
			r.err = d.span(r.bytes)
		case r.is(3, protowire.BytesType):
			r.text()
		}
	}
	return r.err
}

// rawSpan is a Span message with its parts still encoded.
type rawSpan struct {
	traceID, spanID, parentID, name, status []byte
	start, end                              uint64
	events, links                           bool
}

// readSpan reads a message but for its events and links, and leaves its
// attributes in d.pairs.
func (d *decoder) readSpan(msg []byte) (s rawSpan, err error) {
	attributes := pairs{base: len(d.pairs)}
	r := read(msg)
	for r.next() {
		switch {
		case r.is(1, protowire.BytesType):
			s.traceID = r.bytes
		case r.is(2, protowire.BytesType):
			s.spanID = r.bytes
		case r.is(3, protowire.BytesType):
			r.text()
		case r.is(4, protowire.BytesType):
			s.parentID = r.bytes
		case r.is(5, protowire.BytesType):
			s.name = r.text()
		case r.is(7, protowire.Fixed64Type):
			s.start = r.number
		case r.is(8, protowire.Fixed64Type):
			s.end = r.number
		case r.is(9, protowire.BytesType):
			r.err = d.addPair(&attributes, r.bytes)
		case r.is(11, protowire.BytesType):
			s.events = true
		case r.is(13, protowire.BytesType):
			s.links = true
		case r.is(15, protowire.BytesType):
			s.status = merge(s.status, r.bytes)
		}
	}
	return s, r.err
}

// span appends one span to the batch.
func (d *decoder) span(msg []byte) error {
	raw, err := d.readSpan(msg)
	if err != nil {
		return err
	}
	d.out = d.out[:0]
	filed, err := d.writeAttributes(0)
	if err != nil {
		return err
	}
	attributes := len(d.out)
	if err := d.status(raw.status); err != nil {
		return err
	}
	status := len(d.out)
	d.context(raw.traceID, raw.spanID)
	context := len(d.out)
	if raw.events {
		err = d.list(msg, 11, d.event)
	}
	if err != nil {
		return err
	}
	events := len(d.out)
	if raw.links {
		err = d.list(msg, 13, d.link)
	}
	if err != nil {
		return err
	}
	s := queue.Span{
		RolloutID:  pick(filed.rollout, d.resource.rollout, d.last.RolloutID),
		AttemptID:  pick(filed.attempt, d.resource.attempt, d.last.AttemptID),
		SequenceID: sequence(filed.sequence, d.resource.sequence),
		Parent:     rawjson.Null,
		Resource:   d.shared,
	}
	if s.RolloutID == "" || s.AttemptID == "" {
		d.batch.Dropped++
		return nil
	}
	// The JSON parts are cut from one array.
	out := rawjson.Value(bytes.Clone(d.out))
	cut := func(from, to int) rawjson.Value { return out[from:to:to] }
	s.Attributes = cut(0, attributes)
	s.Status = cut(attributes, status)
	s.Context = cut(status, context)
	s.Events, s.Links = rawjson.EmptyArray, rawjson.EmptyArray
	if raw.events {
		s.Events = cut(context, events)
	}
	if raw.links {
		s.Links = cut(events, len(out))
	}
	d.scalars(&s, &raw)
	d.last = s
	d.batch.Spans = append(d.batch.Spans, s)
	return nil
}

// scalars sets the ids, the name and the times. Texts of their own are cut from
// one string, and pointers go into one allocation.
func (d *decoder) scalars(s *queue.Span, raw *rawSpan) {
	own := new(struct {
		start, end float64
		parent     string
	})
	text := appendHex(d.text[:0], raw.traceID, 32)
	traceEnd := len(text)
	text = appendHex(text, raw.spanID, 16)
	spanEnd := len(text)
	text = append(text, raw.name...)
	nameEnd := len(text)
	if len(raw.parentID) > 0 {
		text = appendHex(text, raw.parentID, 16)
		s.ParentID = &own.parent
	}
	d.text = text
	from := 0
	if string(text[:traceEnd]) == d.last.TraceID {
		from = traceEnd
	}
	to := len(text)
	parentKnown := string(text[nameEnd:]) == d.last.SpanID
	if parentKnown {
		to = nameEnd
	}
	texts := string(text[from:to])
	s.TraceID = d.last.TraceID
	if from == 0 {
		s.TraceID = texts[:traceEnd]
	}
	s.SpanID, s.Name = texts[traceEnd-from:spanEnd-from], texts[spanEnd-from:nameEnd-from]
	own.parent = d.last.SpanID
	if !parentKnown {
		own.parent = texts[nameEnd-from:]
	}
	if raw.start != 0 {
		own.start = seconds(raw.start)
		s.StartTime = &own.start
	}
	if raw.end != 0 {
		own.end = seconds(raw.end)
		s.EndTime = &own.end
	}
}

var statusCodes = [...]string{"UNSET", "OK", "ERROR"}

func (d *decoder) status(msg []byte) error {
	var message []byte
	code := statusCodes[0]
	r := read(msg)
	for r.next() {
		switch {
		case r.is(2, protowire.BytesType):
			message = r.text()
		case r.is(3, protowire.VarintType):
			code = statusCodes[0]
			if n := int32(r.number); n > 0 && int(n) < len(statusCodes) {
				code = statusCodes[n]
			}
		}
	}
	d.out = append(d.out, `{"status_code":"`...)
	d.out = append(d.out, code...)
	d.out = append(d.out, `","description":`...)
	if len(message) == 0 {
		d.out = append(d.out, "null"...)
	} else {
		d.out = rawjson.AppendText(d.out, message)
	}
	d.out = append(d.out, '}')
	return r.err
}

func (d *decoder) context(traceID, spanID []byte) {
	d.out = append(d.out, `{"trace_id":"`...)
	d.out = appendHex(d.out, traceID, 32)
	d.out = append(d.out, `","span_id":"`...)
	d.out = appendHex(d.out, spanID, 16)
	d.out = append(d.out, `","is_remote":false,"trace_state":{}}`...)
}

// list appends the array of the messages in one repeated field.
func (d *decoder) list(msg []byte, number protowire.Number, item func([]byte) error) error {
	d.out = append(d.out, '[')
	first := true
	r := read(msg)
	for r.next() {
		if !r.is(number, protowire.BytesType) {
			continue
		}
		if !first {
			d.out = append(d.out, ',')
		}
		first = false
		r.err = item(r.bytes)
	}
	d.out = append(d.out, ']')
	return r.err
}

func (d *decoder) event(msg []byte) error {
	var at uint64
	var name []byte
	r := read(msg)
	for r.next() {
		switch {
		case r.is(1, protowire.Fixed64Type):
			at = r.number
		case r.is(2, protowire.BytesType):
			name = r.text()
		}
	}
	if r.err != nil {
		return r.err
	}
	d.out = append(d.out, `{"name":`...)
	d.out = rawjson.AppendText(d.out, name)
	d.out = append(d.out, `,"attributes":`...)
	if _, err := d.attributes(msg, 3); err != nil {
		return err
	}
	d.out = append(d.out, `,"timestamp":`...)
	if at != 0 {
		d.out = rawjson.AppendFloat(d.out, seconds(at))
	} else {
		d.out = append(d.out, "null"...)
	}
	d.out = append(d.out, '}')
	return nil
}

func (d *decoder) link(msg []byte) error {
	var traceID, spanID []byte
	r := read(msg)
	for r.next() {
		switch {
		case r.is(1, protowire.BytesType):
			traceID = r.bytes
		case r.is(2, protowire.BytesType):
			spanID = r.bytes
		case r.is(3, protowire.BytesType):
			r.text()
		}
	}
	if r.err != nil {
		return r.err
	}
	d.out = append(d.out, `{"context":`...)
	d.context(traceID, spanID)
	d.out = append(d.out, `,"attributes":`...)
	start := len(d.out)
	if _, err := d.attributes(msg, 4); err != nil {
		return err
	}
	if len(d.out)-start == len("{}") {
		d.out = append(d.out[:start], "null"...)
	}
	d.out = append(d.out, '}')
	return nil
}

// pick is the id that a span's attribute gives, else that of its resource. An
// empty one is none. It reuses known where it can.
func pick(own, resource []byte, known string) string {
	id := own
	if len(id) == 0 {
		id = resource
	}
	if string(id) == known {
		return known
	}
	return string(id)
}

// sequence reads a span's number: an integer, or text of one, of 0 or more.
func sequence(own, resource []byte) int64 {
	text := own
	if text == nil {
		text = resource
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || n < 0 {
		return queue.NumberOnArrival
	}
	return n
}

func appendHex(dst, id []byte, width int) []byte {
	for n := width - 2*len(id); n > 0; n-- {
		dst = append(dst, '0')
	}
	return hex.AppendEncode(dst, id)
}

// seconds turns nanoseconds into seconds, rounded as exact division would; a
// count too small for this century is taken as seconds.
func seconds(ns uint64) float64 {
	if ns <= 1e12 {
		return float64(ns)
	}
	// 64 bits of the quotient, the lowest one standing for all that follow.
	shift := bits.LeadingZeros64(ns)
	ns <<= shift
	q, rest := bits.Div64(ns>>1, ns<<63, 1e9<<34)
	if rest != 0 {
		q |= 1
	}
	return math.Ldexp(float64(q), -(shift + 29))
}
