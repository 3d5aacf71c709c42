package llmproxy

import (
	"bytes"
	"io"

	"github.com/aglq/aglq/queue/rawjson"
)

// maxEvent bounds one server-sent event, in bytes. A longer one is forwarded
// and not understood.
const maxEvent = 16 << 20

// sseReader takes a stream of server-sent events apart as it comes.
type sseReader struct {
	line    []byte // the part of a line that has come
	event   []byte
	data    []byte
	hasData bool
	afterCR bool
	tooLong bool
}

// feed hands each event that chunk completes to emit: its name, "" for none,
// and its data, which is only good during the call.
func (s *sseReader) feed(chunk []byte, emit func(name string, data []byte)) {
	for len(chunk) > 0 {
		if s.afterCR && chunk[0] == '\n' {
			chunk = chunk[1:]
		}
		s.afterCR = false
		end := bytes.IndexAny(chunk, "\r\n")
		if end < 0 {
			s.extend(chunk)
			return
		}
		s.extend(chunk[:end])
		s.afterCR = chunk[end] == '\r'
		chunk = chunk[end+1:]
		s.endLine(emit)
		s.line = s.line[:0]
	}
}

func (s *sseReader) extend(part []byte) {
	if s.tooLong = s.tooLong || len(s.line)+len(s.data)+len(part) > maxEvent; s.tooLong {
		return
	}
	s.line = append(s.line, part...)
}

func (s *sseReader) endLine(emit func(string, []byte)) {
	if len(s.line) == 0 {
		s.dispatch(emit)
		return
	}
	field, value, _ := bytes.Cut(s.line, []byte{':'})
	value = bytes.TrimPrefix(value, []byte{' '})
	switch string(field) {
	case "event":
		s.event = append(s.event[:0], value...)
	case "data":
		if s.hasData {
			s.data = append(s.data, '\n')
		}
		s.data = append(s.data, value...)
		s.hasData = true
	}
}

func (s *sseReader) dispatch(emit func(string, []byte)) {
	if s.hasData && !s.tooLong {
		emit(string(s.event), s.data)
	}
	s.event, s.data, s.hasData, s.tooLong = s.event[:0], s.data[:0], false, false
}

// end hands out an event that lacks its closing empty line.
func (s *sseReader) end(emit func(string, []byte)) {
	if len(s.line) > 0 {
		s.endLine(emit)
		s.line = s.line[:0]
	}
	s.dispatch(emit)
}

// doneMark ends a stream of OpenAI's.
const doneMark = "[DONE]"

// writeEvent writes one server-sent event; an empty name is none.
func writeEvent(w io.Writer, name string, data []byte) error {
	buf := make([]byte, 0, len(name)+len(data)+len("event: \ndata: \n\n"))
	if name != "" {
		buf = append(buf, "event: "...)
		buf = append(buf, name...)
		buf = append(buf, '\n')
	}
	buf = append(buf, "data: "...)
	buf = append(buf, data...)
	buf = append(buf, '\n', '\n')
	_, err := w.Write(buf)
	return err
}

// assembler puts the message of a stream together.
type assembler interface {
	// add takes the next event.
	add(name string, data rawjson.Value)
	// end takes the end of the events, as OpenAI's doneMark.
	done()
	// complete reports whether the message came to its end.
	complete() bool
	// failure is the error that the upstream put into the stream, absent for none.
	failure() rawjson.Value
	// response is what an answer without a stream would have been, of what has
	// come.
	response() rawjson.Value
}

func newAssembler(wire endpoint) assembler {
	switch wire {
	case messages:
		return &messageAssembler{}
	case responses:
		return &responsesAssembler{}
	}
	return &chatAssembler{text: wire == completions}
}
