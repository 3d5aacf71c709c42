package dataset

import (
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go"

	"github.com/aglq/aglq/queue/rawjson"
)

// The columns of Parquet files. What has no fixed form there is JSON text: contents of
// several parts, definitions of tools, whatever a span holds.
type (
	chatColumns struct {
		Messages []messageColumns `parquet:"messages,list"`
		Tools    *string          `parquet:"tools,optional"`
	}
	chatOriginColumns struct {
		chatColumns
		originColumns
	}
	messageColumns struct {
		Role       string            `parquet:"role"`
		Content    string            `parquet:"content"`
		ToolCalls  []toolCallColumns `parquet:"tool_calls,optional,list"`
		ToolCallID *string           `parquet:"tool_call_id,optional"`
	}
	toolCallColumns struct {
		ID       string          `parquet:"id"`
		Type     string          `parquet:"type"`
		Function functionColumns `parquet:"function"`
	}
	functionColumns struct {
		Name      string `parquet:"name"`
		Arguments string `parquet:"arguments"`
	}
	originColumns struct {
		RolloutID string   `parquet:"rollout_id"`
		AttemptID string   `parquet:"attempt_id"`
		SpanID    string   `parquet:"span_id"`
		Reward    *float64 `parquet:"reward,optional"`
	}
	textColumns struct {
		Prompt     string `parquet:"prompt"`
		Completion string `parquet:"completion"`
	}
	textOriginColumns struct {
		textColumns
		originColumns
	}
	tripletColumns struct {
		PromptTokenIDs   []int64  `parquet:"prompt_token_ids,list"`
		ResponseTokenIDs []int64  `parquet:"response_token_ids,list"`
		Reward           *float64 `parquet:"reward,optional"`
		FinalReward      *float64 `parquet:"final_reward,optional"`
		Prompt           *string  `parquet:"prompt,optional"`
		Response         *string  `parquet:"response,optional"`
		Logprobs         *string  `parquet:"logprobs,optional"`
		ImageURLs        *string  `parquet:"image_urls,optional"`
		Request          *string  `parquet:"request,optional"`
		ResponseMetadata *string  `parquet:"response_metadata,optional"`
		ResponseID       *string  `parquet:"response_id,optional"`
		AgentName        *string  `parquet:"agent_name,optional"`
		RolloutID        string   `parquet:"rollout_id"`
		AttemptID        string   `parquet:"attempt_id"`
		SequenceID       int64    `parquet:"sequence_id"`
		SpanID           string   `parquet:"span_id"`
	}
	spanColumns struct {
		RolloutID  string   `parquet:"rollout_id"`
		AttemptID  string   `parquet:"attempt_id"`
		SequenceID int64    `parquet:"sequence_id"`
		TraceID    string   `parquet:"trace_id"`
		SpanID     string   `parquet:"span_id"`
		ParentID   *string  `parquet:"parent_id,optional"`
		Name       string   `parquet:"name"`
		StartTime  *float64 `parquet:"start_time,optional"`
		EndTime    *float64 `parquet:"end_time,optional"`
		Status     *string  `parquet:"status,optional"`
		Attributes *string  `parquet:"attributes,optional"`
		Events     *string  `parquet:"events,optional"`
		Links      *string  `parquet:"links,optional"`
		Context    *string  `parquet:"context,optional"`
		Parent     *string  `parquet:"parent,optional"`
		Resource   *string  `parquet:"resource,optional"`
		Extra      *string  `parquet:"extra,optional"`
	}
)

// A row group is in memory until it is complete. It is, with either of these.
const (
	groupRows  = 50_000
	groupBytes = 16 << 20
)

// parquetFile writes rows whose columns are those of T.
type parquetFile[T any] struct {
	to      *parquet.GenericWriter[T]
	columns func(Row) (T, int) // and about how many bytes they take
	rows    int
	bytes   int
}

func newParquet(w io.Writer, format Format, origin bool) (RowWriter, error) {
	switch {
	case format == Conversational && origin:
		return parquetOf(w, func(r Row) (chatOriginColumns, int) {
			chat, n := chatOf(r)
			return chatOriginColumns{chat, originOf(r.(*ChatRow).Origin)}, n
		}), nil
	case format == Conversational:
		return parquetOf(w, chatOf), nil
	case format == PromptCompletionFormat && origin:
		return parquetOf(w, func(r Row) (textOriginColumns, int) {
			text, n := textOf(r)
			return textOriginColumns{text, originOf(r.(*TextRow).Origin)}, n
		}), nil
	case format == PromptCompletionFormat:
		return parquetOf(w, textOf), nil
	case format == TripletFormat:
		return parquetOf(w, tripletOf), nil
	case format == Raw:
		return parquetOf(w, spanOf), nil
	}
	return nil, fmt.Errorf("the format %s has no Parquet form", format)
}

