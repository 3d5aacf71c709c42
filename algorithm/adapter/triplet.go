package adapter

import (
	"github.com/aglq/aglq/queue/rawjson"
)

// Triplet is one call of a language model with the reward it earned.
type Triplet struct {
	Prompt   Prompt
	Response Response
	Reward   *float64 // nil when no reward was matched with the call
	Metadata Metadata
}

// Prompt is what the model was given. Absent members are left out of the JSON
// form.
type Prompt struct {
	TokenIDs   []int64
	RawContent rawjson.Value   // mostly a list of messages; null when none were recorded
	ImageURLs  []rawjson.Value // in order of appearance; mostly texts
}

// Response is what the model answered.
type Response struct {
	TokenIDs   []int64
	RawContent rawjson.Value // mostly a list of choices; null when none were recorded
	Logprobs   rawjson.Value // a list with one entry a token; nil when none were recorded
}

// Metadata tells where a triplet comes from.
type Metadata struct {
	Request    rawjson.Value // the other parameters of the call, null for none
	Response   rawjson.Value // what else was said of the response, null for none
	ResponseID *string
	// AgentName is the agent within which the call was made, "*" for any; nil in
	// triplets from a proxy, which does not know agents.
	AgentName  *string
	SequenceID int64  // of the call's span
	SpanID     string // of the call's span
}

// MarshalJSON implements json.Marshaler.
func (t Triplet) MarshalJSON() ([]byte, error) { return t.AppendJSON(nil), nil }

// AppendJSON appends the triplet as the reference writes it, with what it lacks
// after its members: sequence_id and span_id in metadata, and the contents and
// logprobs of triplets from a proxy.
func (t *Triplet) AppendJSON(dst []byte) []byte {
	dst = appendTokens(append(dst, `{"prompt":{"token_ids":`...), t.Prompt.TokenIDs)
	dst = appendMember(dst, "raw_content", t.Prompt.RawContent)
	if t.Prompt.ImageURLs != nil {
		dst = append(dst, `,"image_urls":`...)
		dst = appendList(dst, t.Prompt.ImageURLs)
	}
	dst = appendTokens(append(dst, `},"response":{"token_ids":`...), t.Response.TokenIDs)
	dst = appendMember(dst, "raw_content", t.Response.RawContent)
	dst = appendMember(dst, "logprobs", t.Response.Logprobs)
	dst = append(dst, `},"reward":`...)
	if t.Reward == nil {
		dst = append(dst, "null"...)
	} else {
		dst = rawjson.AppendFloat(dst, *t.Reward)
	}
	dst = append(dst, `,"metadata":{`...)
	if m := &t.Metadata; m.AgentName != nil {
		dst = append(append(dst, `"request":`...), orNull(m.Request)...)
		dst = append(append(dst, `,"response":`...), orNull(m.Response)...)
		dst = append(append(dst, `,"response_id":`...), textOrNull(m.ResponseID)...)
		dst = append(append(dst, `,"agent_name":`...), textOrNull(m.AgentName)...)
	} else {
		dst = append(append(dst, `"response_id":`...), textOrNull(m.ResponseID)...)
	}
	dst = rawjson.AppendInt(append(dst, `,"sequence_id":`...), t.Metadata.SequenceID)
	dst = rawjson.AppendString(append(dst, `,"span_id":`...), t.Metadata.SpanID)
	return append(dst, '}', '}')
}

func appendTokens(dst []byte, ids []int64) []byte {
	dst = append(dst, '[')
	for i, id := range ids {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = rawjson.AppendInt(dst, id)
	}
	return append(dst, ']')
}

func appendList(dst []byte, list []rawjson.Value) []byte {
	dst = append(dst, '[')
	for i, v := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, v...)
	}
	return append(dst, ']')
}

// appendMember adds a further member to an object, unless v is absent.
func appendMember(dst []byte, name string, v rawjson.Value) []byte {
	if v == nil {
		return dst
	}
	dst = append(append(append(dst, ',', '"'), name...), '"', ':')
	return append(dst, v...)
}

func orNull(v rawjson.Value) rawjson.Value {
	if v == nil {
		return rawjson.Null
	}
	return v
}

func textOrNull(s *string) rawjson.Value {
	if s == nil {
		return rawjson.Null
	}
	return rawjson.AppendString(nil, *s)
}
