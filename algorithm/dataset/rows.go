package dataset

import (
	"cmp"
	"regexp"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// Format is what the rows of a dataset are.
type Format string

// The formats.
const (
	// Conversational rows have the messages of a conversation, and its tools.
	Conversational Format = "conversational"
	// PromptCompletionFormat rows have a prompt and a completion, as texts.
	PromptCompletionFormat Format = "prompt-completion"
	// TripletFormat rows are calls of a model with prompt, response and reward.
	TripletFormat Format = "triplet"
	// OpenAIFT rows are examples for OpenAI's fine-tuning of chat models.
	OpenAIFT Format = "openai-ft"
	// Raw rows are the spans themselves.
	Raw Format = "raw"
)

// Formats lists the formats.
var Formats = []Format{Conversational, PromptCompletionFormat, TripletFormat, OpenAIFT, Raw}

// Row is a row of a dataset: a *ChatRow, *TextRow, *TripletRow, *TuningRow or
// *SpanRow, after the format.
type Row interface {
	// AppendJSON appends the row as an object.
	AppendJSON(dst []byte) []byte
	responseID() string
}

// Origin says where a row comes from.
type Origin struct {
	RolloutID, AttemptID string
	SpanID               string   // of the call of a model
	Reward               *float64 // the attempt's final one; nil for none
}

// appendMembers adds members to an object that is open and has some.
func (o *Origin) appendMembers(dst []byte) []byte {
	if o == nil {
		return dst
	}
	dst = rawjson.AppendString(append(dst, `,"rollout_id":`...), o.RolloutID)
	dst = rawjson.AppendString(append(dst, `,"attempt_id":`...), o.AttemptID)
	dst = rawjson.AppendString(append(dst, `,"span_id":`...), o.SpanID)
	return appendReward(append(dst, `,"reward":`...), o.Reward)
}

func appendReward(dst []byte, reward *float64) []byte {
	if reward == nil {
		return append(dst, rawjson.Null...)
	}
	return rawjson.ReplaceNonFinite(dst, rawjson.AppendFloat(nil, *reward), false)
}

// ChatRow is a row of the format conversational.
type ChatRow struct {
	Conversation
	Origin *Origin // nil leaves it out
}

// AppendJSON implements Row.
func (r *ChatRow) AppendJSON(dst []byte) []byte {
	dst = appendMessages(append(dst, `{"messages":`...), r.Messages)
	if r.Tools != nil {
		dst = append(append(dst, `,"tools":`...), r.Tools...)
	}
	return append(r.Origin.appendMembers(dst), '}')
}

func (r *ChatRow) responseID() string { return r.ResponseID }

// TextRow is a row of the format prompt-completion.
type TextRow struct {
	Prompt, Completion string
	Origin             *Origin // nil leaves it out
	response           string
}

// AppendJSON implements Row.
func (r *TextRow) AppendJSON(dst []byte) []byte {
	dst = rawjson.AppendString(append(dst, `{"prompt":`...), r.Prompt)
	dst = rawjson.AppendString(append(dst, `,"completion":`...), r.Completion)
	return append(r.Origin.appendMembers(dst), '}')
}

func (r *TextRow) responseID() string { return r.response }

// TripletRow is a row of the format triplet.
type TripletRow struct {
	adapter.Triplet
	RolloutID, AttemptID string
	FinalReward          *float64 // the attempt's; the triplet's own is that of the call
}

// AppendJSON implements Row. The members are those of the triplet, and rollout_id,
// attempt_id and final_reward.
func (r *TripletRow) AppendJSON(dst []byte) []byte {
	dst = r.Triplet.AppendJSON(dst)
	dst = dst[:len(dst)-1]
	dst = rawjson.AppendString(append(dst, `,"rollout_id":`...), r.RolloutID)
	dst = rawjson.AppendString(append(dst, `,"attempt_id":`...), r.AttemptID)
	return append(appendReward(append(dst, `,"final_reward":`...), r.FinalReward), '}')
}

func (r *TripletRow) responseID() string {
	if r.Metadata.ResponseID == nil {
		return ""
	}
	return *r.Metadata.ResponseID
}

// SpanRow is a row of the format raw.
type SpanRow struct{ queue.Span }

func (r *SpanRow) responseID() string { return "" }

// rows makes the rows of an attempt, and tells why others were not made. Spans that
// say what cannot be are an Invalid error.
func (o *Options) rows(c *Candidate) (rows []Row, dropped []Reason, err error) {
	switch o.Format {
	case Raw:
		for i := range c.Spans {
			rows = append(rows, &SpanRow{c.Spans[i]})
		}
		return rows, nil, nil
	case TripletFormat:
		rows, err = o.triplets(c)
		return rows, nil, err
	}
	all, err := Conversations(c.Spans)
	if err != nil {
		return nil, nil, err
	}
	chosen := all
	if !o.EachCall {
		chosen = Longest(all)
		for range len(all) - len(chosen) {
			dropped = append(dropped, Continued)
		}
	}
	for _, conversation := range chosen {
		if row, why := o.chat(c, conversation); why != "" {
			dropped = append(dropped, why)
		} else {
			rows = append(rows, row)
		}
	}
	return rows, dropped, nil
}

// chat makes a row of a conversation, or says why there is none.
func (o *Options) chat(c *Candidate, v Conversation) (Row, Reason) {
	if o.WithoutSystem {
		v.Messages = WithoutSystem(v.Messages)
	}
	if o.WithoutToolCalls {
		v.Messages, v.Tools = TextOnly(v.Messages), nil
	}
	var origin *Origin
	if o.Origin {
		origin = &Origin{c.Rollout.RolloutID, c.AttemptID, v.SpanID, c.Reward}
	}
	switch o.Format {
	case PromptCompletionFormat:
		prompt, completion, why := PromptCompletion(v.Messages)
		return &TextRow{prompt, completion, origin, v.ResponseID}, why
	case OpenAIFT:
		return &TuningRow{Conversation: v, LastOnly: o.LastOnly}, CheckTuning(v)
	}
	if !answered(v.Messages) {
		return nil, NoAnswer
	}
	return &ChatRow{v, origin}, ""
}

// answered reports whether an assistant says something.
func answered(messages []Message) bool {
	for i := range messages {
		if messages[i].Role == Assistant {
			return true
		}
	}
	return false
}

// anyCall matches what tracers of OpenAI's client and LLM proxies call their spans.
var anyCall = regexp.MustCompile(`openai\.chat\.completion|litellm_request`)

func (o *Options) triplets(c *Candidate) ([]Row, error) {
	var list []adapter.Triplet
	var err error
	source := cmp.Or(o.Triplets.Source, "auto")
	if source != "tracer" {
		list, err = adapter.ProxyTriplets{FollowLinks: true}.Adapt(c.Spans)
	}
	if err == nil && (source == "tracer" || source == "auto" && len(list) == 0) {
		list, err = adapter.TracerTriplets{
			LLMCall: cmp.Or(o.Triplets.LLMCall, anyCall), Agent: o.Triplets.Agent, Match: o.Triplets.Match, FollowLinks: true,
		}.Adapt(c.Spans)
	}
	rows := make([]Row, len(list))
	for i, t := range list {
		rows[i] = &TripletRow{t, c.Rollout.RolloutID, c.AttemptID, c.Reward}
	}
	return rows, err
}
