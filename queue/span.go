package queue

import (
	"math"

	"github.com/aglq/aglq/queue/rawjson"
)

// NumberOnArrival is the SequenceID of a span that asks the store for the next
// number of its rollout.
const NumberOnArrival = math.MinInt64

// Span is one OpenTelemetry span filed under an attempt. What the store never
// looks into stays JSON text.
type Span struct {
	RolloutID  string
	AttemptID  string
	SequenceID int64 // or NumberOnArrival
	TraceID    string
	SpanID     string // unique within the attempt
	ParentID   *string
	Name       string
	Status     rawjson.Value // {"status_code","description", …}
	Attributes rawjson.Value // object of scalars and arrays of one scalar type
	Events     rawjson.Value // array
	Links      rawjson.Value // array
	StartTime  *float64      // Unix seconds
	EndTime    *float64      // Unix seconds
	Context    rawjson.Value // object or null
	Parent     rawjson.Value // object or null
	Resource   rawjson.Value // {"attributes","schema_url"}
	// Extra holds further members as an object; nil is none. They are kept and
	// written after the declared ones.
	Extra rawjson.Value
}

// Attribute returns the attribute named key, nil when the span has none.
func (s *Span) Attribute(key string) rawjson.Value { return s.Attributes.Get(key) }

// StatusCode is "UNSET", "OK" or "ERROR".
func (s *Span) StatusCode() string { return s.Status.Get("status_code").Text() }

// FillIn gives the members that the protocol does not take as null, where they
// are, their empty values; the status is unset.
func (s *Span) FillIn() {
	fill := func(v *rawjson.Value, empty string) {
		if v.IsNull() {
			*v = rawjson.Value(empty)
		}
	}
	fill(&s.Status, `{"status_code":"UNSET","description":null}`)
	fill(&s.Attributes, "{}")
	fill(&s.Events, "[]")
	fill(&s.Links, "[]")
	fill(&s.Resource, `{"attributes":{},"schema_url":""}`)
}

// Size estimates the memory the span takes, in bytes.
func (s *Span) Size() int {
	const fixed = 400 // the struct, its pointers and its index entries
	return fixed + len(s.RolloutID) + len(s.AttemptID) + len(s.TraceID) + len(s.SpanID) + len(s.Name) +
		len(s.Status) + len(s.Attributes) + len(s.Events) + len(s.Links) +
		len(s.Context) + len(s.Parent) + len(s.Resource) + len(s.Extra)
}

// spanFields are the declared members in wire order.
var spanFields = [...]string{
	"rollout_id", "attempt_id", "sequence_id", "trace_id", "span_id", "parent_id", "name", "status",
	"attributes", "events", "links", "start_time", "end_time", "context", "parent", "resource",
}

// DecodeSpan reads a span from its wire form. Members of the wrong type are
// taken as absent: whoever takes spans from strangers validates first. The
// span shares v's memory.
func DecodeSpan(v rawjson.Value) Span {
	var s Span
	var extra []byte
	for key, val := range v.Members() {
		switch string(key) {
		case "rollout_id":
			s.RolloutID = val.Text()
		case "attempt_id":
			s.AttemptID = val.Text()
		case "sequence_id":
			s.SequenceID, _ = val.Int()
		case "trace_id":
			s.TraceID = val.Text()
		case "span_id":
			s.SpanID = val.Text()
		case "parent_id":
			s.ParentID = val.TextOrNil()
		case "name":
			s.Name = val.Text()
		case "status":
			s.Status = val
		case "attributes":
			s.Attributes = val
		case "events":
			s.Events = val
		case "links":
			s.Links = val
		case "start_time":
			s.StartTime = val.FloatOrNil()
		case "end_time":
			s.EndTime = val.FloatOrNil()
		case "context":
			s.Context = val
		case "parent":
			s.Parent = val
		case "resource":
			s.Resource = val
		default:
			extra = rawjson.AppendMember(extra, key, val)
		}
	}
	if extra != nil {
		s.Extra = append(extra, '}')
	}
	return s
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Span) UnmarshalJSON(text []byte) error {
	v, err := rawjson.Parse(text)
	if err != nil {
		return err
	}
	*s = DecodeSpan(v)
	return nil
}

// MarshalJSON implements json.Marshaler.
func (s Span) MarshalJSON() ([]byte, error) { return s.AppendJSON(nil), nil }
