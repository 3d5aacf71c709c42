package httpapi

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/otlp"
	"github.com/aglq/aglq/queue/rawjson"
)

// traces takes an OTLP trace request. What OTLP says of it is in the answer's
// form: protobuf, or JSON for a JSON request.
func (c *call) traces() error {
	kind, _, _ := strings.Cut(c.r.Header.Get("Content-Type"), ";")
	kind = strings.TrimSpace(kind)
	json := kind == "application/json"
	if !json && kind != protoType[0] {
		c.otlpStatus(http.StatusBadRequest, false, "Unsupported Content-Type '"+kind+"', expected 'application/x-protobuf'")
		return nil
	}
	buf := buffers.Get().(*[]byte)
	defer putBuffer(buf)
	body, err := c.readBody((*buf)[:0])
	*buf = body
	if err == nil {
		body, err = c.inflate(body)
	}
	var batch otlp.Batch
	if err == nil {
		decode := otlp.Decode
		if json && len(body) > 0 {
			decode = otlp.DecodeJSON
		}
		if batch, err = decode(body); err != nil {
			c.otlpStatus(http.StatusBadRequest, json, "Unable to parse OTLP traces payload: "+err.Error())
			return nil
		}
	}
	var added queue.SpansAdded
	if err == nil && len(batch.Spans) > 0 {
		added, err = c.server.store.AddSpans(c.ctx(), batch.Spans)
	}
	if err != nil {
		return c.otlpError(err, json)
	}
	if batch.Dropped > 0 {
		c.server.log.Warn("spans without a rollout or an attempt were dropped", "spans", batch.Dropped)
	}
	if added.Rejected > 0 {
		c.server.log.Warn("spans were rejected", "spans", added.Rejected, "reason", added.Reason)
	}
	return c.otlpAnswer(http.StatusOK, json, partialSuccess(added, json))
}

// otlpError answers a failure that is worth an OTLP status; others are left to
// the caller.
func (c *call) otlpError(err error, json bool) error {
	var body errBody
	status := statusOf(err)
	if errors.As(err, &body) || c.r.Context().Err() != nil || status == http.StatusInternalServerError {
		return err
	}
	if status == http.StatusServiceUnavailable {
		c.w.Header().Set("Retry-After", "1")
	}
	c.otlpStatus(status, json, err.Error())
	return nil
}

// inflate undoes the request's Content-Encoding.
func (c *call) inflate(body []byte) ([]byte, error) {
	if len(body) == 0 {
		return body, nil
	}
	var from io.Reader
	var err error
	switch strings.ToLower(c.r.Header.Get("Content-Encoding")) {
	case "gzip":
		unzipper, _ := unzippers.Get().(*gzip.Reader)
		if unzipper == nil {
			unzipper = new(gzip.Reader)
		}
		defer unzippers.Put(unzipper)
		from, err = unzipper, unzipper.Reset(bytes.NewReader(body))
	case "deflate":
		// The name says zlib; some clients send the bare stream.
		if from, err = zlib.NewReader(bytes.NewReader(body)); err != nil {
			from, err = flate.NewReader(bytes.NewReader(body)), nil
		}
	default:
		return body, nil
	}
	limit := c.server.options.MaxBody
	var out []byte
	if err == nil {
		out, err = io.ReadAll(io.LimitReader(from, limit+1))
	}
	if err != nil {
		return nil, queue.Wrap(queue.Invalid, err, "decompressing the request body")
	}
	if int64(len(out)) > limit {
		return nil, errTooLarge(limit)
	}
	return out, nil
}

// partialSuccess is the body of an ExportTraceServiceResponse: nothing when all
// was well.
func partialSuccess(added queue.SpansAdded, json bool) []byte {
	if json {
		if added.Rejected == 0 {
			return []byte("{}")
		}
		// 64-bit integers are text in protobuf's JSON.
		out := append([]byte(`{"partialSuccess":{"rejectedSpans":"`), rawjson.AppendInt(nil, int64(added.Rejected))...)
		out = append(out, `","errorMessage":`...)
		return append(rawjson.AppendString(out, added.Reason), "}}"...)
	}
	if added.Rejected == 0 {
		return nil
	}
	partial := protowire.AppendTag(nil, 1, protowire.VarintType)
	partial = protowire.AppendVarint(partial, uint64(added.Rejected))
	partial = protowire.AppendTag(partial, 2, protowire.BytesType)
	partial = protowire.AppendString(partial, added.Reason)
	out := protowire.AppendTag(nil, 1, protowire.BytesType)
	return protowire.AppendBytes(out, partial)
}

// otlpStatus answers with a google.rpc.Status.
func (c *call) otlpStatus(status int, json bool, message string) {
	var out []byte
	if json {
		out = append(rawjson.AppendString([]byte(`{"message":`), message), '}')
	} else {
		out = protowire.AppendTag(nil, 2, protowire.BytesType)
		out = protowire.AppendString(out, strings.ToValidUTF8(message, "\uFFFD"))
	}
	_ = c.otlpAnswer(status, json, out)
}

var (
	unzippers sync.Pool
	zippers   = sync.Pool{New: func() any {
		w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is a valid one
		return w
	}}
)

func (c *call) otlpAnswer(status int, json bool, body []byte) error {
	kind := protoType
	if json {
		kind = jsonType
	}
	if accepts(c.r.Header.Get("Accept-Encoding"), "gzip") {
		var out bytes.Buffer
		w := zippers.Get().(*gzip.Writer)
		w.Reset(&out)
		_, _ = w.Write(body) // a bytes.Buffer takes all
		_ = w.Close()
		zippers.Put(w)
		body = out.Bytes()
		c.w.Header().Set("Content-Encoding", "gzip")
	}
	_ = c.send(status, kind, body) // the exporter does not read it
	return nil
}

// unsupported answers for the signals that are not stored.
func (c *call) unsupported() error {
	return c.send(http.StatusNotImplemented, nil, nil)
}
