package httpapi

import (
	"bytes"
	"net/http"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

func (c *call) addSpan() error {
	buf := buffers.Get().(*[]byte)
	defer putBuffer(buf)
	var v checker
	body, err := c.jsonInto(&v, (*buf)[:0])
	if err != nil {
		return err
	}
	if cap(body) > cap(*buf) {
		*buf = body
	}
	var span queue.Span
	if v.body(body) {
		span = v.span(body)
	}
	if err := v.err(); err != nil {
		return err
	}
	stored, err := c.server.store.AddSpan(c.ctx(), span)
	if err == nil {
		one(c, http.StatusCreated, stored)
	}
	return err
}

func (c *call) nextSequence() error {
	var v checker
	body, err := c.json(&v)
	if err != nil {
		return err
	}
	var id string
	if v.body(body) {
		id = v.needText(&inBody, body, "rollout_id")
		v.needText(&inBody, body, "attempt_id")
	}
	if err := v.err(); err != nil {
		return err
	}
	n, err := c.server.store.NextSequence(c.ctx(), id, 1)
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, func(dst []byte) []byte {
		dst = append(dst, `{"sequence_id":`...)
		dst = rawjson.AppendInt(dst, n)
		return append(dst, '}')
	})
}

// The members of a span, in wire order.
const (
	spanRollout = iota
	spanAttempt
	spanSequence
	spanTrace
	spanID
	spanParentID
	spanName
	spanStatus
	spanAttributes
	spanEvents
	spanLinks
	spanStart
	spanEnd
	spanContext
	spanParent
	spanResource
	spanMembers
)

var spanNames = [spanMembers]string{
	"rollout_id", "attempt_id", "sequence_id", "trace_id", "span_id", "parent_id", "name", "status", "attributes",
	"events", "links", "start_time", "end_time", "context", "parent", "resource",
}

// spanPlaces are the places of the members in the body.
var spanPlaces = func() (at [spanMembers]loc) {
	for i, name := range spanNames {
		at[i] = inBody.at(name)
	}
	return at
}()

var statusCodes = []string{"UNSET", "OK", "ERROR"}

// span reads a span into memory of its own. All members are required, null or not.
func (v *checker) span(body rawjson.Value) queue.Span {
	r := spanReader{body: body}
	r.sort(v)
	s := queue.Span{RolloutID: r.text(v, spanRollout), AttemptID: r.text(v, spanAttempt), SequenceID: r.sequence(v)}
	s.TraceID, s.SpanID = r.text(v, spanTrace), r.text(v, spanID)
	if x := r.need(v, spanParentID); x != nil {
		s.ParentID = v.optText(&spanPlaces[spanParentID], x)
	}
	s.Name = r.text(v, spanName)
	r.parts(v, &s)
	s.StartTime, s.EndTime = r.time(v, spanStart), r.time(v, spanEnd)
	if r.extra != nil {
		s.Extra = append(r.extra, '}')
	}
	return s
}

// spanReader reads the members of a span. The checker is a parameter of its methods: one
// that a structure points to would not stay on the stack.
type spanReader struct {
	body  rawjson.Value
	given [spanMembers]rawjson.Value
	extra []byte // an object of the members that are not declared, still open
}

// sort tells the members of the body apart.
func (r *spanReader) sort(v *checker) {
members:
	for key, x := range r.body.Members() {
		for i, name := range spanNames {
			if string(key) == name {
				r.given[i] = x
				continue members
			}
		}
		r.extra = rawjson.AppendMember(r.extra, key, v.payload(x))
	}
}

// need is a member, nil where it is missing.
func (r *spanReader) need(v *checker, i int) rawjson.Value {
	if r.given[i] == nil {
		v.missing(&spanPlaces[i], r.body)
	}
	return r.given[i]
}

func (r *spanReader) text(v *checker, i int) string {
	x := r.need(v, i)
	if x == nil {
		return ""
	}
	return v.text(&spanPlaces[i], x)
}

func (r *spanReader) sequence(v *checker) int64 {
	x := r.need(v, spanSequence)
	if x == nil {
		return 0
	}
	n := v.int(&spanPlaces[spanSequence], x)
	if n == queue.NumberOnArrival {
		v.fail(&spanPlaces[spanSequence], "int_parsing_size", "Unable to parse input string as an integer, exceeded maximum size", x, "")
	}
	return n
}

func (r *spanReader) time(v *checker, i int) *float64 {
	x := r.need(v, i)
	if x == nil {
		return nil
	}
	return v.optFloat(&spanPlaces[i], x)
}

// parts reads the members that stay JSON. They are cut from one array.
func (r *spanReader) parts(v *checker, s *queue.Span) {
	buf := buffers.Get().(*[]byte)
	defer putBuffer(buf)
	out := (*buf)[:0]
	var ends [spanMembers]int
	for _, i := range [...]int{spanStatus, spanAttributes, spanEvents, spanLinks, spanContext, spanParent, spanResource} {
		if x := r.need(v, i); x != nil {
			out = r.part(v, i, x, out)
		}
		ends[i] = len(out)
	}
	*buf = out
	if len(v.problems) > 0 {
		return
	}
	own := rawjson.Value(bytes.Clone(out))
	from := 0
	cut := func(i int) rawjson.Value {
		part := own[from:ends[i]:ends[i]]
		from = ends[i]
		return part
	}
	s.Status, s.Attributes, s.Events, s.Links = cut(spanStatus), cut(spanAttributes), cut(spanEvents), cut(spanLinks)
	s.Context, s.Parent, s.Resource = cut(spanContext), cut(spanParent), cut(spanResource)
}

