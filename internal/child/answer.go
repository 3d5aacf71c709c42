package child

import (
	"bytes"

	"github.com/aglq/aglq/queue/rawjson"
)

// Answer is the JSON object that a program answered with: all of its output, or the
// last line of it. It is nil when neither is an object.
func Answer(output []byte) rawjson.Value {
	output = bytes.TrimSpace(output)
	for _, text := range [][]byte{output, output[bytes.LastIndexByte(output, '\n')+1:]} {
		if v, err := rawjson.Parse(text); err == nil && v.Kind() == rawjson.KindObject {
			return v
		}
	}
	return nil
}
