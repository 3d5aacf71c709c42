package client

import (
	"bytes"
	"sync"

	"github.com/klauspost/compress/gzip"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/aglq/aglq/queue"
)

var gzippers = sync.Pool{New: func() any {
	w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is a valid one
	return w
}}

func compress(body []byte) []byte {
	var out bytes.Buffer
	out.Grow(len(body) / 4)
	w := gzippers.Get().(*gzip.Writer)
	defer gzippers.Put(w)
	w.Reset(&out)
	_, _ = w.Write(body) // a bytes.Buffer takes all
	_ = w.Close()
	return out.Bytes()
}

// The fields read of ExportTraceServiceResponse, its partial_success, and
// google.rpc.Status.
const (
	fieldPartialSuccess = 1
	fieldRejectedSpans  = 1
	fieldErrorMessage   = 2
	fieldStatusMessage  = 2
)

// partialSuccess reads what a store says of an OTLP request it took.
func partialSuccess(answer []byte) (rejected int, reason string, err error) {
	ok := fields(answer, func(num protowire.Number, _ uint64, val []byte) {
		if num != fieldPartialSuccess || val == nil {
			return
		}
		fields(val, func(num protowire.Number, n uint64, text []byte) {
			switch num {
			case fieldRejectedSpans:
				rejected = int(n)
			case fieldErrorMessage:
				reason = string(text)
			}
		})
	})
	if !ok || rejected < 0 {
		return 0, "", queue.Errorf(queue.Internal, "the store's answer is no ExportTraceServiceResponse")
	}
	return rejected, reason, nil
}

// statusMessage is the message of a google.rpc.Status, "" for none.
func statusMessage(answer []byte) (text string) {
	fields(answer, func(num protowire.Number, _ uint64, val []byte) {
		if num == fieldStatusMessage {
			text = string(val)
		}
	})
	return text
}

// fields walks a protobuf message; val is nil for what is not length-delimited.
// It reports whether the message is whole.
func fields(msg []byte, visit func(num protowire.Number, n uint64, val []byte)) bool {
	for len(msg) > 0 {
		num, kind, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return false
		}
		msg = msg[n:]
		switch kind {
		case protowire.VarintType:
			var x uint64
			if x, n = protowire.ConsumeVarint(msg); n >= 0 {
				visit(num, x, nil)
			}
		case protowire.BytesType:
			var val []byte
			if val, n = protowire.ConsumeBytes(msg); n >= 0 {
				visit(num, 0, val)
			}
		default:
			n = protowire.ConsumeFieldValue(num, kind, msg)
		}
		if n < 0 {
			return false
		}
		msg = msg[n:]
	}
	return true
}