// part appends one of them.
func (r *spanReader) part(v *checker, i int, x rawjson.Value, out []byte) []byte {
	at := &spanPlaces[i]
	switch i {
	case spanStatus:
		return v.traceStatus(at, x, out)
	case spanAttributes:
		return v.attributes(at, x, out)
	case spanEvents:
		return v.listOf(at, x, out, v.event)
	case spanLinks:
		return v.listOf(at, x, out, v.link)
	case spanResource:
		return v.otelResource(at, x, out)
	}
	return v.optSpanContext(at, x, out) // the span's own, or its parent's
}

// extras appends the members of x that are not declared, and closes the object.
func (v *checker) extras(x rawjson.Value, out []byte, declared ...string) []byte {
members:
	for key, val := range x.Members() {
		for _, name := range declared {
			if string(key) == name {
				continue members
			}
		}
		out = rawjson.AppendMember(out, key, v.payload(val))
	}
	return append(out, '}')
}

func (v *checker) traceStatus(at *loc, x rawjson.Value, out []byte) []byte {
	if !v.object(at, x) {
		return out
	}
	out = append(out, `{"status_code":`...)
	here := at.at("status_code")
	if code := x.Get("status_code"); code != nil {
		out = rawjson.AppendString(out, literal(v, &here, code, statusCodes))
	} else {
		v.missing(&here, x)
	}
	out = append(out, `,"description":`...)
	here = at.at("description")
	out = v.appendOptText(&here, x.Get("description"), out)
	return v.extras(x, out, "status_code", "description")
}

func (v *checker) appendOptText(at *loc, x rawjson.Value, out []byte) []byte {
	if x.IsNull() {
		return append(out, "null"...)
	}
	v.text(at, x)
	return append(out, x...)
}

// appendText appends a required text member.
func (v *checker) appendText(at *loc, x rawjson.Value, name string, out []byte) []byte {
	here := at.at(name)
	val := x.Get(name)
	switch {
	case val == nil:
		v.missing(&here, x)
	case val.Kind() != rawjson.KindString:
		v.text(&here, val)
	}
	return append(out, val...)
}

func (v *checker) listOf(at *loc, x rawjson.Value, out []byte, item func(*loc, rawjson.Value, []byte) []byte) []byte {
	if !v.list(at, x) {
		return out
	}
	out = append(out, '[')
	n := 0
	for e := range x.Elements() {
		if n > 0 {
			out = append(out, ',')
		}
		here := at.item(n)
		out = item(&here, e, out)
		n++
	}
	return append(out, ']')
}

func (v *checker) event(at *loc, x rawjson.Value, out []byte) []byte {
	if !v.object(at, x) {
		return out
	}
	out = append(out, `{"name":`...)
	out = v.appendText(at, x, "name", out)
	out = append(out, `,"attributes":`...)
	here := at.at("attributes")
	if attributes := x.Get("attributes"); attributes != nil {
		out = v.attributes(&here, attributes, out)
	} else {
		v.missing(&here, x)
	}
	out = append(out, `,"timestamp":`...)
	here = at.at("timestamp")
	if t := v.optFloat(&here, x.Get("timestamp")); t != nil {
		out = rawjson.AppendFloat(out, *t)
	} else {
		out = append(out, "null"...)
	}
	return v.extras(x, out, "name", "attributes", "timestamp")
}

func (v *checker) link(at *loc, x rawjson.Value, out []byte) []byte {
	if !v.object(at, x) {
		return out
	}
	out = append(out, `{"context":`...)
	here := at.at("context")
	if context := x.Get("context"); context != nil {
		out = v.spanContext(&here, context, out)
	} else {
		v.missing(&here, x)
	}
	out = append(out, `,"attributes":`...)
	here = at.at("attributes")
	if attributes := x.Get("attributes"); attributes.IsNull() {
		out = append(out, "null"...)
	} else {
		out = v.attributes(&here, attributes, out)
	}
	return v.extras(x, out, "context", "attributes")
}

func (v *checker) optSpanContext(at *loc, x rawjson.Value, out []byte) []byte {
	if x.IsNull() {
		return append(out, "null"...)
	}
	return v.spanContext(at, x, out)
}

func (v *checker) spanContext(at *loc, x rawjson.Value, out []byte) []byte {
	if !v.object(at, x) {
		return out
	}
	out = append(out, `{"trace_id":`...)
	out = v.appendText(at, x, "trace_id", out)
	out = append(out, `,"span_id":`...)
	out = v.appendText(at, x, "span_id", out)
	out = append(out, `,"is_remote":`...)
	here := at.at("is_remote")
	if remote := x.Get("is_remote"); remote == nil {
		v.missing(&here, x)
	} else if v.bool(&here, remote) {
		out = append(out, "true"...)
	} else {
		out = append(out, "false"...)
	}
	out = append(out, `,"trace_state":`...)
	here = at.at("trace_state")
	state := x.Get("trace_state")
	switch {
	case state == nil:
		v.missing(&here, x)
	case v.dict(&here, state) != nil:
		for key, val := range state.Members() {
			if val.Kind() != rawjson.KindString {
				entry := here.at(rawjson.Unescape(key))
				v.text(&entry, val)
			}
		}
	}
	out = append(out, state...)
	return v.extras(x, out, "trace_id", "span_id", "is_remote", "trace_state")
}

func (v *checker) otelResource(at *loc, x rawjson.Value, out []byte) []byte {
	if !v.object(at, x) {
		return out
	}
	out = append(out, `{"attributes":`...)
	here := at.at("attributes")
	if attributes := x.Get("attributes"); attributes != nil {
		out = v.attributes(&here, attributes, out)
	} else {
		v.missing(&here, x)
	}
	out = append(out, `,"schema_url":`...)
	out = v.appendText(at, x, "schema_url", out)
	return append(out, '}')
}
