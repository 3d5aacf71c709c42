package llmclient

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"github.com/aglq/aglq/queue/rawjson"
)

// errLong says that a stream does not end.
var errLong = errors.New("the stream is longer than can be kept")

// readStream reads a stream to its end, handing on the text of the first choice.
func readStream(r io.Reader, onText func(string) error) (stream []byte, err error) {
	lines := bufio.NewReader(io.LimitReader(r, MaxRecorded+1))
	for {
		line, err := lines.ReadBytes('\n')
		stream = append(stream, line...)
		if len(stream) > MaxRecorded {
			return nil, errLong
		}
		if err == nil || err == io.EOF {
			if err := textOf(line, onText); err != nil {
				return nil, err
			}
		}
		switch err {
		case nil:
		case io.EOF:
			return stream, nil
		default:
			return nil, err
		}
	}
}

// textOf hands on the text in a line of a stream.
func textOf(line []byte, onText func(string) error) error {
	data, ok := bytes.CutPrefix(line, []byte("data:"))
	if !ok {
		return nil
	}
	chunk, err := rawjson.Parse(data)
	if err != nil {
		return nil // the end, or none of ours
	}
	for choice := range chunk.Get("choices").Elements() {
		piece := choice.Get("delta").Get("content").Text()
		if index, _ := choice.Get("index").Int(); index != 0 || piece == "" {
			continue
		}
		if err := onText(piece); err != nil {
			return err
		}
	}
	return nil
}