func parquetOf[T any](w io.Writer, columns func(Row) (T, int)) RowWriter {
	to := parquet.NewGenericWriter[T](w, parquet.Compression(&parquet.Zstd), parquet.CreatedBy("aglq", "", ""))
	return &parquetFile[T]{to: to, columns: columns}
}

// Write implements RowWriter.
func (f *parquetFile[T]) Write(r Row) error {
	row, size := f.columns(r)
	if _, err := f.to.Write([]T{row}); err != nil {
		return fmt.Errorf("writing a row of Parquet: %w", err)
	}
	f.rows++
	if f.bytes += size; f.rows < groupRows && f.bytes < groupBytes {
		return nil
	}
	f.rows, f.bytes = 0, 0
	if err := f.to.Flush(); err != nil {
		return fmt.Errorf("writing a group of rows of Parquet: %w", err)
	}
	return nil
}

// Close implements RowWriter.
func (f *parquetFile[T]) Close() error {
	if err := f.to.Close(); err != nil {
		return fmt.Errorf("ending a Parquet file: %w", err)
	}
	return nil
}

func chatOf(r Row) (chatColumns, int) {
	chat := r.(*ChatRow)
	columns := chatColumns{Messages: make([]messageColumns, len(chat.Messages)), Tools: jsonText(chat.Tools)}
	size := len(chat.Tools)
	for i := range chat.Messages {
		m := &chat.Messages[i]
		out := &columns.Messages[i]
		*out = messageColumns{Role: m.Role, Content: m.Content}
		if m.Parts != nil {
			out.Content = string(m.Parts)
		}
		size += len(out.Content) + 64
		for _, c := range m.ToolCalls {
			out.ToolCalls = append(out.ToolCalls, toolCallColumns{c.ID, "function", functionColumns{c.Name, c.Arguments}})
			size += len(c.Arguments) + 64
		}
		if m.ToolCallID != "" {
			out.ToolCallID = &m.ToolCallID
		}
	}
	return columns, size
}

func originOf(o *Origin) originColumns {
	return originColumns{o.RolloutID, o.AttemptID, o.SpanID, o.Reward}
}

func textOf(r Row) (textColumns, int) {
	text := r.(*TextRow)
	return textColumns{text.Prompt, text.Completion}, len(text.Prompt) + len(text.Completion)
}

func tripletOf(r Row) (tripletColumns, int) {
	t := r.(*TripletRow)
	columns := tripletColumns{
		PromptTokenIDs: t.Prompt.TokenIDs, ResponseTokenIDs: t.Response.TokenIDs, Reward: t.Reward, FinalReward: t.FinalReward,
		Prompt: jsonText(t.Prompt.RawContent), Response: jsonText(t.Response.RawContent), Logprobs: jsonText(t.Response.Logprobs),
		Request: jsonText(t.Metadata.Request), ResponseMetadata: jsonText(t.Metadata.Response),
		ResponseID: t.Metadata.ResponseID, AgentName: t.Metadata.AgentName,
		RolloutID: t.RolloutID, AttemptID: t.AttemptID, SequenceID: t.Metadata.SequenceID, SpanID: t.Metadata.SpanID,
	}
	if len(t.Prompt.ImageURLs) > 0 {
		list := []byte{'['}
		for i, url := range t.Prompt.ImageURLs {
			if i > 0 {
				list = append(list, ',')
			}
			list = append(list, url...)
		}
		columns.ImageURLs = jsonText(append(list, ']'))
	}
	return columns, 8*(len(t.Prompt.TokenIDs)+len(t.Response.TokenIDs)) + len(t.Prompt.RawContent) + len(t.Response.RawContent) +
		len(t.Response.Logprobs) + len(t.Metadata.Request) + len(t.Metadata.Response)
}

func spanOf(r Row) (spanColumns, int) {
	s := &r.(*SpanRow).Span
	return spanColumns{
		RolloutID: s.RolloutID, AttemptID: s.AttemptID, SequenceID: s.SequenceID, TraceID: s.TraceID, SpanID: s.SpanID,
		ParentID: s.ParentID, Name: s.Name, StartTime: s.StartTime, EndTime: s.EndTime,
		Status: jsonText(s.Status), Attributes: jsonText(s.Attributes), Events: jsonText(s.Events), Links: jsonText(s.Links),
		Context: jsonText(s.Context), Parent: jsonText(s.Parent), Resource: jsonText(s.Resource), Extra: jsonText(s.Extra),
	}, s.Size()
}

// jsonText is a value as text; nil for none, and for null.
func jsonText(v rawjson.Value) *string {
	if v.IsNull() {
		return nil
	}
	text := string(v)
	return &text
}
